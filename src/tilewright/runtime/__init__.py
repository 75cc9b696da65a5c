"""What runs on the machine: the target, compiled kernels, memory, the thread team and programs. Knows no IR.

target     the machine code is generated for            jit, cache   LLVM IR text -> native addresses
memory     aligned memory; buffers own it               driver, team the native driver and its threads
program    tables of launches, run by one native call   profiler, statistics   what happened, and how long it took
"""
