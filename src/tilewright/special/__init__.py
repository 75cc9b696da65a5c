"""Special functions, elementwise: error functions, gamma and beta, Bessel, entropies; names as in ``scipy.special``.

They are computed in double precision and rounded once to the type of their operands, in native kernels, with
derivatives of any order, inside ``tw.jit`` and under ``vmap``. Only the incomplete gamma and beta functions call SciPy.

>>> from tilewright.tensor import Tensor
>>> gammaln(Tensor(3.0)).item()
0.6931471824645996
"""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.special.bessel import i0, i0e, i1, i1e
from tilewright.special.entropy import (
    entr,
    expit,
    kl_div,
    log_expit,
    log_softmax,
    logit,
    logsumexp,
    rel_entr,
    sinc,
    softmax,
    xlog1py,
    xlogy,
)  # fmt: skip
from tilewright.special.error import erf, erfc, erfcinv, erfcx, erfinv, log_ndtr, ndtr, ndtri
from tilewright.special.gamma import (
    beta,
    betaln,
    comb,
    digamma,
    factorial,
    gamma,
    gammaln,
    gammasgn,
    lgamma,
    multigammaln,
    perm,
    poch,
    polygamma,
    psi,
    rgamma,
    zeta,
)  # fmt: skip
from tilewright.special.incomplete import MissingPackageError, betainc, gammainc, gammaincc

__all__ = [
    "MissingPackageError", "beta", "betainc", "betaln", "comb", "digamma", "entr", "erf", "erfc", "erfcinv", "erfcx",
    "erfinv", "expit", "factorial", "gamma", "gammainc", "gammaincc", "gammaln", "gammasgn", "i0", "i0e", "i1", "i1e",
    "kl_div", "lgamma", "log_expit", "log_ndtr", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri", "perm",
    "poch", "polygamma", "psi", "rel_entr", "rgamma", "sinc", "softmax", "xlog1py", "xlogy", "zeta",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)
