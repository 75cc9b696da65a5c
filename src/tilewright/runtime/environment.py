"""The software and the machine a run happens on, as far as its results may depend on them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tilewright.core.settings import settings
from tilewright.runtime.target import available_cpus, host_target

__all__ = ["environment", "package_versions"]

_PACKAGES = ("numpy", "llvmlite", "ml_dtypes", "polars", "rich")


def package_versions() -> dict[str, str | None]:
    """Installed versions of the packages this one works with; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def environment() -> dict[str, Any]:
    """Versions, CPU, target and thread count: JSON-ready."""
    target = host_target()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": target.cpu,
        "target": target.name,
        "threads": min(settings.threads or available_cpus(), available_cpus()),
        "packages": {name: number for name, number in package_versions().items() if number is not None},
    }
