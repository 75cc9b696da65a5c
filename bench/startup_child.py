"""What `bench.startup` runs in a fresh process: import a framework, train one step, print when each was done.

Times are seconds of the machine's monotonic clock, which the parent process reads too.
"""

import importlib
import json
import sys
import time

LIBRARIES = {"tilewright": "tilewright", "torch": "torch", "jax": "jax"}


def main(framework: str, case: str) -> None:
    started = time.monotonic()
    importlib.import_module(LIBRARIES[framework.partition("-")[0]])
    imported = time.monotonic()
    from bench.cases import find
    from bench.frameworks import prepare

    runner = prepare(framework, find("training", case))
    runner.run()
    print(json.dumps({"started": started, "imported": imported, "stepped": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
