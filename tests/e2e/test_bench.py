"""The benchmark's own machinery, with NumPy as the only framework, so that nothing else need be installed.

What it measures is not judged here.
"""

import importlib
import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

CASES = ["sum 64x1024 axis=0", "sum 64x1024 axis=1"]


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.run", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_writes_what_it_measured(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    options = [
        "--suite",
        "kernels",
        "--only",
        "sum 64x1024",
        "--frameworks",
        "numpy",
        "--threads",
        "1",
        "--quick",
    ]
    done = run(repository, *options, "--json", str(path))
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [r["case"] for r in content["results"]] == CASES
    for result in content["results"]:
        assert result["problem"] is None
        assert 0 < result["minimum"] <= result["median"]
        assert result["share"] > 0
        assert result["copy_share"] > 0
        assert result["samples"] >= 2
    assert all(a["agrees"] for a in content["agreements"])
    assert content["limits"]["1"]["peak_gflops"] > 1
    assert "sum 64x1024 axis=0" in done.stdout

    table = subprocess.run(
        [sys.executable, "-m", "bench.markdown", str(path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "| sum 64x1024 axis=0 |" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frameworks", "nonesuch"], "unknown framework 'nonesuch'"),
        (["--only", "nonesuch"], "no case's name contains 'nonesuch'"),
        (["--threads", "4096"], "thread counts must lie between"),
    ],
)
def test_a_wrong_option_is_named(repository: Path, arguments: list[str], message: str) -> None:
    done = run(repository, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_framework_that_is_not_installed_leaves_the_rest(repository: Path, tmp_path: Path) -> None:
    """The worker's error becomes a line of the report, not the end of the run."""
    path = tmp_path / "results.json"
    options = ["--suite", "kernels", "--only", "sum 64x1024 axis=0", "--threads", "1", "--quick"]
    done = run(repository, *options, "--frameworks", "numpy,torch", "--json", str(path))
    assert done.returncode == 0, done.stderr
    results = {r["framework"]: r for r in json.loads(path.read_text(encoding="utf-8"))["results"]}
    assert results["numpy"]["median"] > 0
    if results["torch"]["problem"] is not None:
        assert "torch" in results["torch"]["problem"]
        assert "not measured in torch" in done.stdout


MACHINE = {
    "cpu": "C",
    "usable_cores": 2,
    "features": ["f"],
    "caches": {"L1": "1K"},
    "system": "S",
    "python": "3",
    "packages": {"p": "1"},
}


def test_figures_are_put_between_the_marks_of_a_page(repository: Path, tmp_path: Path) -> None:
    """Startup times beside steps; a second time replaces the first; a page without the marks is left alone."""
    times = {"import": 0.1, "first_step": 0.5}
    startup = {"framework": "a", "case": "MLP", "cold": {**times, "first_step": 1.25}, "warm": times}
    step = {"suite": "training", "case": "MLP", "threads": 2, "share": 0.5, "other_share": 0.0}
    step = {**step, "framework": "tilewright", "median": 0.002, "minimum": 0.001}
    peer = {**step, "framework": "b", "median": 0.003, "minimum": 0.002}
    limits = {"2": {"peak_gflops": 9.0, "triad_gbps": 8.0, "copy_gbps": 7.0}}
    contents = [
        {"date": "2026-01-02T03", "command": "x --into /tmp/a", "machine": MACHINE, "results": [startup]},
        {
            "date": "2026-01-02T03",
            "command": "y",
            "limits": limits,
            "machine": MACHINE,
            "results": [step, peer],
        },
    ]
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(content), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "above\n<!-- bench:begin; a note -->\noutdated\n<!-- bench:end -->\nbelow\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "bench.markdown", *map(str, files), "--into"]
    texts = []
    for _ in range(2):
        subprocess.run([*command, str(page)], cwd=repository, check=True)
        texts.append(page.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert texts[0].startswith(
        "above\n<!-- bench:begin; a note -->\n\n| what | goal | measured | reached |\n"
    )
    assert "\n\n2026-01-02, `x`,\n" in texts[0]  # without the place of the results
    assert texts[0].endswith("\n<!-- bench:end -->\nbelow\n") and "outdated" not in texts[0]
    assert "| a | 0.10 | - | - | - | 1.25 | 0.50 | - |" in texts[0]
    assert "| training steps, 2 threads | each ratio ≥ 1.5 | 1 of 1; least 1.50 (MLP) | yes |" in texts[0]
    assert "| training steps, 2 threads | geometric mean ≥ 2 | 1.50 | no |" in texts[0]
    assert "| MLP | 2 (1, 50%) | 3 (2, 50%) | 1.50 (2.00) |" in texts[0]
    other = tmp_path / "other.md"
    other.write_text("nothing here\n", encoding="utf-8")
    done = subprocess.run([*command, str(other)], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has no place for figures" in done.stderr
    assert other.read_text(encoding="utf-8") == "nothing here\n"


@pytest.mark.parametrize(("what", "rows"), [("runs", 6), ("tiles", 0)])
def test_costs_are_printed_as_rows_of_a_table(repository: Path, what: str, rows: int) -> None:
    command = [sys.executable, "-m", "bench.costs", what]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    heading, empty, *lines = done.stdout.splitlines()
    assert heading.endswith(f"`python -m bench.costs {what}`") and empty == ""
    assert len(lines) >= rows  # tiles are those of the instruction sets this machine has
    assert all(float(line.strip("| ").rpartition("|")[2]) > 0 for line in lines)


def test_bandwidth_is_judged_by_a_copy_and_by_stores_past_the_caches(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that moves 0.9 of what a copy does and 0.7 of what stores past the caches do reaches the first."""
    monkeypatch.syspath_prepend(str(repository))
    goals = importlib.import_module("bench.goals")
    kernel = {"suite": "kernels", "group": "memory large", "case": "add", "threads": 1}
    ours = {**kernel, "framework": "tilewright", "median": 2.0, "share": 0.7, "copy_share": 0.9}
    peer = {**kernel, "framework": "numpy", "median": 3.0, "share": 0.4, "copy_share": 0.6}
    rows = goals.evaluate([{"limits": {}, "results": [ours, peer]}])
    assert [(row.goal, row.reached) for row in rows] == [
        ("each ratio ≥ 1.2", True),
        ("each share of a large copy's bandwidth ≥ 0.85", True),
        ("each share of the bandwidth past the caches ≥ 0.85", False),
    ]


def test_a_case_below_its_goal_tells_what_the_goal_needs_of_the_machine(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half as fast as the goal at 60% of the limit: the goal is at 120%, beyond the machine."""
    monkeypatch.syspath_prepend(str(repository))
    goals = importlib.import_module("bench.goals")
    results = []
    for case, peer, share in (("a", 3.0, 0.9), ("b", 1.5, 0.6)):
        common = {"suite": "training", "case": case, "threads": 1}
        results.append({**common, "framework": "tilewright", "median": 2.0, "share": share})
        results.append({**common, "framework": "torch", "median": peer, "share": 0.1})
    row = goals.evaluate([{"limits": {}, "results": results}])[0]
    assert not row.reached
    assert row.measured == "1 of 2; least 0.75 (b, at 60% of the limit; 1.5 is 120%)"


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="needs /proc, where Linux says what threads do"
)
def test_a_turn_begins_when_the_waiting_workers_threads_sleep(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting worker's second thread spins until it is told to stop; the pause before a turn outlasts it."""
    monkeypatch.syspath_prepend(str(repository))
    harness = importlib.import_module("bench.harness")
    program = (
        "import sys, threading\n"
        "told = threading.Event()\n"
        "def spin():\n"
        "    while not told.is_set(): pass\n"
        "threading.Thread(target=spin).start()\n"
        "print(flush=True)\n"
        "sys.stdin.readline()\n"
        "told.set()\n"
        "sys.stdin.readline()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout
    with child, child.stdin as lines:
        child.stdout.readline()
        assert not any(harness.resting(child.pid) for _ in range(20))
        told = threading.Timer(0.2, lambda: (lines.write("\n"), lines.flush()))
        told.start()
        plan = harness.Plan(settle=0.0)
        harness.Harness(plan, print).rest([types.SimpleNamespace(child=child)])
        assert told.finished.is_set()
        assert harness.resting(child.pid)
