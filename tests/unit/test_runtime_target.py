"""The target's description and the settings that choose it."""

from pathlib import Path

import pytest

from tilewright.core.settings import Settings, SettingsError, parse_size, settings
from tilewright.runtime import target as target_module
from tilewright.runtime.target import Target, TargetError, available_cpus, host_target


def test_the_host_is_described() -> None:
    host = host_target()
    assert host.vector_bytes in (16, 32, 64)
    assert host.registers in (16, 32)
    assert host.l1 >= 8 << 10
    assert host.l2 >= host.l1
    assert host.cores == available_cpus() >= 1
    assert host.lanes(4) == host.vector_bytes // 4
    printed = str(host)
    for word in ("triple", "vector_bytes", host.cpu):
        assert word in printed


@pytest.mark.parametrize(
    ("name", "vector_bytes"), [("avx512", 64), ("avx2", 32), ("sse", 16), ("generic", 16), ("neon", 16)]
)
def test_named_targets_are_the_same_everywhere(name: str, vector_bytes: int) -> None:
    target = Target.named(name)
    assert (target.name, target.vector_bytes) == (name, vector_bytes)
    assert target.has_masks == (name == "avx512")
    assert (target.l1, target.l2, target.cores) == (32 << 10, 1 << 20, 4)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(TargetError, match="avx512, avx2"):
        Target.named("mmx")


def test_an_override_keeps_the_machine_and_changes_the_instructions() -> None:
    host = host_target()
    if not host.triple.startswith("x86_64"):
        pytest.skip("the named instruction sets exist on x86-64 only")
    with settings.override(target="generic"):
        plain = host_target()
    assert (plain.l1, plain.l2, plain.l3, plain.cores) == (host.l1, host.l2, host.l3, host.cores)
    assert plain.vector_bytes == 16
    assert plain.key != host.key
    assert host_target() == host


def test_an_override_beyond_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_detect", lambda: Target.named("sse"))
    with settings.override(target="avx2"), pytest.raises(TargetError, match="TW_TARGET=avx2: this CPU"):
        host_target()
    with settings.override(target="sse"):
        assert host_target().name == "sse"


def test_a_container_quota_lowers_the_cpu_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_cpu_quota", lambda: 1)
    assert available_cpus() == 1
    monkeypatch.setattr(target_module, "_cpu_quota", lambda: 4096)
    assert available_cpus() < 4096


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512M", 512 << 20),
        ("2g", 2 << 30),
        ("1.5GB", 3 << 29),
        ("64 KiB", 64 << 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "12X", "-1", "1e99", "nan"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_settings_are_read_lazily_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in {
        "DEBUG": "3",
        "THREADS": "2",
        "CACHE_SIZE": "1M",
        "SPIN_US": "10",
        "TARGET": "AVX2",
    }.items():
        monkeypatch.setenv(f"TW_{name}", text)
    monkeypatch.setenv("TW_CACHE_DIR", str(tmp_path))
    read = Settings()
    assert (read.debug, read.threads, read.cache_size, read.spin_us, read.target) == (
        3,
        2,
        1 << 20,
        10.0,
        "avx2",
    )
    assert read.cache_dir == tmp_path
    monkeypatch.setenv("TW_DEBUG", "5")
    assert read.debug == 3
    read.reload()
    assert read.debug == 5
    read.debug = 1
    assert "debug=1" in repr(read)


def test_the_cache_directory_follows_xdg_and_may_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TW_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Settings().cache_dir == tmp_path / "tilewright"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().cache_dir == tmp_path / ".cache" / "tilewright"
    monkeypatch.setenv("TW_CACHE_DIR", "")
    assert Settings().cache_dir is None


@pytest.mark.parametrize(
    ("variable", "text", "attribute"),
    [
        ("TW_DEBUG", "loud", "debug"),
        ("TW_DEBUG", "-1", "debug"),
        ("TW_THREADS", "0", "threads"),
        ("TW_CACHE_SIZE", "big", "cache_size"),
        ("TW_SPIN_US", "-3", "spin_us"),
        ("TW_TARGET", "mmx", "target"),
    ],
)
def test_a_bad_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, attribute: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"environment variable {variable}='{text}'"):
        getattr(Settings(), attribute)


def test_overrides_are_undone_and_checked() -> None:
    mine = Settings()
    before = mine.spin_us
    with mine.override(spin_us=1.0, debug=2):
        assert (mine.spin_us, mine.debug) == (1.0, 2)
    assert mine.spin_us == before
    with pytest.raises(SettingsError, match="no setting is called 'thread'"), mine.override(thread=1):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", 2.5),
        ("threads", True),
        ("spin_us", "soon"),
        ("target", "mmx"),
        ("debug", None),
    ],
)
def test_a_value_given_in_code_is_held_to_the_same_rules(name: str, value: object) -> None:
    mine = Settings()
    before = getattr(mine, name)
    with pytest.raises(SettingsError, match=f"setting {name}={value!r}: "), mine.override(**{name: value}):
        pass
    with pytest.raises(SettingsError, match=f"setting {name}={value!r}: "):
        setattr(mine, name, value)
    assert getattr(mine, name) == before
    with mine.override(threads=None, cache_dir=None, cache_size="1M"):
        assert (mine.threads, mine.cache_dir, mine.cache_size) == (None, None, 1 << 20)
