"""Benchmarks: ours and other frameworks side by side. They measure and report; they never assert on time."""
