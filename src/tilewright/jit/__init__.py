"""``tw.jit``: functions over tensors as compiled programs.

``jitted`` has the functions and their calls, ``arguments`` what they are called with, ``compile`` what becomes of a trace, and
``variant`` what is kept of it.
"""

from tilewright.functions import methods as methods  # what is traced uses the tensors' operators
from tilewright.jit.jitted import Jitted, jit

__all__ = ["Jitted", "jit"]
