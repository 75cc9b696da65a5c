"""Measure single operations side by side: `python -m bench.run --suite kernels` under a shorter name."""

from bench.run import main

if __name__ == "__main__":
    main("kernels")
