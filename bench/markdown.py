"""Turn results of `bench.run` and `bench.startup` (JSON) into Markdown tables, for docs/performance.md and README.md.

With results that goals are stated for, a table of the goals comes first.

    python -m bench.markdown FILE...                       print the tables
    python -m bench.markdown FILE... --into README.md      replace what stands between the bench markers

Figures reach the documents only this way, with their date, command and machine.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from bench.goals import Row, evaluate
from bench.startup import COLUMNS

BEGIN, END = "<!-- bench:begin", "<!-- bench:end -->"


def table(content: dict[str, Any], threads: int) -> list[str]:
    """Median and, in brackets, minimum in ms; the last column compares the best peer with ours."""
    results = [r for r in content["results"] if r["threads"] == threads]
    frameworks = list(dict.fromkeys(r["framework"] for r in results))
    mine = next((f for f in frameworks if f.startswith("tilewright")), None)
    ours = any(r["framework"] == mine and r["median"] for r in results)
    heads = [{"kernels": "kernel", "inference": "model"}.get(results[0]["suite"], "step"), *frameworks]
    lines = [heads + ["best peer / tilewright"] * ours]
    for case in dict.fromkeys(r["case"] for r in results):
        row = {r["framework"]: r for r in results if r["case"] == case}
        peers = [r for name, r in row.items() if r["median"] and not name.startswith("tilewright")]
        cells = [case, *(cell(row.get(name)) for name in frameworks)]
        if ours:
            cells.append(best_ratio(peers, row.get(mine)))
        lines.append(cells)
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return ["| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])]


def best_ratio(peers: list[dict[str, Any]], ours: dict[str, Any] | None) -> str:
    """The best peer's median over ours, and in brackets the smallest minimum over ours."""
    if not peers or not ours or not ours["median"]:
        return "-"
    median, minimum = (min(r[key] for r in peers) / ours[key] for key in ("median", "minimum"))
    return f"{median:.2f} ({minimum:.2f})"


def cell(result: dict[str, Any] | None) -> str:
    if not result or not result["median"]:
        return "-"
    share = f", {result['share']:.0%}" if result["share"] else ""
    return f"{result['median'] * 1e3:.3g} ({result['minimum'] * 1e3:.3g}{share})"


def startup_table(results: list[dict[str, Any]]) -> list[str]:
    """Fresh processes: import, compilation and the first trained step, without and with caches of compiled code."""
    headings = ["framework", *(heading for heading, _, _ in COLUMNS)]
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for result in results:
        cells = (figure(result[when].get(key)) for _, when, key in COLUMNS)
        lines.append(f"| {result['framework']} | " + " | ".join(cells) + " |")
    return lines


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def goal_table(rows: list[Row]) -> list[str]:
    lines = ["| what | goal | measured | reached |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.what} | {r.goal} | {r.measured} | {'yes' if r.reached else 'no'} |" for r in rows]
    return lines


def origin(content: dict[str, Any]) -> list[str]:
    """When, by which command and on what the figures were measured."""
    machine = content["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    features = ", ".join(machine["features"])
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    return [
        f"{content['date'][:10]}, `{command(content)}`,",
        f"on {machine['cpu']} ({machine['usable_cores']} cores, {features}; {caches}), {machine['system']},",
        f"Python {machine['python']}; {packages}.",
    ]


def command(content: dict[str, Any]) -> str:
    """What was run, less where it wrote its results."""
    whole: str = content.get("command", "bench.startup, options not recorded")
    return re.sub(r" --(into|json)[ =]\S+", "", whole)


def section(content: dict[str, Any]) -> str:
    """Everything a reader needs to judge one file's figures, and its tables."""
    lines = origin(content)
    if "limits" not in content:  # of bench.startup
        for case in dict.fromkeys(r["case"] for r in content["results"]):
            chosen = [r for r in content["results"] if r["case"] == case]
            lines += ["", f"**Fresh processes: {case}**", "", *startup_table(chosen)]
        return "\n".join(lines) + "\n"
    if content.get("busy"):
        lines.append(f"Meanwhile other processes spun on {content['busy']} of the cores.")
    busy = max(r["other_share"] for r in content["results"]) - content.get("busy", 0)
    if busy > 0.1:
        lines.append(
            f"Other processes used up to {busy:.1f} cores meanwhile: the minima say more than the medians."
        )
    for threads, limit in content["limits"].items():
        # files of before this was measured lack it
        past = f" ({limit['past_gbps']:.0f} past the caches)" if "past_gbps" in limit else ""
        lines += [
            "",
            f"**{threads} thread{'s' * (threads != '1')}**: median ms (minimum, share of the limit).",
            f"Limits as measured: {limit['peak_gflops']:.0f} GFLOP/s f32,"
            f" {limit['triad_gbps']:.0f} GB/s triad{past},"
            f" {limit['copy_gbps']:.0f} GB/s copy.",
            "",
            *table(content, int(threads)),
        ]
    return "\n".join(lines) + "\n"


def insert(document: Path, text: str) -> None:
    """Replace the text between the markers; the file is written whole or not at all."""
    old = document.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{document} has no place for figures: lines with `{BEGIN} -->` and `{END}`")
    start = old.index(BEGIN)
    start = old.index("-->", start) + len("-->")
    end = old.index(END)
    temporary = document.with_name(document.name + ".tmp")
    temporary.write_text(f"{old[:start]}\n\n{text}\n{old[end:]}", encoding="utf-8")
    os.replace(temporary, document)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--into", type=Path, metavar="DOCUMENT")
    options = parser.parse_args()
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in options.files]
    sections = ["\n".join(goal_table(rows)) + "\n"] if (rows := evaluate(contents)) else []
    text = "\n".join([*sections, *map(section, contents)])
    if options.into:
        insert(options.into, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
