"""The version of the package, in one place that is cheap to import and that the build reads."""

__version__ = "0.1.0"
