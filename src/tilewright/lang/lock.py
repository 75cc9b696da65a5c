"""The lock file: digests of a program's sources and data, so that a later run can prove it uses the same.

`FILE.lock` is JSON beside the program: `{"version": 1, "sources": {path: sha256}, "data": {path: sha256}}`,
with paths relative to the program. `tw lock` writes it; `--locked` compares with it and raises
`LockMismatchError`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from tilewright.core.diagnostics import Diagnostic, Label
from tilewright.core.files import write_json_atomic
from tilewright.lang.errors import KynSemanticError, LockMismatchError
from tilewright.lang.program import Dataset, Program
from tilewright.lang.types import COMMAND_LINE

VERSION: Final = 1
_CHUNK: Final = 1 << 20


def lock_path(program: Program) -> str:
    """Where the lock file of a program is."""
    return f"{program.path}.lock"


def find_data(dataset: Dataset) -> str:
    """The path of a data set's file: relative to its `.kyn` file, else to the working directory.

    Raises `KynSemanticError` naming both places when it is in neither.
    """
    written = str(dataset.source["path"])
    beside = os.path.normpath(os.path.join(dataset.directory, written))
    candidates = list(dict.fromkeys([beside, os.path.normpath(written)]))
    for candidate in candidates:
        if "\0" not in candidate and os.path.isfile(candidate):
            return candidate
    raise KynSemanticError(
        Diagnostic(
            "KYN122",
            f'there is no data file "{written}"',
            (Label(dataset.source.span, "named here", True),),
            notes=tuple(f"looked for {_described(candidate)}" for candidate in candidates),
        )
    )


def _described(candidate: str) -> str:
    """A path, and what is there when that is no file."""
    if "\0" in candidate or not os.path.exists(candidate):
        return candidate
    return f"{candidate}, which is {'a directory' if os.path.isdir(candidate) else 'no regular file'}"


def find_data_files(program: Program) -> dict[str, str]:
    """The data file of every data set that a run trains on, with its sha256."""
    digests: dict[str, str] = {}
    for run in program.runs:
        try:
            path = find_data(run.train.data)
        except KynSemanticError as error:
            raise KynSemanticError(error.diagnostics, program.texts) from None
        if path not in digests:
            digests[path] = _hash_data(path, run.train.data, program)
    return digests


def _hash_data(path: str, dataset: Dataset, program: Program) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        message = f"cannot read `{path}`: {(error.strerror or str(error)).lower()}"
        label = Label(dataset.source.span, "named here", True)
        raise KynSemanticError(Diagnostic("KYN122", message, (label,)), program.texts) from None


def hash_file(path: str) -> str:
    """The sha256 of a file's bytes, in hexadecimal. Raises `OSError`."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_lock(program: Program, data: Mapping[str, str]) -> None:
    """Write the lock file of a program. `data` maps data files to their sha256."""
    content = {
        "version": VERSION,
        "sources": _source_digests(program),
        "data": {_relative(program, path): digest for path, digest in data.items()},
    }
    write_json_atomic(lock_path(program), content)


def check_sources(program: Program) -> None:
    """Raise `LockMismatchError` unless the sources are exactly those of the lock file."""
    locked = _read_lock(program)["sources"]
    actual = _source_digests(program)
    _compare("KYN301", "source", locked, actual, program)


def check_data(program: Program, data: Mapping[str, str]) -> None:
    """Raise `LockMismatchError` unless every data file has the digest that the lock file holds for it."""
    locked = _read_lock(program)["data"]
    actual = {_relative(program, path): digest for path, digest in data.items()}
    _compare("KYN302", "data file", {path: locked.get(path, "") for path in actual}, actual, program)


def _compare(
    code: str, what: str, locked: Mapping[str, str], actual: Mapping[str, str], program: Program
) -> None:
    problems: list[Diagnostic] = []
    advice = (f"run `tw lock {program.path}` to accept the change",)
    for path in sorted({*locked, *actual}):
        before, now = locked.get(path, ""), actual.get(path, "")
        if before == now:
            continue
        if before and now:
            message = f"{what} `{path}` is not the one that was locked"
            note = f"locked sha256 {before[:16]}..., now {now[:16]}..."
        else:
            message = f"{what} `{path}` is {'not in the lock' if now else 'locked and no longer used'}"
            note = ""
        problems.append(Diagnostic(code, message, notes=(note,) if note else (), help=advice))
    if problems:
        raise LockMismatchError(problems, program.texts)


def _read_lock(program: Program) -> dict[str, Any]:
    path = lock_path(program)
    advice = (f"run `tw lock {program.path}` to write it",)
    try:
        with open(path, encoding="utf-8") as stream:
            lock = json.load(stream)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LockMismatchError(
            Diagnostic("KYN303", f"cannot read `{path}`: {reason}", help=advice)
        ) from None
    except (ValueError, RecursionError):
        lock = None
    if not _is_lock(lock):
        raise LockMismatchError(Diagnostic("KYN303", f"`{path}` is not a lock file", help=advice))
    assert isinstance(lock, dict)
    return lock


def _is_lock(lock: Any) -> bool:
    return (
        isinstance(lock, dict)
        and lock.get("version") == VERSION
        and all(
            isinstance(lock.get(part), dict) and all(isinstance(v, str) for v in lock[part].values())
            for part in ("sources", "data")
        )
    )


def _source_digests(program: Program) -> dict[str, str]:
    files = (source for source in program.sources if source.path != COMMAND_LINE)
    return {_relative(program, source.path): source.sha256 for source in files}


def _relative(program: Program, path: str) -> str:
    """A path as it is written in the lock: from the program's directory, with forward slashes."""
    start = os.path.dirname(os.path.abspath(program.path))
    return os.path.relpath(os.path.abspath(path), start).replace(os.sep, "/")
