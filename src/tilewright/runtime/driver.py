"""The native driver: LLVM IR text of the functions that walk a program's launches on all threads.

It states the memory layout shared with `team` and `program` (byte offsets below), and the claim protocol:

- A native part's *run word* is `epoch << 16 | threads`. It only grows, and is published (release) after
  everything a run reads has been written: resolved argument pointers, zeroed completion counts.
- Each launch has one *claim word* per thread, `epoch << 24 | next`, for that thread's share of the launch's
  chunks. A thread takes chunks from its own share, then from the others', each by compare-and-swap from the
  value it read. A word of an older epoch counts as `next = 0`; a word of a newer epoch tells a late thread
  that its run is over.
- A launch is complete when its *done count* equals its chunks. Only a thread that claimed a chunk adds to it.

So a thread that was descheduled can never claim in a run newer than the one it read: all shares of a
finished run are exhausted at that run's epoch, and its compare-and-swap fails or finds nothing left.
"""

from __future__ import annotations

import ctypes
import sys

from tilewright.runtime.offsets import (
    ARG_COUNT,
    ARG_OFFSETS,
    ARG_SLOTS,
    ARGS,
    CHUNK_LIMIT,
    LAUNCH_BYTES,
    LAUNCH_COUNT,
    LAUNCHES,
    LINE,
    PART_TEAM,
    PROFILE,
    PROFILE_WORDS,
    SEGMENT_BYTES,
    SLOTS,
    STATUS,
    STRIDE,
    TEAM_CLOCK,
    TEAM_HAZARDS,
    TEAM_PROGRAM,
    TEAM_SCRATCH,
    TEAM_SIGNAL,
    TEAM_SLEEP,
    TEAM_SLEEPERS,
    TEAM_SPINS,
    TEAM_STOP,
    TEAM_WAKE,
    TEAM_WAKE_NS,
    TEAM_YIELD,
    THREADS,
    WAKE_LIMIT,
)
from tilewright.runtime.placement import PLACE, PLACE_ELSEWHERE
from tilewright.runtime.sequences import SEQUENCE
from tilewright.runtime.sharing import CHOOSE
from tilewright.runtime.slices import CALLS as SLICE_CALLS
from tilewright.runtime.slices import SLICE, SLICE_ELSEWHERE

__all__ = ["FUNCTIONS", "driver_source", "function_table", "has_futex"]

FUNCTIONS = (
    "run",
    "run_serial",
    "sequence",
    "worker",
    "retire",
    "futex_sleep",
    "futex_wake",
    "clock",
    "pauses",
)

_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
}
_FUTEX_CALL = {"x86_64": 202, "aarch64": 98}
_GETTID_CALL = {"x86_64": 186, "aarch64": 178}

_RESOLVE = f"""
; args[i] = slots[arg_slots[i]] + arg_offsets[i], and a cleared status, at the start of every run. What is as in the last run is
; not written: workers have it in their caches.
define internal void @resolve(ptr %part) nounwind {{
entry:
  %slots.p = getelementptr i8, ptr %part, i64 {SLOTS}
  %slots = load ptr, ptr %slots.p
  %count.p = getelementptr i8, ptr %part, i64 {ARG_COUNT}
  %count = load i64, ptr %count.p
  %which.p = getelementptr i8, ptr %part, i64 {ARG_SLOTS}
  %which = load ptr, ptr %which.p
  %offsets.p = getelementptr i8, ptr %part, i64 {ARG_OFFSETS}
  %offsets = load ptr, ptr %offsets.p
  %args.p = getelementptr i8, ptr %part, i64 {ARGS}
  %args = load ptr, ptr %args.p
  %status.p = getelementptr i8, ptr %part, i64 {STATUS}
  %status = load ptr, ptr %status.p
  %words = load i128, ptr %status, align 16
  %clear = icmp eq i128 %words, 0
  br i1 %clear, label %head, label %report
report:
  store i128 0, ptr %status, align 16
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ 0, %report ], [ %next, %body ], [ %next, %change ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %end
body:
  %slot.p = getelementptr i64, ptr %which, i64 %i
  %slot = load i64, ptr %slot.p
  %base.p = getelementptr ptr, ptr %slots, i64 %slot
  %base = load ptr, ptr %base.p
  %offset.p = getelementptr i64, ptr %offsets, i64 %i
  %offset = load i64, ptr %offset.p
  %arg = getelementptr i8, ptr %base, i64 %offset
  %arg.p = getelementptr ptr, ptr %args, i64 %i
  %arg.old = load ptr, ptr %arg.p
  %next = add i64 %i, 1
  %same = icmp eq ptr %arg, %arg.old
  br i1 %same, label %head, label %change
change:
  store ptr %arg, ptr %arg.p
  br label %head
end:
  ret void
}}
"""

_CHUNK = f"""
; One chunk of a launch: find its segment from the one in %cursor, call the kernel, and time it when
; profiling.
define internal void @run_chunk(ptr %part, ptr %team, i64 %index, ptr %launch, i64 %tid,
                                i64 %chunk, ptr %cursor) nounwind {{
entry:
  %seg.hint = load ptr, ptr %cursor
  %hint.first = load i64, ptr %seg.hint
  %behind = icmp ult i64 %chunk, %hint.first
  %segments.p = getelementptr i8, ptr %launch, i64 16
  %segments = load ptr, ptr %segments.p
  %seg.start = select i1 %behind, ptr %segments, ptr %seg.hint
  br label %seek
seek:
  %seg = phi ptr [ %seg.start, %entry ], [ %seg.next, %seek ]
  %seg.next = getelementptr i8, ptr %seg, i64 {SEGMENT_BYTES}
  %limit = load i64, ptr %seg.next
  %beyond = icmp uge i64 %chunk, %limit
  br i1 %beyond, label %seek, label %found
found:
  store ptr %seg, ptr %cursor
  %first = load i64, ptr %seg
  %grid.p = getelementptr i8, ptr %seg, i64 8
  %grid = load i64, ptr %grid.p
  %size.p = getelementptr i8, ptr %seg, i64 16
  %size = load i64, ptr %size.p
  %args.p = getelementptr i8, ptr %seg, i64 24
  %args = load ptr, ptr %args.p
  %k = sub i64 %chunk, %first
  %lo = mul i64 %k, %size
  %end = add i64 %lo, %size
  %short = icmp ult i64 %grid, %end
  %hi = select i1 %short, i64 %grid, i64 %end
  %kernel = load ptr, ptr %launch
  %status.p = getelementptr i8, ptr %part, i64 {STATUS}
  %status = load ptr, ptr %status.p
  %failure = load i32, ptr %status
  %failed = icmp ne i32 %failure, 0
  br i1 %failed, label %skip, label %work
skip:
  ret void
work:
  %scratches.p = getelementptr i8, ptr %team, i64 {TEAM_SCRATCH}
  %scratches = load ptr, ptr %scratches.p
  %scratch.p = getelementptr ptr, ptr %scratches, i64 %tid
  %scratch = load ptr, ptr %scratch.p
  %profile.p = getelementptr i8, ptr %part, i64 {PROFILE}
  %profile = load ptr, ptr %profile.p
  %plain = icmp eq ptr %profile, null
  br i1 %plain, label %untimed, label %timed
untimed:
  call void %kernel(ptr %args, ptr %scratch, i64 %lo, i64 %hi, ptr %status)
  ret void
timed:
  %clock.p = getelementptr i8, ptr %team, i64 {TEAM_CLOCK}
  %clock = load ptr, ptr %clock.p
  %t0 = call i64 %clock()
  call void %kernel(ptr %args, ptr %scratch, i64 %lo, i64 %hi, ptr %status)
  %t1 = call i64 %clock()
  %stride.p = getelementptr i8, ptr %part, i64 {STRIDE}
  %stride = load i64, ptr %stride.p
  %row.base = mul i64 %index, %stride
  %row.index = add i64 %row.base, %tid
  %row.offset = mul i64 %row.index, {8 * PROFILE_WORDS}
  %row = getelementptr i8, ptr %profile, i64 %row.offset
  %old.start = load i64, ptr %row
  %is.first = icmp eq i64 %old.start, 0
  %start = select i1 %is.first, i64 %t0, i64 %old.start
  store i64 %start, ptr %row
  %last.p = getelementptr i8, ptr %row, i64 8
  store i64 %t1, ptr %last.p
  %busy.p = getelementptr i8, ptr %row, i64 16
  %busy.old = load i64, ptr %busy.p
  %took = sub i64 %t1, %t0
  %busy = add i64 %busy.old, %took
  store i64 %busy, ptr %busy.p
  %chunks.p = getelementptr i8, ptr %row, i64 24
  %chunks.old = load i64, ptr %chunks.p
  %chunks = add i64 %chunks.old, 1
  store i64 %chunks, ptr %chunks.p
  ret void
}}
"""

_AWAIT = f"""
; Wait until launches [0, %upto) are complete, starting from *%complete, which it advances. Returns false
; when the part's run word is no longer %run: the run this thread belongs to is over.
define internal i1 @await(ptr %part, ptr %team, i64 %run, i64 %upto, ptr %complete) nounwind {{
entry:
  %launches.p = getelementptr i8, ptr %part, i64 {LAUNCHES}
  %launches = load ptr, ptr %launches.p
  %polls = alloca i32
  br label %head
head:
  %c = load i64, ptr %complete
  %waiting = icmp ult i64 %c, %upto
  br i1 %waiting, label %look, label %ready
look:
  %offset = mul i64 %c, {LAUNCH_BYTES}
  %launch = getelementptr i8, ptr %launches, i64 %offset
  %chunks.p = getelementptr i8, ptr %launch, i64 8
  %chunks = load i64, ptr %chunks.p
  %state.p = getelementptr i8, ptr %launch, i64 32
  %state = load ptr, ptr %state.p
  store i32 0, ptr %polls
  br label %poll
poll:
  %done = load atomic i64, ptr %state acquire, align 8
  %all = icmp eq i64 %done, %chunks
  br i1 %all, label %advance, label %busy
advance:
  %c1 = add i64 %c, 1
  store i64 %c1, ptr %complete
  br label %head
busy:
  %now = load atomic i64, ptr %part monotonic, align 8
  %same = icmp eq i64 %now, %run
  br i1 %same, label %pause, label %stale
pause:
  @PAUSE@
  %n = load i32, ptr %polls
  %n1 = add i32 %n, 1
  store i32 %n1, ptr %polls
  %long = icmp ugt i32 %n1, @YIELD_AFTER@
  br i1 %long, label %yield, label %poll
yield:
  %yield.p = getelementptr i8, ptr %team, i64 {TEAM_YIELD}
  %yield.f = load ptr, ptr %yield.p
  %ignored = call i32 %yield.f()
  br label %poll
ready:
  ret i1 true
stale:
  ret i1 false
}}
"""

_WALK = f"""
; One thread's way through a run: every launch in order, claiming chunks until none is left. Returns at the
; end or when the run turns out to be over; the caller of the run waits for completion afterwards.
define internal void @walk(ptr %part, ptr %team, i64 %tid, ptr %complete) nounwind {{
entry:
  %cursor = alloca ptr
  %run = load atomic i64, ptr %part acquire, align 8
  %epoch = lshr i64 %run, 16
  %threads = and i64 %run, 65535
  %tag = shl i64 %epoch, 24
  %home = urem i64 %tid, %threads
  %count.p = getelementptr i8, ptr %part, i64 {LAUNCH_COUNT}
  %count = load i64, ptr %count.p
  %launches.p = getelementptr i8, ptr %part, i64 {LAUNCHES}
  %launches = load ptr, ptr %launches.p
  br label %launch.head
launch.head:
  %l = phi i64 [ 0, %entry ], [ %l.next, %launch.end ]
  %more = icmp ult i64 %l, %count
  br i1 %more, label %launch.body, label %end
launch.body:
  %offset = mul i64 %l, {LAUNCH_BYTES}
  %launch = getelementptr i8, ptr %launches, i64 %offset
  %wait.p = getelementptr i8, ptr %launch, i64 24
  %wait = load i64, ptr %wait.p
  %upto = add i64 %wait, 1
  %live = call i1 @await(ptr %part, ptr %team, i64 %run, i64 %upto, ptr %complete)
  br i1 %live, label %enter, label %end
enter:
  %chunks.p = getelementptr i8, ptr %launch, i64 8
  %chunks = load i64, ptr %chunks.p
  %segments.p = getelementptr i8, ptr %launch, i64 16
  %segments = load ptr, ptr %segments.p
  store ptr %segments, ptr %cursor
  %state.p = getelementptr i8, ptr %launch, i64 32
  %state = load ptr, ptr %state.p
  br label %share.head
share.head:
  %s = phi i64 [ 0, %enter ], [ %s.next, %share.end ]
  %mine = phi i64 [ 0, %enter ], [ %mine.now, %share.end ]
  %other = icmp ult i64 %s, %threads
  br i1 %other, label %share, label %launch.done
share:
  ; thread t's share of n chunks on T threads is [ceil(n t / T), ceil(n (t + 1) / T))
  %t.raw = add i64 %home, %s
  %wraps = icmp uge i64 %t.raw, %threads
  %t.wrapped = sub i64 %t.raw, %threads
  %t = select i1 %wraps, i64 %t.wrapped, i64 %t.raw
  %round = sub i64 %threads, 1
  %lo.product = mul i64 %chunks, %t
  %lo.rounded = add i64 %lo.product, %round
  %lo = udiv i64 %lo.rounded, %threads
  %hi.product = add i64 %lo.product, %chunks
  %hi.rounded = add i64 %hi.product, %round
  %hi = udiv i64 %hi.rounded, %threads
  %size = sub i64 %hi, %lo
  %line = add i64 %t, 1
  %word.offset = mul i64 %line, {LINE}
  %word = getelementptr i8, ptr %state, i64 %word.offset
  br label %read
read:
  %mine.read = phi i64 [ %mine, %share ], [ %mine.more, %claimed ]
  %fresh = load atomic i64, ptr %word monotonic, align 8
  br label %try
try:
  %seen = phi i64 [ %fresh, %read ], [ %actual, %claim ]
  %seen.epoch = lshr i64 %seen, 24
  %newer = icmp ugt i64 %seen.epoch, %epoch
  br i1 %newer, label %end, label %current
current:
  %older = icmp ult i64 %seen.epoch, %epoch
  %seen.next = and i64 %seen, {CHUNK_LIMIT - 1}
  %next = select i1 %older, i64 0, i64 %seen.next
  %left = icmp ult i64 %next, %size
  br i1 %left, label %claim, label %share.end
claim:
  %next.1 = add i64 %next, 1
  %claim.word = or i64 %tag, %next.1
  %result = cmpxchg ptr %word, i64 %seen, i64 %claim.word acq_rel monotonic, align 8
  %actual = extractvalue {{ i64, i1 }} %result, 0
  %won = extractvalue {{ i64, i1 }} %result, 1
  br i1 %won, label %claimed, label %try
claimed:
  %chunk = add i64 %lo, %next
  call void @run_chunk(ptr %part, ptr %team, i64 %l, ptr %launch, i64 %tid, i64 %chunk, ptr %cursor)
  %mine.more = add i64 %mine.read, 1
  br label %read
share.end:
  %mine.now = phi i64 [ %mine.read, %current ]
  %s.next = add i64 %s, 1
  br label %share.head
launch.done:
  %any = icmp ne i64 %mine, 0
  br i1 %any, label %report, label %launch.end
report:
  %before = atomicrmw add ptr %state, i64 %mine acq_rel, align 8
  br label %launch.end
launch.end:
  %l.next = add i64 %l, 1
  br label %launch.head
end:
  ret void
}}
"""

_RUN = f"""
; A whole run, on the calling thread and every worker that comes. Returns the first status word.
define internal i32 @share(ptr %part, i1 %wakes) nounwind {{
entry:
  %complete = alloca i64
  store i64 0, ptr %complete
  call void @resolve(ptr %part)
  %team.p = getelementptr i8, ptr %part, i64 {PART_TEAM}
  %team = load ptr, ptr %team.p
  call void @keep_apart(ptr %team)
  %count.p = getelementptr i8, ptr %part, i64 {LAUNCH_COUNT}
  %count = load i64, ptr %count.p
  %launches.p = getelementptr i8, ptr %part, i64 {LAUNCHES}
  %launches = load ptr, ptr %launches.p
  br label %clear.head
clear.head:
  %l = phi i64 [ 0, %entry ], [ %l.next, %clear ]
  %left = icmp ult i64 %l, %count
  br i1 %left, label %clear, label %publish
clear:
  %offset = mul i64 %l, {LAUNCH_BYTES}
  %launch = getelementptr i8, ptr %launches, i64 %offset
  %state.p = getelementptr i8, ptr %launch, i64 32
  %state = load ptr, ptr %state.p
  store atomic i64 0, ptr %state monotonic, align 8
  %l.next = add i64 %l, 1
  br label %clear.head
publish:
  %threads.p = getelementptr i8, ptr %part, i64 {THREADS}
  %threads = load i64, ptr %threads.p
  %old = load atomic i64, ptr %part monotonic, align 8
  %old.epoch = lshr i64 %old, 16
  %epoch = add i64 %old.epoch, 1
  %epoch.bits = shl i64 %epoch, 16
  %new = or i64 %epoch.bits, %threads
  store atomic i64 %new, ptr %part release, align 8
  %program.p = getelementptr i8, ptr %team, i64 {TEAM_PROGRAM}
  store atomic ptr %part, ptr %program.p seq_cst, align 8
  %signal.p = getelementptr i8, ptr %team, i64 {TEAM_SIGNAL}
  %signal = atomicrmw add ptr %signal.p, i32 1 seq_cst, align 4
  %sleepers.p = getelementptr i8, ptr %team, i64 {TEAM_SLEEPERS}
  %sleepers = load atomic i32, ptr %sleepers.p seq_cst, align 4
  %sleeping = icmp ne i32 %sleepers, 0
  %asleep = and i1 %sleeping, %wakes
  br i1 %asleep, label %wake, label %go
wake:
  %clock.p = getelementptr i8, ptr %team, i64 {TEAM_CLOCK}
  %clock = load ptr, ptr %clock.p
  %before = call i64 %clock()
  %limit.p = getelementptr i8, ptr %part, i64 {WAKE_LIMIT}
  %limit = load i64, ptr %limit.p
  %limit.32 = trunc i64 %limit to i32
  %wake.p = getelementptr i8, ptr %team, i64 {TEAM_WAKE}
  %wake.f = load ptr, ptr %wake.p
  call void %wake.f(ptr %team, i32 %limit.32)
  %after = call i64 %clock()
  %took = sub i64 %after, %before
  %bounded = call i64 @llvm.umin.i64(i64 %took, i64 100000)
  %cost.p = getelementptr i8, ptr %team, i64 {TEAM_WAKE_NS}
  store i64 %bounded, ptr %cost.p
  br label %go
go:
  call void @walk(ptr %part, ptr %team, i64 0, ptr %complete)
  %finished = call i1 @await(ptr %part, ptr %team, i64 %new, i64 %count, ptr %complete)
  %status.p = getelementptr i8, ptr %part, i64 {STATUS}
  %status = load ptr, ptr %status.p
  %code = load i32, ptr %status
  ret i32 %code
}}

; A whole run on the calling thread alone: the same chunks, in order, without claims.
define internal i32 @run_serial(ptr %part) nounwind {{
entry:
  %cursor = alloca ptr
  call void @resolve(ptr %part)
  %team.p = getelementptr i8, ptr %part, i64 {PART_TEAM}
  %team = load ptr, ptr %team.p
  %count.p = getelementptr i8, ptr %part, i64 {LAUNCH_COUNT}
  %count = load i64, ptr %count.p
  %launches.p = getelementptr i8, ptr %part, i64 {LAUNCHES}
  %launches = load ptr, ptr %launches.p
  br label %head
head:
  %l = phi i64 [ 0, %entry ], [ %l.next, %launch.end ]
  %more = icmp ult i64 %l, %count
  br i1 %more, label %launch.body, label %end
launch.body:
  %offset = mul i64 %l, {LAUNCH_BYTES}
  %launch = getelementptr i8, ptr %launches, i64 %offset
  %chunks.p = getelementptr i8, ptr %launch, i64 8
  %chunks = load i64, ptr %chunks.p
  %segments.p = getelementptr i8, ptr %launch, i64 16
  %segments = load ptr, ptr %segments.p
  store ptr %segments, ptr %cursor
  br label %chunk.head
chunk.head:
  %c = phi i64 [ 0, %launch.body ], [ %c.next, %chunk ]
  %left = icmp ult i64 %c, %chunks
  br i1 %left, label %chunk, label %launch.end
chunk:
  call void @run_chunk(ptr %part, ptr %team, i64 %l, ptr %launch, i64 0, i64 %c, ptr %cursor)
  %c.next = add i64 %c, 1
  br label %chunk.head
launch.end:
  %l.next = add i64 %l, 1
  br label %head
end:
  %status.p = getelementptr i8, ptr %part, i64 {STATUS}
  %status = load ptr, ptr %status.p
  %code = load i32, ptr %status
  ret i32 %code
}}
"""

_WORKER = f"""
; A worker's life: wait for the signal to change, join the published run, repeat until told to stop. Before
; it looks into a part it states so in its hazard line and checks that the part is still published; parts
; are freed only when no line names them.
define internal void @worker(ptr %team, i64 %tid) nounwind {{
entry:
  %complete = alloca i64
  %seen = alloca i32
  %spins = alloca i32
  %stop.p = getelementptr i8, ptr %team, i64 {TEAM_STOP}
  %limit.p = getelementptr i8, ptr %team, i64 {TEAM_SPINS}
  %program.p = getelementptr i8, ptr %team, i64 {TEAM_PROGRAM}
  %sleepers.p = getelementptr i8, ptr %team, i64 {TEAM_SLEEPERS}
  %sleep.p = getelementptr i8, ptr %team, i64 {TEAM_SLEEP}
  %hazards.p = getelementptr i8, ptr %team, i64 {TEAM_HAZARDS}
  %hazards = load ptr, ptr %hazards.p
  %line = mul i64 %tid, {LINE}
  %hazard = getelementptr i8, ptr %hazards, i64 %line
  store i32 0, ptr %seen
  store i32 0, ptr %spins
  call void @settle_in(ptr %team, i64 %tid)
  call void @ask_for_short_slices()
  br label %idle
idle:
  %stop = load atomic i32, ptr %stop.p acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %exit, label %watch
watch:
  %signal = load atomic i32, ptr %team acquire, align 4
  %last = load i32, ptr %seen
  %changed = icmp ne i32 %signal, %last
  br i1 %changed, label %join, label %spin
spin:
  %n = load i32, ptr %spins
  %n1 = add i32 %n, 1
  store i32 %n1, ptr %spins
  %limit = load atomic i32, ptr %limit.p monotonic, align 4
  %patient = icmp ult i32 %n1, %limit
  br i1 %patient, label %pause, label %sleep
pause:
  @PAUSE@
  br label %idle
sleep:
  %up = atomicrmw add ptr %sleepers.p, i32 1 seq_cst, align 4
  %stop.again = load atomic i32, ptr %stop.p seq_cst, align 4
  %signal.again = load atomic i32, ptr %team seq_cst, align 4
  %running = icmp eq i32 %stop.again, 0
  %unchanged = icmp eq i32 %signal.again, %last
  %really = and i1 %running, %unchanged
  br i1 %really, label %doze, label %awake
doze:
  %sleep.f = load ptr, ptr %sleep.p
  call void %sleep.f(ptr %team, i32 %last)
  br label %awake
awake:
  %down = atomicrmw sub ptr %sleepers.p, i32 1 seq_cst, align 4
  store i32 0, ptr %spins
  br label %idle
join:
  store i32 %signal, ptr %seen
  store i32 0, ptr %spins
  br label %announce
announce:
  %part = load atomic ptr, ptr %program.p seq_cst, align 8
  %none = icmp eq ptr %part, null
  br i1 %none, label %leave, label %protect
protect:
  store atomic ptr %part, ptr %hazard seq_cst, align 8
  %part.again = load atomic ptr, ptr %program.p seq_cst, align 8
  %still = icmp eq ptr %part, %part.again
  br i1 %still, label %work, label %announce
work:
  store i64 0, ptr %complete
  call void @walk(ptr %part, ptr %team, i64 %tid, ptr %complete)
  br label %leave
leave:
  store atomic ptr null, ptr %hazard release, align 8
  br label %idle
exit:
  store atomic ptr null, ptr %hazard release, align 8
  ret void
}}

; Unpublish %part; returns whether no thread is looking at it, so that its memory may be freed. The fence
; orders the store before the loads, as the worker's sequentially consistent announcement and second look do
; on their side.
define internal i1 @retire(ptr %team, ptr %part, i64 %threads) nounwind {{
entry:
  %program.p = getelementptr i8, ptr %team, i64 {TEAM_PROGRAM}
  %current = load atomic ptr, ptr %program.p seq_cst, align 8
  %published = icmp eq ptr %current, %part
  br i1 %published, label %withdraw, label %scan
withdraw:
  store atomic ptr null, ptr %program.p seq_cst, align 8
  br label %scan
scan:
  fence seq_cst
  %hazards.p = getelementptr i8, ptr %team, i64 {TEAM_HAZARDS}
  %hazards = load ptr, ptr %hazards.p
  br label %head
head:
  %t = phi i64 [ 0, %scan ], [ %next, %look ]
  %more = icmp ult i64 %t, %threads
  br i1 %more, label %look, label %free
look:
  %line = mul i64 %t, {LINE}
  %hazard = getelementptr i8, ptr %hazards, i64 %line
  %used = load atomic ptr, ptr %hazard seq_cst, align 8
  %next = add i64 %t, 1
  %busy = icmp eq ptr %used, %part
  br i1 %busy, label %held, label %head
free:
  ret i1 true
held:
  ret i1 false
}}

; %count pauses, to learn how long one takes.
define internal void @pauses(i64 %count) nounwind {{
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %end
body:
  @PAUSE@
  %next = add i64 %i, 1
  br label %head
end:
  ret void
}}
"""

_LINUX = """
declare i64 @syscall(i64, ...)
declare i32 @clock_gettime(i32, ptr)

; FUTEX_WAIT and FUTEX_WAKE, private to the process.
define internal void @futex_sleep(ptr %team, i32 %seen) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 @FUTEX@, ptr %team, i64 128, i32 %seen, ptr null)
  ret void
}
define internal void @futex_wake(ptr %team, i32 %count) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 @FUTEX@, ptr %team, i64 129, i32 %count)
  ret void
}
; CLOCK_MONOTONIC in nanoseconds.
define internal i64 @clock() nounwind {
  %time = alloca [2 x i64]
  %r = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.p = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.p
  %scaled = mul i64 %seconds, 1000000000
  %ns = add i64 %scaled, %rest
  ret i64 %ns
}
"""

_ELSEWHERE = """
; Other systems sleep, wake and read the clock through functions that the team supplies.
define internal void @futex_sleep(ptr %team, i32 %seen) nounwind { ret void }
define internal void @futex_wake(ptr %team, i32 %count) nounwind { ret void }
define internal i64 @clock() nounwind { ret i64 0 }
"""


def has_futex(triple: str) -> bool:
    """Whether the driver for `triple` can sleep on a futex by itself (Linux on x86-64 or AArch64)."""
    return sys.platform == "linux" and triple.split("-")[0] in _FUTEX_CALL


def driver_source(name: str, triple: str, yield_after: int = 1000) -> str:
    """LLVM IR of the driver: a module whose function `name` returns a table of the addresses of `FUNCTIONS`.

    `yield_after` is the number of pauses a thread waits for a launch before it offers its CPU to others.
    """
    machine = triple.split("-")[0]
    pause, declaration = _PAUSE.get(machine, ('fence syncscope("singlethread") seq_cst', ""))
    linux, elsewhere = _LINUX + PLACE + SLICE, _ELSEWHERE + PLACE_ELSEWHERE + SLICE_ELSEWHERE
    system = linux if has_futex(triple) else elsewhere
    table = f"@functions = private constant [{len(FUNCTIONS)} x ptr] [" + ", ".join(
        f"ptr @{function}" for function in FUNCTIONS
    )
    entry = f"define ptr @{name}() nounwind {{ ret ptr @functions }}\n"
    text = (
        table
        + "]\n"
        + declaration
        + _RESOLVE
        + _CHUNK
        + _AWAIT
        + _WALK
        + _RUN
        + CHOOSE
        + SEQUENCE
        + _WORKER
        + system
        + entry
    )
    text = text.replace("@PAUSE@", pause).replace("@YIELD_AFTER@", str(yield_after))
    text = text.replace("@GETTID@", str(_GETTID_CALL.get(machine, 0)))
    for name, number in zip(("@GETATTR@", "@SETATTR@"), SLICE_CALLS.get(machine, (0, 0)), strict=True):
        text = text.replace(name, str(number))
    return text.replace("@FUTEX@", str(_FUTEX_CALL.get(machine, 0)))


def function_table(address: int) -> dict[str, int]:
    """The driver's functions by name, given the address of its entry."""
    entry = ctypes.CFUNCTYPE(ctypes.c_void_p)(address)
    base = entry()
    words = (ctypes.c_uint64 * len(FUNCTIONS)).from_address(base or 0)
    return dict(zip(FUNCTIONS, words, strict=True))
