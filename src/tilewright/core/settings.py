"""Typed settings, read from the environment when first needed and overridable in code.

    TW_DEBUG       int    how much to say on stderr: 1 launches and times, 2 GFLOP/s, 3 plans, 4 kernels, 5 LLVM IR,
                          6 graphs before and after the passes, groups, 7 assembly; default 0
    TW_THREADS     int    upper bound on the threads of a step; default: every CPU this process may use, and never more
    TW_CACHE_DIR   path   compiled kernels; default $XDG_CACHE_HOME/tilewright or ~/.cache/tilewright;
                          set to nothing: no cache on disk
    TW_CACHE_SIZE  bytes  bound of that directory, with an optional K, M or G; default 512M
    TW_SPIN_US     float  microseconds an idle worker thread waits for work before it sleeps; default 50
    TW_DETERMINISTIC  0/1  results do not depend on the number of threads, at some cost in speed; default 0
    TW_TARGET      word   compile for "avx512", "avx2", "sse" or "generic" instead of the host's features

A value given in code is held to the same rules as the variable's text; None stands for the default of `threads`, and for
no directory. What it does not do: nothing here is read at import, and nothing is written back to the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar, cast, overload

from tilewright.core import assumptions
from tilewright.core.diagnostics import TilewrightError

__all__ = ["Setting", "Settings", "SettingsError", "parse_size", "settings"]

T = TypeVar("T")


class SettingsError(TilewrightError, ValueError):
    """An environment variable or an override has a value that its setting cannot take."""


_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``"1048576"``, ``"512M"``, ``"2G"`` or ``"1.5GB"`` (units are powers of 1024).

    >>> parse_size("512M")
    536870912
    """
    word = text.strip().upper()
    number = word.rstrip("BKMGTI")
    unit = word[len(number) :].replace("I", "")
    if len(unit) == 2 and unit.endswith("B"):
        unit = unit[:1]
    try:
        size = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise ValueError(
            f"{text!r} is not a size; write bytes, or a number with K, M or G such as 512M"
        ) from None
    if not 0 <= size < 2**63:
        raise ValueError(f"{text!r} is not a size between 0 and 2**63 bytes")
    return int(size)


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _parse_debug(text: str) -> int:
    level = _parse_int(text)
    if level < 0:
        raise ValueError(f"{level} is negative")
    return level


def _parse_threads(text: str) -> int:
    count = _parse_int(text)
    if count < 1:
        raise ValueError(f"{count} is not a positive number of threads")
    return count


def _parse_microseconds(text: str) -> float:
    try:
        duration = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of microseconds") from None
    if not 0 <= duration <= 1e6:
        raise ValueError(f"{duration:g} is not between 0 and 1000000 microseconds")
    return duration


_TARGETS = ("host", "avx512", "avx2", "sse", "generic")


def _parse_target(text: str) -> str:
    word = text.strip().lower()
    if word not in _TARGETS:
        raise ValueError(f"{text!r} is not one of {', '.join(_TARGETS)}")
    return word


def _parse_directory(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _default_cache_directory() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base:
        return Path(base) / "tilewright"
    try:
        return Path.home() / ".cache" / "tilewright"
    except RuntimeError:  # no home directory is known for this user
        return None


def _parse_flag(text: str) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    word = text.strip().lower()
    if word not in words:
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return words[word]


_UNSET = object()


class _Compilation:
    """The settings on which the result of compilation depends, by value: what was compiled under others is another program.

    Computed at first use and kept as a plain attribute until a setting changes, since every call that Python runs asks.
    """

    names = ("target", "threads", "deterministic")

    def __get__(self, instance: Settings, owner: type) -> tuple[object, ...]:
        values = tuple(getattr(instance, name) for name in self.names)
        instance.__dict__["compilation"] = values
        return values


class Setting(Generic[T]):
    """One row of `Settings`: a data descriptor that parses its environment variable once, at first use."""

    def __init__(
        self, variable: str, parse: Callable[[str], T], default: Callable[[], T], optional: bool = False
    ) -> None:
        self.variable = variable
        self.parse = parse
        self.default = default
        self.name = variable
        self.optional = optional  # whether None is a value

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value = instance.__dict__.get(self.name, _UNSET)
        if value is _UNSET:
            value = instance.__dict__[self.name] = self._read()
        return cast(T, value)

    def __set__(self, instance: Settings, value: T) -> None:
        instance.__dict__[self.name] = self.accepted(value)
        instance.renew()

    def accepted(self, value: object) -> T:
        """A value given in code, as the variable's text would be understood."""
        if value is None and self.optional:
            return cast(T, None)
        try:
            return self.parse(str(value))
        except ValueError as error:
            raise SettingsError(f"setting {self.name}={value!r}: {error}") from None

    def _read(self) -> T:
        text = os.environ.get(self.variable)
        if text is None:
            return self.default()
        try:
            return self.parse(text)
        except ValueError as error:
            raise SettingsError(f"environment variable {self.variable}={text!r}: {error}") from None


class Settings:
    """The process's settings. Attributes are read lazily; assigning one overrides the environment.

    >>> from tilewright.core.settings import settings
    >>> with settings.override(threads=1):
    ...     settings.threads
    1
    """

    debug = Setting("TW_DEBUG", _parse_debug, lambda: 0)
    threads: Setting[int | None] = Setting("TW_THREADS", _parse_threads, lambda: None, True)
    cache_dir: Setting[Path | None] = Setting(
        "TW_CACHE_DIR", _parse_directory, _default_cache_directory, True
    )
    cache_size = Setting("TW_CACHE_SIZE", parse_size, lambda: 512 << 20)
    deterministic = Setting("TW_DETERMINISTIC", _parse_flag, lambda: False)
    spin_us = Setting("TW_SPIN_US", _parse_microseconds, lambda: 50.0)
    target = Setting("TW_TARGET", _parse_target, lambda: "host")
    compilation = _Compilation()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The settings' attribute names, in the order of the table above."""
        return tuple(name for name, row in vars(cls).items() if isinstance(row, Setting))

    def reload(self) -> None:
        """Forget values read so far and overrides: each setting is read again when next used."""
        self.__dict__.clear()
        self.renew()

    def renew(self) -> None:
        """A setting may have another value: what was concluded from it is asked for again."""
        self.__dict__.pop("compilation", None)
        assumptions.changed()

    @contextmanager
    def override(self, **values: object) -> Iterator[Settings]:
        """Set some settings inside a `with` block and restore them after it.

        Raises `SettingsError` for an unknown name, and for a value that the setting cannot take.
        """
        accepted = {}
        for name, value in values.items():
            if name not in self.names():
                raise SettingsError(f"no setting is called {name!r}; known: {', '.join(self.names())}")
            accepted[name] = vars(Settings)[name].accepted(value)
        before = {name: self.__dict__.get(name, _UNSET) for name in values}
        try:
            self.__dict__.update(accepted)
            self.renew()
            yield self
        finally:
            for name, value in before.items():
                if value is _UNSET:
                    self.__dict__.pop(name, None)
                else:
                    self.__dict__[name] = value
            self.renew()

    def __repr__(self) -> str:
        return "Settings(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in self.names()) + ")"


settings = Settings()
