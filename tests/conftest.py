"""Settings shared by all tests: a private cache, repeatable property tests, and the nightly switch.

It holds no fixtures that only one directory of tests needs; those live beside their tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

# The first run of a test compiles kernels: a deadline per example would measure the compiler, not the test.
settings.register_profile(
    "normal",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=2_000,
    suppress_health_check=[HealthCheck.too_slow],
)

# A cache of the user's would hide a compile error, and the tests would leave theirs behind. The variable is
# set before any test module imports the package, and subprocesses inherit it.
_cache = TemporaryDirectory(prefix="tilewright-test-cache-")
os.environ["TW_CACHE_DIR"] = _cache.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the long tests and more random examples")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("nightly" if config.getoption("--nightly") else "normal")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--nightly"):
        return
    skip = pytest.mark.skip(reason="a nightly test: run pytest with --nightly")
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(skip)


def pytest_unconfigure() -> None:
    _cache.cleanup()


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """True in the nightly run: tests that draw random cases draw more of them."""
    return bool(request.config.getoption("--nightly"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree, where `examples/` and `docs/` are."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test with an empty working directory, for commands that write beside the caller."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
