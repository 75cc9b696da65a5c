"""What some tests need of the platform, and why they are skipped elsewhere."""

import os
import warnings

import pytest

from tilewright.runtime import builtin

needs_builtins = pytest.mark.skipif(
    not builtin.available(),
    reason=f"without builtins of JIT code the tested code is not there: {builtin.unavailable()}",
)


def fork() -> int:
    """`os.fork`, without the warning that Python 3.12 and later give where the process has threads: it is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
