"""Emitters: kernels to LLVM IR text."""
