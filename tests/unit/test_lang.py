"""The language as a library: properties over random texts, the lock, messages about files, light start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tilewright
from tilewright.core.diagnostics import Reporter
from tilewright.lang import KynError, KynParseError, LockMismatchError, check, format_text
from tilewright.lang import vocabulary as words
from tilewright.lang.format import is_default
from tilewright.lang.load import decode
from tilewright.lang.lock import check_data, check_sources, find_data_files, write_lock
from tilewright.lang.program import Program, plain
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.parser import parse
from tilewright.lang.syntax.tokens import quote, tokenize, unquote
from tilewright.lang.types import REQUIRED, Field

PROGRAM = """\
# A program with a little of everything.
params:
    hidden = 64   # wide enough
    lr = 1e-3

dataset D:
    target = "y"
    # where it comes from
    source = csv("d.csv")
    shuffle = true
model Net:
    input 2
    repeat 2:
        dense $hidden bias=true relu   # twice

        dropout 0.1
    dense 1 linear
train:
    loss = mse
    model = Net
    data = D
    optimizer = adam(betas=[0.9, 0.999], lr=$lr)
    epochs = 3
evaluate:
    metrics = [mae, rmse]
"""


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- texts that look like programs --------------------------------------------------------------------------

_values = st.sampled_from(
    [
        "64",
        "0.5",
        "1e-3",
        "true",
        "relu",
        "$lr",
        "[1, 2]",
        '"a\\"b"',
        'csv("x")',
        "adam(lr=$lr, eps=1e-8)",
        "-1",
    ]
)
_names = st.sampled_from(
    [
        *words.LAYER_NAMES,
        *words.ACTIVATIONS,
        "loss",
        "model",
        "epochs",
        "batch",
        "lr",
        "source",
        "target",
        "größe",
    ]
)
_comments = st.sampled_from(["", "", "", "  # why", "#x", "#"])
_entries = st.builds("    {} = {}{}".format, _names, _values, _comments)
_layers = st.builds(
    "{}{} {} {}{}".format,
    st.sampled_from(["    ", "        "]),
    _names,
    st.lists(_values, max_size=2).map(" ".join),
    st.lists(st.builds("{}={}".format, _names, _values), max_size=2).map(" ".join),
    _comments,
)
_headers = st.builds(
    "{}{}".format,
    st.sampled_from(
        ["params:", "sweep:", "dataset D:", "model Net:", "train:", "evaluate:", "export:", "    repeat 2:"]
    ),
    _comments,
)
_other = st.sampled_from(["", "", "# comment", "    # comment", "        # comment", "   ", 'import "d.kyn"'])
_lines = st.one_of(_entries, _layers, _headers, _other, st.text(max_size=12))
_texts = st.lists(_lines, max_size=20).map("\n".join)


def is_parsable(text: str) -> bool:
    report = Reporter()
    parse(text, "t.kyn", report)
    return not report.has_errors


@given(st.one_of(st.text(), _texts))
def test_tokens_join_to_the_text(text: str) -> None:
    tokens = tokenize(text, "t.kyn", Reporter())
    assert "".join(token.text for token in tokens) == text


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_quoted_strings_read_back(text: str) -> None:
    assert unquote(quote(text)) == text


@given(st.one_of(st.binary(), _texts.map(str.encode)))
@example(b"train:\n    epochs = " + b"[" * 500)
@example(b"train:\n    epochs = " + b"9" * 5000)
@example(b"train:\n    epochs = " + b"f(a=" * 500)
@example("model 漢:\n    input ١\n".encode())
@example(b'import "\\n"\nimport "."\nimport "/dev/null"')
@example(b"\xef\xbb\xbftrain:\r\n    a = 1\r")
def test_any_bytes_give_a_program_or_a_kyn_error(data: bytes) -> None:
    Path("t.kyn").write_bytes(data)
    try:
        assert isinstance(check("t.kyn"), Program)
    except KynError as error:
        assert str(error) and error.diagnostics
        assert error.render(color=True)
        for diagnostic in error.diagnostics:
            assert json.dumps(diagnostic.to_dict())


@given(st.data())
def test_a_damaged_program_gives_a_program_or_a_kyn_error(data: st.DataObject) -> None:
    """Cuts, doublings and replacements of a good program reach deeper than random text."""
    start = data.draw(st.integers(0, len(PROGRAM)))
    end = data.draw(st.integers(start, min(len(PROGRAM), start + 30)))
    text = (
        PROGRAM[:start]
        + data.draw(st.one_of(st.just(""), _values, _names, st.text(max_size=5)))
        + PROGRAM[end:]
    )
    try:
        checked = check("t.kyn", text=text)
    except KynError as error:
        assert str(error)
    else:
        assert check("t.kyn", text=format_text(text)).runs == checked.runs


@given(_texts.filter(is_parsable))
@example(PROGRAM)
@example("train:\n    epochs = 10\n    # one\n\n\n    # two\n# three\n\nmodel Net:\n    input 1\n")
@example('# a\n\n\nimport "a"\n# b\nimport "c"\n\nimport "d"\n\n\n# e\n')
@example("model N:\n    repeat 2:\n        dense 1\n        # deep\n    # flat\n# out\ntrain:\n    a = 1")
def test_formatting_is_idempotent_and_keeps_comments(text: str) -> None:
    once = format_text(text)
    assert format_text(once) == once
    assert comments(once) == comments(text)
    assert not any(line != line.rstrip() for line in once.splitlines())


def comments(text: str) -> list[str]:
    tokens = tokenize(text, "t.kyn", Reporter())
    return sorted(token.text.rstrip() for token in tokens if token.kind.name == "COMMENT")


def test_formatting_keeps_the_meaning() -> None:
    formatted = format_text(PROGRAM)
    assert formatted != PROGRAM
    assert check("t.kyn", text=formatted).runs == check("t.kyn", text=PROGRAM).runs


# --- the tables ---------------------------------------------------------------------------------------------


def signatures() -> list[tuple[str, tuple[Field, ...]]]:
    tables = (words.LAYERS, words.SOURCES, words.LOSSES, words.OPTIMIZERS, words.SCHEDULERS, words.EARLY_STOP)
    calls = [(name, signature.fields) for table in tables for name, signature in table.items()]
    return [*calls, *words.BLOCKS.items()]


@pytest.mark.parametrize(
    ("name", "fields"), signatures(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_default_has_its_field_type(name: str, fields: tuple[Field, ...]) -> None:
    """A default must be what reading its own text gives, or the formatter would not recognise it."""
    for field in fields:
        if field.default is REQUIRED or field.default is None:
            continue
        entry = f"    {field.name} = {write(field.default)}\n"
        report = Reporter()
        tree = parse(f"train:\n{entry}", "t.kyn", report)
        block = next(tree.blocks("train"))
        assert isinstance(block.body[0], nodes.Entry)
        assert is_default(block.body[0].value, field), f"{name}.{field.name}"
        assert field.doc


def write(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(write, value))}]"
    if isinstance(value, str):
        return value if value.isidentifier() else quote(value)
    return str(getattr(value, "name", value))


# --- files --------------------------------------------------------------------------------------------------


def test_a_program_that_cannot_be_read() -> None:
    for path, reason in (("no.kyn", "no such file or directory"), (".", "is a directory")):
        with pytest.raises(KynParseError) as caught:
            check(path)
        assert str(caught.value) == f"error[KYN001]: cannot read `{path}`: {reason}"


def test_a_program_that_is_not_utf8() -> None:
    Path("t.kyn").write_bytes(b"train:\n    # gr\xf6\xdfe\n")
    with pytest.raises(KynParseError) as caught:
        check("t.kyn")
    assert str(caught.value) == "error[KYN001]: cannot read `t.kyn`: not UTF-8: byte 0xf6 in line 2"
    assert decode(b"\xef\xbb\xbfa") == "a"


def test_sources_carry_their_digests() -> None:
    Path("parts").mkdir()
    Path("parts/a.kyn").write_text(PROGRAM)
    Path("t.kyn").write_text('import "parts/a.kyn"\ntrain:\n    model = Net\n    data = D\n    loss = l1\n')
    program = check("t.kyn")
    assert [source.path for source in program.sources] == ["t.kyn", "parts/a.kyn"]
    assert all(len(source.sha256) == 64 for source in program.sources)
    assert program.runs[0].train.data.directory == "parts"
    assert json.dumps(program.to_dict()) and plain(program.runs[0])["train"]["model"] == "Net"


def test_the_lock_holds_sources_and_data() -> None:
    Path("t.kyn").write_text(PROGRAM)
    Path("d.csv").write_text("a,b,y\n1,2,3\n")
    program = check("t.kyn")
    write_lock(program, find_data_files(program))
    check_sources(program)
    check_data(program, find_data_files(program))
    lock = json.loads(Path("t.kyn.lock").read_text())
    assert lock["sources"].keys() == {"t.kyn"} and lock["data"].keys() == {"d.csv"}

    before = lock["data"]["d.csv"][:16]
    Path("d.csv").write_text("a,b,y\n1,2,4\n")
    after = find_data_files(program)
    with pytest.raises(LockMismatchError) as caught:
        check_data(program, after)
    assert str(caught.value) == (
        "error[KYN302]: data file `d.csv` is not the one that was locked\n"
        f"  = note: locked sha256 {before}..., now {after['d.csv'][:16]}...\n"
        "  = help: run `tw lock t.kyn` to accept the change"
    )
    Path("t.kyn").write_text(PROGRAM + "# changed\n")
    with pytest.raises(LockMismatchError, match="KYN301"):
        check_sources(check("t.kyn"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 2}', '{"version": 1, "sources": {"a": 1}, "data": {}}']
)
def test_a_lock_that_is_none(text: str) -> None:
    Path("t.kyn.lock").write_text(text)
    with pytest.raises(LockMismatchError, match="is not a lock file"):
        check_sources(check("t.kyn", text=PROGRAM))


# --- start-up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["validate", "t.kyn"], ["fmt", "t.kyn"], ["ast", "t.kyn"], ["explain", "KYN106"]]
)
def test_light_commands_import_nothing_heavy(command: list[str]) -> None:
    Path("t.kyn").write_text(PROGRAM)
    script = (
        "import sys; from tilewright.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'numpy', 'llvmlite', 'polars', 'rich', 'ml_dtypes'} & sys.modules.keys();"
        "sys.exit(code or (f'imports {heavy}' if heavy else 0))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tilewright.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
