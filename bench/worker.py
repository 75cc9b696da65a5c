"""One framework in one process: prepares a case and times it, one JSON line in, one JSON line out.

It knows nothing of the other frameworks. Between two commands it waits in a read and uses no processor.
"""

import argparse
import contextlib
import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def restrict_to(threads: int) -> None:
    """Run on that many cores only: every framework sizes its pool by the cores it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def forget_peak_memory() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """MiB, since the last `forget_peak_memory` where the system allows that, else since the start."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Worker:
    """Holds the case that was prepared last."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.runner: Any = None
        self.shortest = math.inf  # time of a run of this case, once known

    def prepare(self, suite: str, case: str) -> dict[str, Any]:
        """Build the case, run it once, and compute the numbers that frameworks must agree on."""
        from bench.cases import find  # these imports load the framework, under the thread limits set by then
        from bench.frameworks import Unsupported, prepare

        self.runner = None
        gc.collect()
        forget_peak_memory()
        began = time.perf_counter()
        try:
            self.runner = prepare(self.framework, find(suite, case))
            self.runner.run()
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        first = time.perf_counter() - began
        self.shortest = math.inf
        return {"first_s": first, "fingerprint": self.runner.fingerprint()}

    def time(self, seconds: float, least: int, most: int, warmup: int) -> dict[str, Any]:
        """Time single runs from a fresh start until both `seconds` have passed and `least` runs are done.

        A run that takes longer than `seconds` warms up once, before its first round, and is timed once in each.
        """
        clock = time.perf_counter
        self.runner.reset()
        if self.shortest > seconds and self.shortest < math.inf:
            warmup, least = 0, 1
        for _ in range(warmup):
            began = clock()
            self.runner.run()
            if clock() - began > seconds:
                least = 1
                break
        samples: list[float] = []
        run = self.runner.run
        gc.collect()
        gc.disable()
        end = clock() + seconds
        while len(samples) < most and (clock() < end or len(samples) < least):
            began = clock()
            run()
            samples.append(clock() - began)
        gc.enable()
        self.shortest = min(self.shortest, *samples)
        return {"samples": samples, "peak_mib": peak_memory()}

    def drop(self) -> dict[str, Any]:
        self.runner = None
        gc.collect()
        return {}

    def answer(self, lines: Iterable[str]) -> Iterable[dict[str, Any]]:
        for line in lines:
            command = json.loads(line)
            name = command.pop("do")
            try:
                yield {"prepare": self.prepare, "time": self.time, "drop": self.drop}[name](**command)
            except Exception as error:
                yield {"error": f"{type(error).__name__}: {error}".strip()[:2000]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    restrict_to(arguments.threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    for answer in Worker(arguments.framework).answer(sys.stdin):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
