"""Tuned parameters: any choice computes the same, the database survives what files suffer, and a compile says what it took."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled_steps import native

import tilewright as tw
from tilewright import compiler, tuning
from tilewright.cli.main import main
from tilewright.core import dtype as dt
from tilewright.core.diagnostics import TilewrightError
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import static
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.kernel.verify import verify
from tilewright.lower.contraction import Contraction
from tilewright.lower.lowering import lower_groups
from tilewright.recipes.contraction import Tiling, neighbours
from tilewright.recipes.tuned import (
    Choice,
    Choices,
    TuningWarning,
    database_path,
    read_choices,
    write_choices,
)


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path) -> Iterator[None]:
    with settings.override(cache_dir=tmp_path / "cache"):
        yield


def dot(m: int, n: int, k: int, ta: int, tb: int, element: DType, result: DType) -> Value:
    a, b = input_value(element, (k, m) if ta else (m, k)), input_value(element, (n, k) if tb else (k, n))
    return build.dot(a, b, ((1 - ta,), (tb,)), dtype=result)


def problems() -> list[Value]:
    f32, bf16 = dt.float32, dt.bfloat16
    found = [dot(45, 70, 33, ta, tb, f32, f32) for ta in (0, 1) for tb in (0, 1)]
    found += [dot(21, 50, 130, ta, tb, bf16, f32) for ta in (0, 1) for tb in (0, 1)]
    found += [dot(19, 34, 67, ta, tb, dt.int8, dt.int32) for ta in (0, 1) for tb in (0, 1)]
    found += [dot(3, 40, 64, 0, 1, dt.uint8, dt.int32), dot(30, 40, 1500, 0, 1, f32, f32)]
    image, kernel = input_value(f32, (2, 5, 9, 8)), input_value(f32, (12, 5, 3, 3))
    found.append(
        make(
            "conv", (image, kernel), stride=(1, 1), padding=((1, 1), (1, 0)), lhs_dilation=(1, 1), rhs_dilation=(1, 1), groups=1,
            dtype=f32,
        )
    )  # fmt: skip
    long = dot(33, 40, 20, 0, 0, f32, f32)
    found.append(build.add(build.unary("erf", long), build.unary("tanh", build.mul(long, long))))
    return found


def contractions(executable: compiler.Executable) -> list[Contraction]:
    seen: list[Contraction] = []
    lower_groups(executable.groups, replace(executable.machine, tuned=None, watch=seen.append))
    return seen


def test_any_choice_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices some steps away from the model's, of every problem at once, several times over."""
    values = problems()
    leaves = list(dict.fromkeys(x for v in values for x in leaves_of(v)))
    rng, chance = np.random.default_rng(0), random.Random(0)
    arrays = {
        x: rng.integers(-100 if x.dtype.kind == "i" else 0, 100, static(x.shape)).astype(x.dtype.numpy)
        if x.dtype.is_integer
        else rng.uniform(-1, 1, static(x.shape)).astype(x.dtype.numpy)
        for x in leaves
    }
    want = evaluate(values, arrays)
    with settings.override(threads=2):
        plain = compiler.compile(leaves, values)
        seen = contractions(plain)
        variants = set()
        for _ in range(8):
            rows = {}
            for c in seen:
                tiling = c.tiling
                for _ in range(chance.randint(1, 4)):
                    tiling = chance.choice(neighbours(tiling, c.situation, plain.machine) or [tiling])
                rows[c.situation.key(plain.machine)] = Choice(tiling, 1.5, "2026-11-20")
                variants.add((tiling.variant, tiling.pack_a, tiling.pack_b))
            monkeypatch.setattr(compiler, "read_choices", lambda *_, rows=rows: Choices(rows))
            executable = compiler.compile(leaves, values)
            assert executable.stage_text("groups").count("# tuned: 1.50x over the model's choice") == len(
                seen
            )
            for kernel in executable.names:
                verify(kernel)
            for v, got, expected in zip(
                values, native(executable, [arrays[x] for x in leaves]), want, strict=True
            ):
                if v.dtype.is_integer:
                    np.testing.assert_array_equal(got, expected)
                else:
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
        assert len(variants) == 5  # inner, and columns with either, both or no operand packed


def leaves_of(v: Value) -> list[Value]:
    return [v] if v.op == "input" else [x for i in v.inputs for x in leaves_of(i)]


def test_a_choice_that_cannot_be_built_is_not_taken() -> None:
    (c,) = contractions(compiler.compile(leaves_of(v := dot(45, 70, 33, 0, 1, dt.float32, dt.float32)), [v]))
    machine, good = c.machine, c.tiling
    assert c.situation.allows(good, machine)
    for change in (
        {"mr": 0}, {"mr": 46}, {"mr": 45, "nr": 4}, {"nr": 9}, {"nc": 71}, {"nc": 0}, {"mc": 99}, {"lanes": 3},
        {"variant": "other"}, {"variant": "inner", "pack_b": True}, {"mc": 5, "mr": 6},
    ):  # fmt: skip
        bad = replace(good, **change)
        assert not c.situation.allows(bad, machine), change
        rows = Choices({c.situation.key(machine): Choice(bad, 2.0, "today")})
        assert rows.find(c.situation, machine) is None


def test_the_database_keeps_choices(tmp_path: Path) -> None:
    path = database_path(tmp_path, "a target")
    rows = {"problem": Choice(Tiling("columns", 16, 8, 3, 64, 48, False, True), 1.125, "2026-11-20")}
    write_choices(path, "a target", "0.1.0", Choices(rows))
    assert read_choices(path, "a target").rows == rows
    assert read_choices(tmp_path / "absent.json", "a target").rows == {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[: len(t) // 2], "tuned choices in .* are not used"),
        (lambda t: "[" * 100_000, "are not used"),
        (lambda t: "[]", "not a database of format 1"),
        (lambda t: t.replace('"format": 1', '"format": 2'), "not a database of format 1"),
        (lambda t: t.replace('"target": "x"', '"target": "y"'), "another target"),
        (lambda t: t.replace('"lanes": 16', '"lanes": "16"'), "lanes of a choice is '16'"),
        (lambda t: t.replace('"gain": 1.5', '"gain": "fast"'), "no gain"),
        (lambda t: t.replace('"mr"', '"rows"'), "'mr'"),
    ],
)
def test_a_database_that_cannot_be_read_is_left_alone(tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "tuned.json"
    rows = {"problem": Choice(Tiling("columns", 16, 8, 3, 64, 48), 1.5, "2026-11-20")}
    write_choices(path, "x", "0.1.0", Choices(rows))
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.warns(TuningWarning, match=message):
        assert read_choices(path, "x").rows == {}
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        assert read_choices(path, "x").rows == {}


def test_a_later_compile_takes_what_was_stored_and_says_so() -> None:
    v = dot(45, 70, 33, 0, 1, dt.float32, dt.float32)
    executable = compiler.compile(leaves_of(v), [v])
    rows = tuning.tune(executable, seconds=0.4)
    assert [r.count for r in rows] == [1] and rows[0].tried > 0 and rows[0].before > 0
    (c,) = contractions(executable)
    rows[0].best, rows[0].after = neighbours(c.tiling, c.situation, c.machine)[0], rows[0].before / 2
    tuning.store(executable, rows)
    tuned = compiler.compile(leaves_of(v), [v])
    assert "# tuned: 2.00x over the model's choice, measured 20" in tuned.explain()
    assert str(rows[0].best) in tuned.stage_text("plan")
    rows[0].after = rows[0].before  # the model's is as good: nothing stays
    tuning.store(executable, rows)
    assert "tuned" not in compiler.compile(leaves_of(v), [v]).explain()
    with settings.override(deterministic=True):
        assert "tuned" not in compiler.compile(leaves_of(v), [v]).explain()


def test_without_a_cache_there_is_nowhere_to_store() -> None:
    step = tw.jit(lambda x: x @ x)
    executable = step.executable(tw.ones((8, 8)))
    assert executable is not None
    with settings.override(cache_dir=None), pytest.raises(TilewrightError, match="no cache directory"):
        tuning.store(executable, [])
    with pytest.raises(ValueError, match="seconds must be positive"):
        tuning.tune(executable, 0)


def test_loops_are_tuned_inside() -> None:
    w = tw.ones((20, 20))
    step = tw.jit(lambda x: tw.scan(lambda c, _: (c @ w, c), x, None, length=4)[0])
    executable = step.executable(tw.ones((20, 20)))
    assert executable is not None
    assert [r.count for r in tuning.tune(executable, seconds=0.1)] == [1]


def test_what_is_tuned_is_an_executable() -> None:
    with pytest.raises(
        TypeError, match=r"got Jitted; of a jitted function `f` that is f.executable\(\*args\)"
    ):
        tuning.tune(tw.jit(lambda x: x @ x))  # type: ignore[arg-type]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(Path(__file__).parents[2] / "examples" / "digits" / "digits.kyn")
    assert main(["tune", file, "--seconds", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] and all(p["before"] > 0 and p["gain"] > 0 for p in found["problems"])
    assert Path(found["database"]).is_file()
    assert main(["tune", file, "--seconds", "0.2"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:3] == ["occurs", "tried", "model,"] and "stored in" in out
    with pytest.raises(SystemExit):
        main(["tune", file, "--seconds", "0"])
