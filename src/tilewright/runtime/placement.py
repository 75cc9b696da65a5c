"""Where workers run: LLVM IR text of the driver that keeps them off the caller's CPU, and the masks that it uses.

A system that wakes a worker likes to put it on the CPU of whoever wakes it, where it waits for the caller while other CPUs are
idle. So workers may run on every CPU of the process but that one. The caller is followed: where it has moved since the last
shared run, workers are moved out of its way.
"""

from __future__ import annotations

import os

from tilewright.runtime.memory import Memory
from tilewright.runtime.offsets import (
    TEAM_CPU,
    TEAM_MASK_BYTES,
    TEAM_MASK_COUNT,
    TEAM_MASKS,
    TEAM_SIZE,
    TEAM_TIDS,
)

__all__ = ["PLACE", "PLACE_ELSEWHERE", "Masks"]


class Masks:
    """A mask for each CPU that a caller may be on: those of this process without it."""

    def __init__(self) -> None:
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self.count = max(cpus, default=-1) + 1
        self.nbytes = -(-self.count // 64) * 8
        self.memory = Memory(max(self.count * self.nbytes, 8), zero=True)
        words = self.memory.words(0, self.count * self.nbytes // 8)
        for cpu in cpus:
            for other in cpus - {cpu} or cpus:
                words[cpu * self.nbytes // 8 + other // 64] |= 1 << other % 64


PLACE = f"""
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)

; Workers off the CPU that the caller is on, if it was on another before.
define internal void @keep_apart(ptr %team) nounwind {{
entry:
  %masks.p = getelementptr i8, ptr %team, i64 {TEAM_MASKS}
  %masks = load ptr, ptr %masks.p
  %free = icmp eq ptr %masks, null
  br i1 %free, label %end, label %look
look:
  %cpu.32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu.32 to i64
  %last.p = getelementptr i8, ptr %team, i64 {TEAM_CPU}
  %last = load atomic i64, ptr %last.p monotonic, align 8
  %same = icmp eq i64 %cpu, %last
  %count.p = getelementptr i8, ptr %team, i64 {TEAM_MASK_COUNT}
  %count = load i64, ptr %count.p
  %unknown = icmp uge i64 %cpu, %count
  %stay = or i1 %same, %unknown
  br i1 %stay, label %end, label %move
move:
  store atomic i64 %cpu, ptr %last.p seq_cst, align 8
  %size.p = getelementptr i8, ptr %team, i64 {TEAM_SIZE}
  %size = load i64, ptr %size.p
  %tids.p = getelementptr i8, ptr %team, i64 {TEAM_TIDS}
  %tids = load ptr, ptr %tids.p
  br label %head
head:
  %w = phi i64 [ 1, %move ], [ %next, %body ], [ %next, %send ]
  %more = icmp ult i64 %w, %size
  br i1 %more, label %body, label %end
body:
  %next = add i64 %w, 1
  %tid.p = getelementptr i32, ptr %tids, i64 %w
  %tid = load atomic i32, ptr %tid.p seq_cst, align 4
  %started = icmp ne i32 %tid, 0
  br i1 %started, label %send, label %head
send:
  call void @send(ptr %team, i32 %tid, i64 %cpu)
  br label %head
end:
  ret void
}}

; Let a thread run on every CPU but one.
define internal void @send(ptr %team, i32 %tid, i64 %cpu) nounwind {{
  %masks.p = getelementptr i8, ptr %team, i64 {TEAM_MASKS}
  %masks = load ptr, ptr %masks.p
  %bytes.p = getelementptr i8, ptr %team, i64 {TEAM_MASK_BYTES}
  %bytes = load i64, ptr %bytes.p
  %offset = mul i64 %cpu, %bytes
  %mask = getelementptr i8, ptr %masks, i64 %offset
  %ignored = call i32 @sched_setaffinity(i32 %tid, i64 %bytes, ptr %mask)
  ret void
}}

; A worker that starts says which thread of the system it is, and goes where the others are.
define internal void @settle_in(ptr %team, i64 %number) nounwind {{
entry:
  %masks.p = getelementptr i8, ptr %team, i64 {TEAM_MASKS}
  %masks = load ptr, ptr %masks.p
  %free = icmp eq ptr %masks, null
  br i1 %free, label %end, label %say
say:
  %tid.64 = call i64 (i64, ...) @syscall(i64 @GETTID@)
  %tid = trunc i64 %tid.64 to i32
  %tids.p = getelementptr i8, ptr %team, i64 {TEAM_TIDS}
  %tids = load ptr, ptr %tids.p
  %tid.p = getelementptr i32, ptr %tids, i64 %number
  store atomic i32 %tid, ptr %tid.p seq_cst, align 4
  %cpu.p = getelementptr i8, ptr %team, i64 {TEAM_CPU}
  %cpu = load atomic i64, ptr %cpu.p seq_cst, align 8
  %known = icmp sge i64 %cpu, 0
  br i1 %known, label %go, label %end
go:
  call void @send(ptr %team, i32 %tid, i64 %cpu)
  br label %end
end:
  ret void
}}
"""

PLACE_ELSEWHERE = """
; Other systems place threads by themselves.
define internal void @keep_apart(ptr %team) nounwind { ret void }
define internal void @settle_in(ptr %team, i64 %number) nounwind { ret void }
"""
