"""A content hash of kernels: equal kernels have equal digests in every process, whatever their names.

It names compiled kernels in the caches, so that emission is skipped where the object code is already there.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from weakref import WeakKeyDictionary

from tilewright.kernel.ir import Check, Expr, If, Kernel, Let, Loop, Prefetch, Reg, Set, Stmt, Store

__all__ = ["digest"]

_known: WeakKeyDictionary[Expr, bytes] = WeakKeyDictionary()


def _hash(*parts: object) -> bytes:
    return blake2b(repr(parts).encode(), digest_size=16).digest()


def _expr(root: Expr) -> bytes:
    found = _known.get(root)
    if found is not None:
        return found
    stack = [root]
    while stack:
        e = stack[-1]
        if e in _known:
            stack.pop()
            continue
        missing = [a for a in e.args if a not in _known]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        _known[e] = _hash(e.op, e.attr, e.dtype.name, [_known[a] for a in e.args])
    return _known[root]


def _optional(e: Expr | None) -> bytes | None:
    return None if e is None else _expr(e)


def _body(body: Sequence[Stmt]) -> bytes:
    return _hash([_stmt(s) for s in body])


def _stmt(s: Stmt) -> bytes:
    if isinstance(s, Loop):
        return _hash("loop", s.var, _expr(s.start), _expr(s.stop), s.kind, s.lanes, _body(s.body))
    if isinstance(s, Store):
        return _hash("store", s.buffer, _expr(s.index), _expr(s.value), _optional(s.mask))
    if isinstance(s, Prefetch):
        return _hash("prefetch", s.buffer, _expr(s.index), s.cache)
    if isinstance(s, Let):
        return _hash("let", s.name, _expr(s.value))
    if isinstance(s, Reg):
        return _hash("reg", s.name, s.dtype.name, _expr(s.init), s.shape, s.lanes)
    if isinstance(s, Set):
        return _hash("set", s.name, _expr(s.value), [_expr(e) for e in s.at])
    if isinstance(s, Check):
        return _hash("check", _expr(s.condition), s.code)
    assert isinstance(s, If)
    return _hash("if", _expr(s.condition), _body(s.then), _body(s.orelse))


def digest(kernel: Kernel) -> str:
    """32 hexadecimal digits that depend on the kernel's buffers, scratch areas and body, not on its name."""
    buffers = [(b.name, b.dtype.name, b.access, b.stream) for b in kernel.buffers]
    scratch = [(s.name, s.dtype.name, s.size) for s in kernel.scratch]
    return _hash(buffers, scratch, _body(kernel.body)).hex()
