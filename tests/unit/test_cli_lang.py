"""The commands that need no compiler: what they print, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from tilewright.cli.explain import PAGES
from tilewright.cli.main import COMMANDS, main

GOOD = """\
dataset D:
    source = csv("d.csv")
    target = "y"

model Net:
    input 2
    dense 1

train:
    model = Net
    data = D
    loss = mse
"""
BAD = GOOD.replace("dense", "dens")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    Path("good.kyn").write_text(GOOD)
    Path("bad.kyn").write_text(BAD)


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.kyn"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("good.kyn is valid\n\nmodel Net: 3 parameters\n") and not err


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "bad.kyn"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error[KYN106]: unknown layer `dens`\n --> bad.kyn:7:5\n")
    assert err.endswith("\n1 error; `tw explain KYN106` says more\n")


def test_colour_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["validate", "bad.kyn"]) == 1
    assert "\x1b[1;31merror[KYN106]\x1b[0m" in capsys.readouterr().err


def test_warnings_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    Path("warn.kyn").write_text("params:\n    lr = 1\n" + GOOD)
    assert main(["validate", "warn.kyn"]) == 0
    out, err = capsys.readouterr()
    assert "warn.kyn is valid, with 1 warning" in out and err.startswith("warning[KYN402]")


def test_validate_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.kyn", "--json"]) == 0
    program = json.loads(capsys.readouterr().out)
    assert program["valid"] and program["runs"][0]["models"]["Net"]["layers"][0]["kind"] == "dense"
    assert main(["validate", "bad.kyn", "--json"]) == 1
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert not answer["valid"] and answer["diagnostics"][0]["code"] == "KYN106" and not err


def test_validate_param(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.kyn").write_text("params:\n    n = 1\n" + GOOD.replace("input 2", "input $n"))
    assert main(["validate", "p.kyn", "--param", "n=7"]) == 0
    assert "model Net: 8 parameters" in capsys.readouterr().out


def test_ast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ast", "good.kyn"]) == 0
    assert "  Block model Net  @5:1-5:11\n    Layer input  @6:5-6:12\n" in capsys.readouterr().out
    assert main(["ast", "good.kyn", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["node"] == "File" and tree["items"][0]["name"]["name"] == "D"
    assert main(["ast", "gone.kyn"]) == 1
    assert capsys.readouterr().err.startswith("error[KYN001]: cannot read `gone.kyn`: no such file")


def test_fmt(capsys: pytest.CaptureFixture[str]) -> None:
    messy = GOOD.replace("    loss = mse", "    loss=mse\n    epochs = 10")
    Path("messy.kyn").write_text(messy)
    os.chmod("messy.kyn", 0o640)
    assert main(["fmt", "--check", "messy.kyn", "good.kyn"]) == 1
    assert capsys.readouterr().out == "messy.kyn would be reformatted\n"
    assert Path("messy.kyn").read_text() == messy
    assert main(["fmt", "messy.kyn", "good.kyn"]) == 0
    assert capsys.readouterr().out == "messy.kyn reformatted\n"
    assert Path("messy.kyn").read_text() == GOOD
    assert Path("messy.kyn").stat().st_mode & 0o777 == 0o640
    assert main(["fmt", "--check", "messy.kyn"]) == 0
    Path("marked.kyn").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert main(["fmt", "marked.kyn"]) == 0 and Path("marked.kyn").read_bytes() == GOOD.encode()
    Path("marked.kyn").unlink()
    assert sorted(p.name for p in Path().iterdir()) == ["bad.kyn", "good.kyn", "messy.kyn"]


def test_fmt_goes_on_after_a_broken_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.kyn").write_text("train\n")
    Path("messy.kyn").write_text(GOOD + "\n\n")
    assert main(["fmt", "broken.kyn", "messy.kyn"]) == 1
    out, err = capsys.readouterr()
    assert out == "messy.kyn reformatted\n" and "error[KYN009]" in err
    assert Path("broken.kyn").read_text() == "train\n"


def test_fmt_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"train:\n    batch=3")))
    assert main(["fmt", "-"]) == 0
    assert capsys.readouterr().out == "train:\n    batch = 3\n"


def test_lock(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "good.kyn"]) == 1
    assert "error[KYN122]" in capsys.readouterr().err and not Path("good.kyn.lock").exists()
    Path("d.csv").write_text("a,b,y\n1,2,3\n")
    assert main(["validate", "good.kyn", "--locked"]) == 1
    assert "error[KYN303]" in capsys.readouterr().err
    assert main(["lock", "good.kyn"]) == 0
    assert main(["lock", "--check", "good.kyn"]) == 0
    assert main(["validate", "good.kyn", "--locked"]) == 0
    assert capsys.readouterr().out.startswith("wrote good.kyn.lock\ngood.kyn matches good.kyn.lock\n")
    Path("d.csv").write_text("a,b,y\n1,2,4\n")
    assert main(["lock", "--check", "good.kyn"]) == 1
    assert "error[KYN302]" in capsys.readouterr().err


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "kyn009"]) == 0
    assert capsys.readouterr().out == (
        "KYN009: missing colon\n\nA block header and a `repeat` line end with `:`.\n\n"
        "Wrong:\n\n    model Net\n        input 10\n\nRight:\n\n    model Net:\n        input 10\n"
    )
    assert main(["explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PAGES)
    assert main(["explain", "TW301"]) == 0
    assert capsys.readouterr().out.startswith("TW301: a traced tensor was read as a number\n")
    assert main(["explain", "KYN999"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no code `KYN999`")


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tilewright.cli.main.build_parser", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_data_file_that_is_a_directory_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("d.csv").mkdir()
    assert main(["lock", "good.kyn"]) == 1
    assert "looked for d.csv, which is a directory" in capsys.readouterr().err


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validat", "x"]) == 2
    assert capsys.readouterr().err == "error: there is no command `validat`; did you mean `tw validate`?\n"


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("usage: tw")
