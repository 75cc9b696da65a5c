"""`TW_DEBUG`: every level says what the ones below say and one thing more."""

from __future__ import annotations

import pytest

import tilewright as tw
from tilewright.core.settings import settings

ADDED = {
    1: ["program: "],
    2: [" GFLOP/s "],
    3: ["== plan =="],
    4: ["== kernels =="],
    5: ["== llvm =="],
    6: ["== recorded ==", "== graph ==", "== groups =="],
    7: ["== asm =="],
}


@pytest.mark.parametrize("level", [0, *ADDED])
def test_every_level_adds_to_the_one_below(level: int, capfd: pytest.CaptureFixture[str]) -> None:
    with settings.override(debug=level):
        a = tw.ones((8, 16 + level))  # a shape of its own, so that something is compiled
        assert (a @ a.mT).sum().item() == 64 * (16 + level)
    out, err = capfd.readouterr()
    assert out == ""
    assert (err == "") == (level == 0)
    for above, texts in ADDED.items():
        assert all((text in err) == (level >= above) for text in texts)
