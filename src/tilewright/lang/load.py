"""Files to one merged syntax: reads a program and what it imports, and finds cycles and duplicate names.

An import brings in the file's data sets and models, and the defaults of the parameters which these use; its
other blocks are left alone, so that a program which runs by itself can also be imported. A file that is
reached on two ways is read once.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from tilewright.core.diagnostics import Label, Reporter, Span
from tilewright.lang.program import SourceFile
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.parser import NAMED_BLOCKS, parse

MAX_FILE_BYTES = 16 * 2**20


class ReadError(Exception):
    """A file that cannot be read as text. The message says why."""


@dataclass
class Sources:
    """All that was read: the main file's single blocks, everyone's named blocks, and the texts."""

    files: list[SourceFile] = field(default_factory=list)
    params: dict[str, nodes.Entry] = field(default_factory=dict)
    named: dict[str, dict[str, nodes.Block]] = field(
        default_factory=lambda: {kind: {} for kind in NAMED_BLOCKS}
    )
    single: dict[str, nodes.Block] = field(default_factory=dict)
    main: nodes.File | None = None

    @property
    def texts(self) -> dict[str, str]:
        return {file.path: file.text for file in self.files}


def read_source(path: str) -> tuple[str, str]:
    """The text of a file and the sha256 of its bytes. Raises `ReadError`."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReadError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise ReadError("the name holds a null character") from None
    if len(data) > MAX_FILE_BYTES:
        raise ReadError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    return decode(data), hashlib.sha256(data).hexdigest()


def decode(data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark. Raises `ReadError` naming the line and byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadError(f"not UTF-8: byte 0x{data[error.start]:02x} in line {line}") from None


def load(path: str, report: Reporter, text: str | None = None) -> Sources:
    """Read and merge a program. Problems go to `report`; with `text`, the main file is not read from disk."""
    loader = _Loader(report)
    try:
        if text is None:
            text, digest = read_source(path)
        else:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    except ReadError as error:
        report.add("KYN001", f"cannot read `{path}`: {error}")
        return loader.sources
    loader.load_file(path, text, digest, ())
    return loader.sources


class _Loader:
    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.sources = Sources()
        self.done: set[str] = set()

    def load_file(self, path: str, text: str, digest: str, above: tuple[str, ...]) -> None:
        """Parse a file, then its imports (depth first), then merge its own blocks."""
        identity = os.path.realpath(path)
        self.done.add(identity)
        self.sources.files.append(SourceFile(path, text, digest))
        tree = parse(text, path, self.report)
        if not above:
            self.sources.main = tree
        self.merge_params(tree, is_main=not above)
        seen: dict[str, Span] = {}
        for item in tree.items:
            if isinstance(item, nodes.Import):
                self.follow(item, path, (*above, identity), seen)
        for item in tree.items:
            if isinstance(item, nodes.Block):
                self.merge_block(item, is_main=not above)

    def follow(self, item: nodes.Import, path: str, above: tuple[str, ...], seen: dict[str, Span]) -> None:
        span = item.path.span
        target = os.path.normpath(os.path.join(os.path.dirname(path), item.path.value))
        identity = os.path.realpath(target) if "\0" not in target else target
        if identity in seen:
            self.report.add(
                "KYN101",
                f'"{item.path.value}" is imported twice',
                span,
                more=[Label(seen[identity], "first here")],
            )
            return
        seen[identity] = span
        if identity in above:
            names = [os.path.basename(name) for name in (*above[above.index(identity) :], identity)]
            self.report.add(
                "KYN115",
                f"import cycle: {' -> '.join(names)}",
                span,
                "this closes the cycle",
                help=["move what both files need to a third one"],
            )
            return
        if identity in self.done:
            return
        try:
            text, digest = read_source(target)
        except ReadError as error:
            self.report.add(
                "KYN114", f'cannot import "{item.path.value}": {error}', span, notes=[f"looked for {target}"]
            )
            return
        self.load_file(target, text, digest, above)

    def merge_params(self, tree: nodes.File, is_main: bool) -> None:
        """The main file comes first, so its parameters win over those of its imports."""
        own: dict[str, nodes.Entry] = {}
        for block in tree.blocks("params"):
            for entry in block.body:
                if not isinstance(entry, nodes.Entry):
                    continue
                if first := own.get(entry.key.name):
                    self.report.add(
                        "KYN101",
                        f"parameter `{entry.key.name}` is defined twice",
                        entry.key.span,
                        more=[Label(first.key.span, "first here")],
                    )
                    continue
                own[entry.key.name] = entry
        for name, entry in own.items():
            self.sources.params.setdefault(name, entry)

    def merge_block(self, block: nodes.Block, is_main: bool) -> None:
        if block.kind in NAMED_BLOCKS and block.name is not None:
            table = self.sources.named[block.kind]
            word, name = block.kind, block.name.name
            if not name:
                return  # the parser reported the missing name
            if first := table.get(name):
                assert first.name is not None
                self.report.add(
                    "KYN101",
                    f"{word} `{name}` is defined twice",
                    block.name.span,
                    more=[Label(first.name.span, "first here")],
                    help=["give one of them another name"],
                )
                return
            table[name] = block
        elif is_main:
            if first := self.sources.single.get(block.kind):
                self.report.add(
                    "KYN101",
                    f"second `{block.kind}` block",
                    block.span,
                    more=[Label(first.span, "first here")],
                    help=[f"a program has at most one `{block.kind}` block"],
                )
                return
            self.sources.single[block.kind] = block
