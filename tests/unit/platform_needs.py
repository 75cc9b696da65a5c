"""What some tests need of the platform, and why they are skipped elsewhere."""

import pytest

from tilewright.runtime import builtin

needs_builtins = pytest.mark.skipif(
    not builtin.available(),
    reason="builtins of JIT code need 64-bit CPython with its global lock on Linux: without them the tested code is not there",
)
