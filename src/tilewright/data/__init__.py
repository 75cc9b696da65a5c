"""Data for training: tables read from files, checked, encoded and split into arrays."""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, ())
