"""The user's functions by family; importing the package gives ``Tensor`` its methods.

Every public name of a family is also a name of this package, where it understands PyTorch's ``dim`` and ``keepdim`` too.
"""

from tilewright.functions import autograd as autograd
from tilewright.functions import methods as methods  # installs the methods
from tilewright.functions.activations import *  # noqa: F403
from tilewright.functions.aliases import *  # noqa: F403
from tilewright.functions.arithmetic import *  # noqa: F403
from tilewright.functions.attention import *  # noqa: F403
from tilewright.functions.branching import *  # noqa: F403
from tilewright.functions.calculus import *  # noqa: F403
from tilewright.functions.checking import *  # noqa: F403
from tilewright.functions.contraction import *  # noqa: F403
from tilewright.functions.control import *  # noqa: F403
from tilewright.functions.convolution import *  # noqa: F403
from tilewright.functions.creation import *  # noqa: F403
from tilewright.functions.custom import *  # noqa: F403
from tilewright.functions.differences import *  # noqa: F403
from tilewright.functions.elementwise import *  # noqa: F403
from tilewright.functions.grids import *  # noqa: F403
from tilewright.functions.histograms import *  # noqa: F403
from tilewright.functions.indexing import *  # noqa: F403
from tilewright.functions.joining import *  # noqa: F403
from tilewright.functions.linalg import *  # noqa: F403
from tilewright.functions.losses import *  # noqa: F403
from tilewright.functions.movement import *  # noqa: F403
from tilewright.functions.normalization import *  # noqa: F403
from tilewright.functions.padding import *  # noqa: F403
from tilewright.functions.reductions import *  # noqa: F403
from tilewright.functions.running import *  # noqa: F403
from tilewright.functions.scans import *  # noqa: F403
from tilewright.functions.selection import *  # noqa: F403
from tilewright.functions.sets import *  # noqa: F403
from tilewright.functions.sorting import *  # noqa: F403
from tilewright.functions.spellings import spell_all as _spell_all
from tilewright.functions.statistics import *  # noqa: F403
from tilewright.functions.transforms import *  # noqa: F403
from tilewright.functions.types import *  # noqa: F403
from tilewright.functions.ufuncs import handler as _ufunc_handler
from tilewright.functions.vectorize import *  # noqa: F403

_spell_all(globals())
methods.add("__array_ufunc__", _ufunc_handler(globals()))
