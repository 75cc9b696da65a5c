"""The graph IR: typed, immutable, interned tensor operations, their text and their NumPy meaning."""

from tilewright.graph import ops as ops  # fills the op table
