"""What is known of the interpreter: whether native code may reach into its objects, and what reference counts say.

The fast ways through the library rest on two properties of CPython that no documentation promises. Objects begin with a count of
references and their type, which native code reads. And an object whose count is one is held by nobody but the place it was
found in, so that its memory may be written over: since 3.14 the interpreter does not count what it borrows from a local
variable, but the variable counts. Versions are listed here when the whole test suite has passed on them. On others nothing is
assumed: calls go through Python, and memory that may be shared is copied; the results are the same.
"""

from __future__ import annotations

import sys

__all__ = ["KNOWN", "reason", "without_lock"]

KNOWN = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))


def reason() -> str | None:
    """Why nothing is assumed of this interpreter's objects; None where they are known."""
    import sysconfig  # here, because `import tilewright` needs the other function alone

    implementation = sys.implementation.name
    if implementation != "cpython":
        return f"the interpreter is {implementation}, not CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this is a free-threaded build of CPython, which counts references in another way"
    version = sys.version_info[:2]
    if version not in KNOWN:
        first, last = (".".join(map(str, KNOWN[n])) for n in (0, -1))
        return f"CPython {version[0]}.{version[1]} is not among the known versions, {first} to {last}"
    return None


def without_lock() -> bool:
    """Whether Python code of several threads runs at once: a free-threaded build whose global lock is off."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is not None and not enabled()
