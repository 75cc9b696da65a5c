"""The project's goals for speed and memory, and whether results reach them: goal, measured, reached.

`evaluate` takes the JSON contents that `bench.run` and `bench.startup` write, in any number; a goal whose cases were
not measured is left out. A ratio is the best peer's median time over ours, so more is better.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Content = dict[str, Any]
SLICE_MS = 10.0  # a scheduler slice, about: what a step may lose when another process has the core


@dataclass(frozen=True)
class Row:
    """One line of the table: what, the goal and the measurement as text, and whether it was reached."""

    what: str
    goal: str
    measured: str
    reached: bool


@dataclass(frozen=True)
class Speed:
    """Ratios of a group (kernels) or of a suite: at least `each` in every case, `mean` as geometric mean."""

    what: str
    suite: str
    group: str = ""
    each: float | None = None
    mean: float | None = None
    bandwidth: float | None = (
        None  # the least share of a large copy's bandwidth, and of stores past the caches
    )


SPEED = (
    Speed("GEMM f32", "kernels", "gemm f32", each=1.0, mean=1.3),
    Speed("GEMM bf16", "kernels", "gemm bf16", each=1.0),
    Speed("GEMM int8", "kernels", "gemm int8", each=1.0),
    Speed("linear, bias, activation; MLP block", "kernels", "linear", each=1.3),
    Speed("convolution, forward and backward", "kernels", "conv", each=0.95, mean=1.15),
    Speed("memory-bound, inside L2", "kernels", "memory small", each=1.2),
    Speed("memory-bound, outside the caches", "kernels", "memory large", each=1.2, bandwidth=0.85),
    Speed("attention", "kernels", "attention", each=1.2),
    Speed("training steps", "training", each=1.5, mean=2.0),
    Speed("inference", "inference", mean=1.5),
    Speed("eager (un-jitted) steps", "eager", each=1.0),
    Speed("an epoch in one call", "epoch", each=1.0),
)
COMPILE = {"GPT 4x128, 12x64 tokens": (3.0, 0.5), "GPT-2 124M, 1x256 tokens": (20.0, 2.0)}  # s cold, warm
IMPORT_S = 0.2


def evaluate(contents: Sequence[Content]) -> list[Row]:
    """The rows of all goals that these results say something about."""
    quiet = [c for c in contents if "limits" in c and not c.get("busy")]
    fresh = [r for c in contents if "limits" not in c for r in c["results"]]
    rows = [row for goal in SPEED for row in speed(goal, [r for c in quiet for r in c["results"]])]
    rows += compilation(fresh)
    rows += memory(fresh)
    rows += stalls([r for c in contents if c.get("busy") for r in c["results"]])
    return rows


def speed(goal: Speed, results: Sequence[Content]) -> Iterator[Row]:
    chosen = [r for r in results if r["suite"] == goal.suite and r["median"]]
    chosen = [r for r in chosen if not goal.group or r["group"] == goal.group]
    for threads in sorted({r["threads"] for r in chosen}, reverse=True):
        ratios, shares, copies = {}, {}, {}
        mine = [r for r in chosen if r["threads"] == threads]
        for case in dict.fromkeys(r["case"] for r in mine):
            times = {r["framework"]: r["median"] for r in mine if r["case"] == case}
            ours = [r for r in mine if r["case"] == case and r["framework"].startswith("tilewright")]
            peers = [time for name, time in times.items() if not name.startswith("tilewright")]
            if ours and peers:
                ratios[case] = min(peers) / ours[0]["median"]
                shares[case], copies[case] = (ours[0].get(key) or 0.0 for key in ("share", "copy_share"))
        if not ratios:
            continue
        what = f"{goal.what}, {threads} thread{'s' * (threads > 1)}"
        if goal.each is not None:
            yield least(what, "ratio", goal.each, ratios, shares)
        if goal.mean is not None:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            yield Row(what, f"geometric mean ≥ {goal.mean:g}", f"{mean:.2f}", mean >= goal.mean)
        if goal.bandwidth is not None:
            yield least(what, "share of a large copy's bandwidth", goal.bandwidth, copies)
            yield least(what, "share of the bandwidth past the caches", goal.bandwidth, shares)


def least(
    what: str, kind: str, goal: float, values: dict[str, float], shares: dict[str, float] | None = None
) -> Row:
    """At least `goal` in every case: how many reach it, and the worst.

    With shares of the machine's limit, each case that falls short tells its own, and what the goal would need.
    """
    short = sorted((case for case in values if values[case] < goal), key=values.__getitem__)
    worst = min(values, key=values.__getitem__)
    told = [f"{values[worst]:.2f} ({worst})"]
    if short and shares is not None:
        told = [
            f"{values[case]:.2f} ({case}, at {share:.0%} of the limit; {goal:g} is {share * goal / values[case]:.0%})"
            for case in short
            for share in [shares[case]]
        ]
    measured = f"{len(values) - len(short)} of {len(values)}; least {', '.join(told)}"
    return Row(what, f"each {kind} ≥ {goal:g}", measured, not short)


def compilation(fresh: Sequence[Content]) -> Iterator[Row]:
    ours = [r for r in fresh if r["framework"] == "tilewright"]
    for result in ours:
        for limit, when in zip(COMPILE.get(result["case"], ()), ("cold", "warm"), strict=False):
            seconds = result[when]["compile"]
            yield Row(
                f"compile, {when}: {result['case']}", f"≤ {limit:g} s", f"{seconds:.2f} s", seconds <= limit
            )
    if ours:
        seconds, ready = (min(r["warm"][key] for r in ours) for key in ("import", "ready"))
        measured = f"{seconds:.2f} s ({ready:.2f} s until the tensor class is there)"
        yield Row("import tilewright", f"≤ {IMPORT_S:g} s", measured, seconds <= IMPORT_S)


def memory(fresh: Sequence[Content]) -> Iterator[Row]:
    for result in (r for r in fresh if r["framework"] == "tilewright"):
        case, tensors = result["case"], result["warm"].get("tensor_bytes", 0)
        goal = 0.75 if case.startswith("GPT") else 0.25
        if tensors:
            arena, stored = (result["warm"][key] for key in ("arena_bytes", "stored_bytes"))
            saved = 1.0 - arena / tensors
            measured = f"{saved:.0%} of {tensors / 2**20:.1f} MiB (of what fusion leaves stored: {1.0 - arena / stored:.0%})"
            yield Row(f"arena below the tensors' sum: {case}", f"≥ {goal:.0%}", measured, saved >= goal)
        peers = [
            r["warm"]["peak_mib"] for r in fresh if r["case"] == case and r["framework"].startswith("torch")
        ]
        if peers:
            peak, other = result["warm"]["peak_mib"], min(peers)
            yield Row(
                f"process peak: {case}", f"≤ PyTorch's {other:.0f} MiB", f"{peak:.0f} MiB", peak <= other
            )


def stalls(busy: Sequence[Content]) -> Iterator[Row]:
    for r in busy:
        if r["framework"] == "tilewright" and r["median"]:
            over = (r["maximum"] - r["median"]) * 1e3
            measured = f"median {r['median'] * 1e3:.3g} ms, worst {over:.3g} ms more"
            what = f"one core busy: {r['case']}, {r['threads']} thread{'s' * (r['threads'] > 1)}"
            yield Row(what, f"no step {SLICE_MS:g} ms above the median", measured, over <= SLICE_MS)
