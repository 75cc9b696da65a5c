"""Buffers, compiled kernels, the thread team and programs: what runs on the machine. Knows no IR."""
