"""How soon a woken worker runs: LLVM IR text of the driver by which workers ask the system for short slices of time.

A worker that wakes on a CPU where another program computes waits until that one's slice is over, milliseconds in which the caller
has done the work alone. Linux (since 6.12) lets a thread ask for shorter slices than others: it gets no more of the CPU, but its
turn comes at once. Older systems take no notice.
"""

from __future__ import annotations

__all__ = ["CALLS", "SLICE", "SLICE_ELSEWHERE"]

# The numbers of sched_getattr and sched_setattr.
CALLS = {"x86_64": (315, 314), "aarch64": (275, 274)}
_NS = 100_000  # the shortest that Linux gives
_BYTES, _POLICY, _RUNTIME = 48, 4, 24  # struct sched_attr: its size, and where its fields lie

SLICE = f"""
; The calling thread's attributes with another slice. Policies that are not the usual one have a meaning of their own for it.
define internal void @ask_for_short_slices() nounwind {{
entry:
  %attributes = alloca [{_BYTES} x i8], align 8
  %got = call i64 (i64, ...) @syscall(i64 @GETATTR@, i32 0, ptr %attributes, i32 {_BYTES}, i32 0)
  %known = icmp eq i64 %got, 0
  br i1 %known, label %look, label %end
look:
  %policy.p = getelementptr i8, ptr %attributes, i64 {_POLICY}
  %policy = load i32, ptr %policy.p
  %usual = icmp eq i32 %policy, 0
  br i1 %usual, label %ask, label %end
ask:
  %runtime.p = getelementptr i8, ptr %attributes, i64 {_RUNTIME}
  store i64 {_NS}, ptr %runtime.p
  %ignored = call i64 (i64, ...) @syscall(i64 @SETATTR@, i32 0, ptr %attributes, i32 0)
  br label %end
end:
  ret void
}}
"""

SLICE_ELSEWHERE = """
define internal void @ask_for_short_slices() nounwind { ret void }
"""
