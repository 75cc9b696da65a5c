"""What `bench.startup` runs in a fresh process: import a framework, train some steps, print when each was done.

Times are seconds of the machine's monotonic clock, which the parent process reads too. A library may load itself when
it is first used, so the time until its tensor class is there is taken beside that of the import.
"""

import importlib
import json
import sys
import time

LIBRARIES = {"tilewright": "tilewright.Tensor", "torch": "torch.Tensor", "jax": "jax.numpy.ndarray"}
STEPS = 5  # after the first, for the time of a step and the peak of memory


def main(framework: str, case: str) -> None:
    started = time.monotonic()
    library, _, name = LIBRARIES[framework.partition("-")[0]].rpartition(".")
    module = importlib.import_module(library)
    imported = time.monotonic()
    getattr(module, name)
    ready = time.monotonic()
    from bench.cases import find
    from bench.frameworks import prepare
    from bench.worker import peak_memory

    runner = prepare(framework, find("training", case))
    prepared = time.monotonic()
    runner.run()
    stepped = time.monotonic()
    steps = []
    for _ in range(STEPS):
        began = time.monotonic()
        runner.run()
        steps.append(time.monotonic() - began)
    times = {"started": started, "imported": imported, "ready": ready, "stepped": stepped}
    times |= {"compile": stepped - prepared - min(steps), "peak_mib": peak_memory()}
    print(json.dumps(times | getattr(runner, "memory", dict)()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
