"""Runs the cases in one worker process per framework, in turn, and collects times and agreement.

For each thread count the workers start once and stay. A case is prepared in every worker, the numbers they
must agree on are compared, and then come rounds: in each round every worker times the case once, in an order
that rotates. Only one worker works at a time; the others wait for their next command, and a turn begins when
every thread of theirs sleeps: some frameworks' threads spin for a while after their work. How much processor
time they and everything else on the machine used meanwhile is measured and reported with the result.
"""

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cases.base import Case

PATIENCE = 1.0  # seconds to wait for the threads of waiting workers
LOOKS = 3  # 2 ms apart, that must all find them asleep: a thread that spins may yield now and then
TICK = os.sysconf("SC_CLK_TCK")
PEAKS = {"f32": "peak_gflops", "bf16": "bf16_gflops", "int8": "int8_gops"}
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Plan:
    """How long to measure: rounds, and seconds and steps within one."""

    rounds: int = 8
    seconds: float = 0.25
    least: int = 5
    most: int = 500
    warmup: int = 3
    settle: float = 0.03  # pause before a turn, and then until no thread of a waiting worker runs
    hopeless: float = math.inf  # no further rounds for a peer that took so many times the best peer's time

    @classmethod
    def quick(cls) -> "Plan":
        return cls(rounds=2, seconds=0.06, least=2, warmup=2, settle=0.02, hopeless=2.0)


@dataclass
class Result:
    """One case in one framework on one thread count; times in seconds."""

    suite: str
    case: str
    group: str
    framework: str
    threads: int
    median: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    quartiles: tuple[float, float] | None = None
    samples: int = 0
    first_s: float | None = None  # building, compiling and the first run
    peak_mib: float | None = None  # of the whole process, the framework's own memory included
    share: float | None = None  # of the machine's limit
    copy_share: float | None = None  # of the bandwidth of a large copy
    idle_share: float = 0.0  # processor time of the waiting workers meanwhile, in cores
    other_share: float = 0.0  # processor time of everything else on the machine meanwhile, in cores
    problem: str | None = None
    times: list[float] = field(default_factory=list, repr=False)
    wall: float = field(default=0.0, repr=False)
    idle_s: float = field(default=0.0, repr=False)
    other_s: float = field(default=0.0, repr=False)


@dataclass
class Agreement:
    """How far a framework's numbers are from the reference framework's, relative to their size."""

    suite: str
    case: str
    framework: str
    reference: str
    threads: int
    difference: float
    tolerance: float
    numbers: list[float]

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine_seconds() -> float:
    """Busy time of all cores so far, without idle and waiting."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICK


def resting(pid: int) -> bool:
    """Whether no thread of a process runs or wants to."""
    states = (read_state(thread) for thread in Path(f"/proc/{pid}/task").iterdir())
    return all(state not in ("R", "D") for state in states)


def read_state(thread: Path) -> str:
    """The letter for what a thread does, as in proc(5); empty if it has ended meanwhile."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Process:
    """A worker and its pipes."""

    def __init__(self, framework: str, threads: int) -> None:
        self.framework = framework
        limits = {
            name: str(threads)
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TW_THREADS", "NPROC")
        }
        self.child = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", framework, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | limits | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"},
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.child.stdin and self.child.stdout
        try:
            self.child.stdin.write(json.dumps(command) + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the worker ended with status {self.child.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.child.stdin and self.child.stdout
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Harness:
    """Measures cases over frameworks and thread counts; `results` and `agreements` grow as it goes."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self.results: list[Result] = []
        self.agreements: list[Agreement] = []

    def measure(self, cases: Sequence[Case], frameworks: Sequence[str], threads: int) -> None:
        workers = [Process(framework, threads) for framework in frameworks]
        try:
            for number, case in enumerate(cases, 1):
                self.say(f"[{threads} thread{'s' * (threads > 1)}] {number}/{len(cases)} {case.name}")
                self.measure_case(case, workers, threads)
        finally:
            for worker in workers:
                worker.close()

    def measure_case(self, case: Case, workers: Sequence[Process], threads: int) -> None:
        results = {
            w.framework: Result(case.suite, case.name, case.group, w.framework, threads) for w in workers
        }
        fingerprints: dict[str, list[float]] = {}
        ready = []
        for worker in workers:
            answer = worker.ask(do="prepare", suite=case.suite, case=case.name)
            result = results[worker.framework]
            result.problem = answer.get("unsupported") or answer.get("error")
            if result.problem is None:
                result.first_s = answer["first_s"]
                fingerprints[worker.framework] = answer["fingerprint"]
                ready.append(worker)
        self.compare(case, fingerprints, threads)
        for round_number in range(self.plan.rounds if ready else 0):
            turn = round_number % len(ready)
            for worker in ready[turn:] + ready[:turn]:
                self.time_once(worker, workers, results[worker.framework])
            if round_number == 0:
                ready = self.contenders(ready, results)
        for worker in workers:
            worker.ask(do="drop")
        for result in results.values():
            self.summarize(result)
            self.results.append(result)

    def contenders(self, workers: list[Process], results: dict[str, Result]) -> list[Process]:
        """All but peers that the first round has shown to be far behind another."""
        times = {name: min(r.times) for name, r in results.items() if r.times}
        peers = [seconds for name, seconds in times.items() if not name.startswith("tilewright")]
        limit = self.plan.hopeless * min(peers, default=math.inf)
        return [
            w for w in workers if w.framework.startswith("tilewright") or times.get(w.framework, 0.0) <= limit
        ]

    def time_once(self, worker: Process, workers: Sequence[Process], result: Result) -> None:
        if result.problem is not None:
            return
        idle = [w for w in workers if w is not worker and w.child.poll() is None]
        self.rest(idle)
        before = self.clocks(worker, idle)
        answer = worker.ask(
            do="time",
            seconds=self.plan.seconds,
            least=self.plan.least,
            most=self.plan.most,
            warmup=self.plan.warmup,
        )
        if "error" in answer:
            result.problem = answer["error"]
            return
        wall, own, waiting, machine = (b - a for a, b in zip(before, self.clocks(worker, idle), strict=True))
        result.times += answer["samples"]
        result.peak_mib = max(result.peak_mib or 0.0, answer["peak_mib"])
        result.wall += wall
        result.idle_s += waiting
        result.other_s += max(machine - own - waiting, 0.0)

    def rest(self, idle: Sequence[Process]) -> None:
        """Pause until the threads of all waiting workers sleep, for a second at most."""
        time.sleep(self.plan.settle)
        end = time.perf_counter() + PATIENCE
        quiet = 0
        while quiet < LOOKS and time.perf_counter() < end:
            quiet = quiet + 1 if all(resting(w.child.pid) for w in idle) else 0
            time.sleep(0.002)

    @staticmethod
    def clocks(worker: Process, idle: Sequence[Process]) -> tuple[float, float, float, float]:
        waiting = sum(processor_seconds(w.child.pid) for w in idle)
        return time.perf_counter(), processor_seconds(worker.child.pid), waiting, machine_seconds()

    @staticmethod
    def summarize(result: Result) -> None:
        if not result.times:
            return
        result.median = statistics.median(result.times)
        result.minimum, result.maximum = min(result.times), max(result.times)
        quarters = statistics.quantiles(result.times, n=4) if len(result.times) > 1 else [result.median] * 3
        result.quartiles = (quarters[0], quarters[2])
        result.samples = len(result.times)
        result.idle_share = result.idle_s / result.wall
        result.other_share = result.other_s / result.wall

    def share_limits(self, limits: dict[int, dict[str, float]], cases: Sequence[Case]) -> None:
        """Turn each median into a share of what the machine's limits allow for the case's least work."""
        by_name = {case.name: case for case in cases}
        for result in self.results:
            if result.median and result.threads in limits:
                case, limit = by_name[result.case], limits[result.threads]
                peak = limit[PEAKS[case.options.get("dtype", "f32")]]
                resident = case.nbytes < limit["l2_bytes"]
                bandwidth = (
                    limit["l2_gbps"]
                    if resident
                    else max(limit[f"{name}_gbps"] for name in ("triad", "past", "copy"))
                )
                least = max(case.flops / peak, case.nbytes / bandwidth) / 1e9
                result.share = least / result.median
                result.copy_share = case.nbytes / limit["copy_gbps"] / 1e9 / result.median

    def compare(self, case: Case, fingerprints: dict[str, list[float]], threads: int) -> None:
        """Compare with PyTorch where it takes part, else with whatever came first."""
        if not fingerprints:
            return
        reference = next((f for f in ("torch", "torch-fused") if f in fingerprints), next(iter(fingerprints)))
        expected = fingerprints[reference]
        loose = {"training": 2e-3, "eager": 2e-3, "epoch": 1e-2, "inference": 1e-3}
        tolerance = loose.get(case.suite, 2e-2 if case.options.get("dtype") == "bf16" else 1e-4)
        for framework, numbers in fingerprints.items():
            # The size of all numbers together is the scale: one that happens to be near zero must not be.
            scale = max(map(abs, expected)) or 1.0
            pairs = itertools.zip_longest(numbers, expected, fillvalue=float("inf"))
            difference = max(abs(a - b) / scale for a, b in pairs)
            self.agreements.append(
                Agreement(
                    case.suite, case.name, framework, reference, threads, difference, tolerance, numbers
                )
            )

    def to_json(self) -> dict[str, Any]:
        inner = {"times", "wall", "idle_s", "other_s"}
        results = [{k: v for k, v in asdict(r).items() if k not in inner} for r in self.results]
        agreements = [asdict(a) | {"agrees": a.agrees} for a in self.agreements]
        return {"plan": asdict(self.plan), "results": results, "agreements": agreements}
