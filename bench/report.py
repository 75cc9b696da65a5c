"""Prints what the harness measured as tables, and writes it as JSON."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.harness import Agreement, Result

OURS = "tilewright"


def peers_of(results: Sequence[Result]) -> list[Result]:
    return [r for r in results if not r.framework.startswith(OURS) and r.median is not None]


def print_times(console: Console, results: Sequence[Result], threads: int) -> None:
    """One row per case: median (minimum) in ms per framework, then ratios to ours where ours ran."""
    chosen = [r for r in results if r.threads == threads]
    frameworks = list(dict.fromkeys(r.framework for r in chosen))
    cases = list(dict.fromkeys(r.case for r in chosen))
    table = Table(
        title=f"{threads} thread{'s' * (threads > 1)}: median ms (minimum), share of the machine's limit"
    )
    table.add_column("case", no_wrap=True)
    for framework in frameworks:
        table.add_column(framework, justify="right")
    table.add_column("best peer", no_wrap=True)
    table.add_column("eager / ours", justify="right")
    table.add_column("best / ours", justify="right")
    for case in cases:
        row = {r.framework: r for r in chosen if r.case == case}
        best = min(peers_of(list(row.values())), key=lambda r: r.median or math.inf, default=None)
        ours = next((r for name, r in row.items() if name.startswith(OURS)), None)
        table.add_row(
            escape(case),
            *(cell(row.get(framework)) for framework in frameworks),
            best.framework if best else "-",
            ratio(row.get("torch"), ours),
            ratio(best, ours),
        )
    console.print(table)


def cell(result: Result | None) -> str:
    if result is None or result.median is None or result.minimum is None:
        return "-"
    share = f" {result.share:.0%}" if result.share else ""
    return f"{result.median * 1e3:.3g} ({result.minimum * 1e3:.3g}){share}"


def ratio(peer: Result | None, ours: Result | None) -> str:
    """Peer's time over ours: of the medians, and in brackets of the minima, which other processes disturb less."""
    if not (peer and ours and peer.median and ours.median and peer.minimum and ours.minimum):
        return "-"
    return f"{peer.median / ours.median:.2f} ({peer.minimum / ours.minimum:.2f})"


def print_means(console: Console, results: Sequence[Result], threads: int) -> None:
    """The geometric mean of best peer's time over ours, of each group of cases and of all."""
    ratios: dict[str, list[float]] = {}
    for ours in results:
        if ours.framework.startswith(OURS) and ours.threads == threads and ours.median:
            others = [r for r in results if r.case == ours.case and r.threads == threads]
            peers = [r.median for r in peers_of(others) if r.median]
            if peers:
                ratios.setdefault(ours.group, []).append(min(peers) / ours.median)
    if not ratios:
        return
    means = [f"{group} {geometric_mean(found):.2f}" for group, found in ratios.items() if group]
    total = geometric_mean([r for found in ratios.values() for r in found])
    console.print(
        f"geometric mean of best peer / ours, {threads} threads: {', '.join([*means, f'all {total:.2f}'])}",
        highlight=False,
    )


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def print_stalls(console: Console, results: Sequence[Result]) -> None:
    """How far the worst step lies above the median, while other processes kept cores busy."""
    table = Table(title="ms while other processes kept cores busy: median, worst step")
    for column in ("case", "framework", "threads", "median", "worst", "worst - median"):
        table.add_column(column, justify="left" if column in ("case", "framework") else "right")
    for r in results:
        if r.median and r.maximum:
            figures = (r.median, r.maximum, r.maximum - r.median)
            cells = (f"{seconds * 1e3:.3g}" for seconds in figures)
            table.add_row(escape(r.case), r.framework, str(r.threads), *cells)
    console.print(table)


def print_agreement(console: Console, agreements: Sequence[Agreement]) -> None:
    """Say whether the frameworks computed the same, per framework in one line, and each case that differs."""
    console.print("\nSame computation? The largest relative difference to the reference's numbers:")
    for framework in dict.fromkeys(a.framework for a in agreements):
        mine = [a for a in agreements if a.framework == framework]
        worst = max(mine, key=lambda a: a.difference / a.tolerance)
        if worst.framework == worst.reference and len(mine) == sum(a.reference == framework for a in mine):
            console.print(f"  {framework}: the reference")
            continue
        verdict = "agrees" if all(a.agrees for a in mine) else "[bold red]DIFFERS[/]"
        console.print(
            f"  {framework}: {verdict} on {sum(a.agrees for a in mine)} of {len(mine)};"
            f" worst {worst.difference:.1e} (tolerance {worst.tolerance:.0e}) in {escape(worst.case)}"
        )
        for a in mine:
            if not a.agrees:
                console.print(f"    differs by {a.difference:.1e}: {escape(a.case)}, {a.threads} threads")


def print_problems(console: Console, results: Sequence[Result], busy: int = 0) -> None:
    """Say what was not measured, with each reason once, and whether the machine was busy meanwhile."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.problem:
            first = result.problem.strip().splitlines()[0][:300]
            reasons.setdefault((result.framework, first), []).append(result.case)
    for (framework, reason), cases in reasons.items():
        names = "; ".join(dict.fromkeys(cases))
        console.print(f"not measured in {framework}: {escape(reason)} ({escape(names)})", highlight=False)
    if not results:
        return
    noisy = max(results, key=lambda r: r.other_share)
    idle = max(results, key=lambda r: r.idle_share)
    if noisy.other_share > busy + 0.1:
        console.print(
            f"[yellow]other processes used up to {noisy.other_share:.1f} cores while measuring"
            f" ({escape(noisy.case)}, {noisy.framework}): trust the minima, and measure again[/]"
        )
    if idle.idle_share > 0.05:
        console.print(
            f"[yellow]waiting workers used up to {idle.idle_share:.2f} cores ({escape(idle.case)})[/]"
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
