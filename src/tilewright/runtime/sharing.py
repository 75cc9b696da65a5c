"""Whether a run is shared with the workers: LLVM IR text of the driver's `run`, which `driver` puts beside the rest.

Sharing a short program may cost more than it gives: waking a worker takes as long as many a program runs, data in the caller's
cache is far from another core, and a worker that the system took the CPU from is waited for. No estimate knows these, so a
lazy part keeps what it took either way, and whichever was less is done. The chunks are the same, and so are the results.
"""

from __future__ import annotations

from tilewright.runtime.offsets import (
    ALONE_NS,
    LAZY,
    PART_TEAM,
    SHARED_NS,
    TEAM_BACKOFF,
    TEAM_CLOCK,
    TEAM_CREDIT,
    TEAM_LAST,
    TEAM_SLEEPERS,
    TEAM_SPIN_NS,
    TEAM_WAKE_NS,
    THREADS,
    TURN,
)

__all__ = ["CHOOSE"]

CHOOSE = f"""
; A run of a part whose launches are worth sharing, as it seems. A lazy part is so short that sharing may cost more than it
; gives, so what either way took decides.
define internal i32 @run(ptr %part) nounwind {{
entry:
  %lazy.p = getelementptr i8, ptr %part, i64 {LAZY}
  %lazy = load i64, ptr %lazy.p
  %free = icmp ne i64 %lazy, 0
  br i1 %free, label %choose, label %always
always:
  %always.code = call i32 @share(ptr %part, i1 true)
  ret i32 %always.code
choose:
  %team.p = getelementptr i8, ptr %part, i64 {PART_TEAM}
  %team = load ptr, ptr %team.p
  %clock.p = getelementptr i8, ptr %team, i64 {TEAM_CLOCK}
  %clock = load ptr, ptr %clock.p
  %now = call i64 %clock()
  %alone.p = getelementptr i8, ptr %part, i64 {ALONE_NS}
  %alone = load i64, ptr %alone.p
  %shared.p = getelementptr i8, ptr %part, i64 {SHARED_NS}
  %shared = load i64, ptr %shared.p
  %last.p = getelementptr i8, ptr %team, i64 {TEAM_LAST}
  %sleepers.p = getelementptr i8, ptr %team, i64 {TEAM_SLEEPERS}
  %sleepers = load atomic i32, ptr %sleepers.p monotonic, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %weigh, label %awake

; Workers are awake: the way that took less (by an eighth, to share), and of 256 times four in a row the other one, to know what
; it takes now. The first two in a row do not count, there and back: they wait for data that lie in another core's cache, and
; after them every thread has its own.
awake:
  %turn.p = getelementptr i8, ptr %part, i64 {TURN}
  %turn.old = load i64, ptr %turn.p
  %turn = add i64 %turn.old, 1
  store i64 %turn, ptr %turn.p
  %low = and i64 %turn, 255
  %tries = icmp ult i64 %low, 4
  %late = and i64 %turn, 250  ; 0 in the runs 0, 1, 4 and 5 of 256
  %counts = icmp ne i64 %late, 0
  %margin = lshr i64 %shared, 3
  %equal = add i64 %shared, %margin
  %better = icmp ult i64 %alone, %equal
  %other = xor i1 %better, %tries
  %unknown = icmp eq i64 %alone, 0
  %single.now = or i1 %other, %unknown
  %alone.counts = or i1 %counts, %unknown
  br i1 %single.now, label %single, label %together
together:
  %code = call i32 @share(ptr %part, i1 false)
  %end = call i64 %clock()
  %took = sub i64 %end, %now
  call void @learn(ptr %shared.p, i64 %took, i1 %counts)
  store i64 %end, ptr %last.p
  ret i32 %code

; Workers sleep. Waking costs as much as a short run; it pays when runs follow one another, so that workers stay awake between
; them: once such runs took twice the time that waking takes, and twice as much each time they are found asleep again. After
; a pause that workers would have slept in, the account starts anew.
weigh:
  %last = load i64, ptr %last.p
  %pause = sub i64 %now, %last
  %patience.p = getelementptr i8, ptr %team, i64 {TEAM_SPIN_NS}
  %patience = load i64, ptr %patience.p
  %anew = icmp ugt i64 %pause, %patience
  %credit.p = getelementptr i8, ptr %team, i64 {TEAM_CREDIT}
  %credit.old = load i64, ptr %credit.p
  %credit.kept = select i1 %anew, i64 0, i64 %credit.old
  %credit = add i64 %credit.kept, %alone
  %backoff.p = getelementptr i8, ptr %team, i64 {TEAM_BACKOFF}
  %backoff.old = load i64, ptr %backoff.p
  %backoff = select i1 %anew, i64 0, i64 %backoff.old
  %cost.p = getelementptr i8, ptr %team, i64 {TEAM_WAKE_NS}
  %cost = load i64, ptr %cost.p
  %power = add i64 %backoff, 1
  %needed = shl i64 %cost, %power
  %pays = icmp ugt i64 %credit, %needed
  %rest = select i1 %pays, i64 0, i64 %credit
  store i64 %rest, ptr %credit.p
  %more = add i64 %backoff, 1
  %raised = call i64 @llvm.umin.i64(i64 %more, i64 6)
  %backoff.new = select i1 %pays, i64 %raised, i64 %backoff
  store i64 %backoff.new, ptr %backoff.p
  br i1 %pays, label %woken, label %single
woken:
  store i64 0, ptr %shared.p  ; learned anew, from the third time on
  %woken.turn = getelementptr i8, ptr %part, i64 {TURN}
  store i64 3, ptr %woken.turn
  %woken.code = call i32 @share(ptr %part, i1 true)
  %woken.end = call i64 %clock()
  %woken.took = sub i64 %woken.end, %now
  ; Alone it takes no longer than this on every thread: what was known may have been an accident.
  %threads.p = getelementptr i8, ptr %part, i64 {THREADS}
  %threads = load i64, ptr %threads.p
  %most = mul i64 %woken.took, %threads
  %least = call i64 @llvm.umin.i64(i64 %alone, i64 %most)
  store i64 %least, ptr %alone.p
  store i64 %woken.end, ptr %last.p
  ret i32 %woken.code
single:
  %single.counts = phi i1 [ %alone.counts, %awake ], [ true, %weigh ]
  %single.code = call i32 @run_serial(ptr %part)
  %single.end = call i64 %clock()
  %single.took = sub i64 %single.end, %now
  call void @learn(ptr %alone.p, i64 %single.took, i1 %single.counts)
  store i64 %single.end, ptr %last.p
  ret i32 %single.code
}}

; What something takes on average, from one time more if that counts. That a thread lost its CPU counts up to 64 times
; as much, but over 64 runs: where that happens often, running alone is better.
define internal void @learn(ptr %known.p, i64 %took, i1 %counts) nounwind {{
  %known = load i64, ptr %known.p
  %first = icmp eq i64 %known, 0
  %most = shl i64 %known, 6
  %bounded = call i64 @llvm.umin.i64(i64 %took, i64 %most)
  %more = sub i64 %bounded, %known
  %usual = shl i64 %known, 2
  %rare = icmp ugt i64 %took, %usual
  %window = select i1 %rare, i64 6, i64 3
  %part = ashr i64 %more, %window
  %mean = add i64 %known, %part
  %new = select i1 %first, i64 %took, i64 %mean
  %kept = select i1 %counts, i64 %new, i64 %known
  store i64 %kept, ptr %known.p
  ret void
}}
"""
