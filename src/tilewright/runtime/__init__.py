"""What runs on the machine: the target, compiled kernels, memory, the thread team and programs. Knows no IR.

target                 the machine code is generated for
jit, cache             LLVM IR text -> native addresses
memory, buffers        aligned memory; the buffers that own it; dlpack exchanges them
driver, team           the native driver, and the threads that run it
program                tables of launches, run by one native call
profiler, statistics   what happened, and how long it took
"""
