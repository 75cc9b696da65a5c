"""The benchmark's own machinery, with NumPy as the only framework, so that nothing else need be installed.

What it measures is not judged here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = ["sum 4096x1024 axis=0", "sum 4096x1024 axis=1"]


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.run", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_writes_what_it_measured(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    options = [
        "--suite",
        "kernels",
        "--only",
        "sum 4096",
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
        assert result["samples"] >= 3
    assert all(a["agrees"] for a in content["agreements"])
    assert content["limits"]["1"]["peak_gflops"] > 1
    assert "sum 4096x1024 axis=0" in done.stdout

    table = subprocess.run(
        [sys.executable, "-m", "bench.markdown", str(path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "| sum 4096x1024 axis=0 |" in table


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
    options = ["--suite", "kernels", "--only", "sum 4096x1024 axis=0", "--threads", "1", "--quick"]
    done = run(repository, *options, "--frameworks", "numpy,torch", "--json", str(path))
    assert done.returncode == 0, done.stderr
    results = {r["framework"]: r for r in json.loads(path.read_text(encoding="utf-8"))["results"]}
    assert results["numpy"]["median"] > 0
    if results["torch"]["problem"] is not None:
        assert "torch" in results["torch"]["problem"]
        assert "not measured in torch" in done.stdout
