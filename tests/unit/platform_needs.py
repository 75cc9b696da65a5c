"""What some tests need of the platform, and why they are skipped elsewhere."""

import pytest

from tilewright.runtime import builtin

needs_builtins = pytest.mark.skipif(
    not builtin.available(),
    reason=f"without builtins of JIT code the tested code is not there: {builtin.unavailable()}",
)
