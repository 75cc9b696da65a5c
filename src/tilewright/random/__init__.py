"""Random tensors from a counter-based generator: the same numbers eagerly and inside ``tw.jit``, for any thread count.

Every function draws from a ``key`` that the caller gives, or from a generator (``manual_seed`` seeds the default one).
``keys`` holds keys and generators, ``uniform`` makes numbers of bits, ``continuous`` and ``discrete`` hold the
distributions, ``arrangement`` what puts given things in a random order. docs/random.md has the whole picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.random.arrangement import categorical, choice, permutation
from tilewright.random.continuous import (
    cauchy,
    exponential,
    gumbel,
    laplace,
    logistic,
    multivariate_normal,
    normal,
    orthogonal,
    randn,
    truncated_normal,
)
from tilewright.random.discrete import bernoulli, binomial, dropout, geometric, poisson, rademacher, randint
from tilewright.random.keys import Generator, bits, default_generator, fold_in, key, manual_seed, split
from tilewright.random.positive import beta, dirichlet, gamma
from tilewright.random.uniform import rand, uniform

__all__ = [
    "Generator", "bernoulli", "beta", "binomial", "bits", "categorical", "cauchy", "choice", "default_generator", "dirichlet",
    "dropout", "exponential", "fold_in", "gamma", "geometric", "gumbel", "key", "laplace", "logistic", "manual_seed",
    "multivariate_normal", "normal", "orthogonal", "permutation", "poisson", "rademacher", "rand", "randint", "randn", "split",
    "truncated_normal", "uniform",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)
