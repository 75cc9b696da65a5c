"""Whether a run is shared with the workers: LLVM IR text of the driver's `run`, which `driver` puts beside the rest.

Sharing a short program may cost more than it gives: waking a worker takes as long as many a program runs, data in the caller's
cache is far from another core, and a worker that the system took the CPU from is waited for. No estimate knows these, so a
lazy part keeps what it took either way, and whichever was less is done. The chunks are the same, and so are the results.

A part knows the least that either way took, which comes up slowly where runs take longer: what disturbs a run says nothing of
the next one. Where a worker has lost its CPU in the middle of a chunk, which costs a thousand short runs, no short part is
shared for some time, so that this costs a small part of the whole.
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
    TEAM_RESUME,
    TEAM_SLEEPERS,
    TEAM_SPIN_NS,
    TEAM_WAKE_NS,
    TURN,
)

__all__ = ["CHOOSE"]

_FIRST = (
    8  # the turn of the first try; the next ones are at 16, 32, ..., and from the last on in every so many
)
_LAST = 256
_TRIES = 2  # runs of a try: in the first, data move to where they are worked on
_LOSS_NS = 200_000  # more than a run of a lazy part and a wake-up can take
_REST = 2  # runs stay alone for 1 << 2 times as long

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
  %turn.p = getelementptr i8, ptr %part, i64 {TURN}
  %turn.old = load i64, ptr %turn.p
  %last.p = getelementptr i8, ptr %team, i64 {TEAM_LAST}
  %before = call i1 @alone_takes_less(ptr %part)
  %resume.p = getelementptr i8, ptr %team, i64 {TEAM_RESUME}
  %resume = load i64, ptr %resume.p
  %rests = icmp slt i64 %now, %resume
  br i1 %rests, label %single, label %ready
ready:
  %sleepers.p = getelementptr i8, ptr %team, i64 {TEAM_SLEEPERS}
  %sleepers = load atomic i32, ptr %sleepers.p monotonic, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %weigh, label %awake

; Workers are awake: the way that took less, and now and then some times in a row the other one, to know what it takes now:
; soon after the choice has changed, then ever more seldom.
awake:
  %turn.next = add i64 %turn.old, 1
  %wraps = icmp eq i64 %turn.next, {2 * _LAST}
  %turn = select i1 %wraps, i64 {_LAST}, i64 %turn.next
  store i64 %turn, ptr %turn.p
  %zeros = call i64 @llvm.ctlz.i64(i64 %turn, i1 false)
  %top = lshr i64 {-(2**63)}, %zeros
  %since = sub i64 %turn, %top
  %begun = icmp uge i64 %turn, {_FIRST}
  %few = icmp ult i64 %since, {_TRIES}
  %tries = and i1 %begun, %few
  %other = xor i1 %before, %tries
  %unknown = icmp eq i64 %alone, 0
  %single.now = or i1 %other, %unknown
  br i1 %single.now, label %single, label %together
together:
  %code = call i32 @share(ptr %part, i1 false)
  %end = call i64 %clock()
  %took = sub i64 %end, %now
  call void @learn(ptr %shared.p, i64 %took)
  call void @rest_after_loss(ptr %team, i64 %alone, i64 %took, i64 %end)
  br label %learned

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
  %turn.anew = select i1 %anew, i64 0, i64 %turn.old  ; what was learned before the pause is soon tried
  store i64 %turn.anew, ptr %turn.p
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
  %woken.code = call i32 @share(ptr %part, i1 true)
  %woken.end = call i64 %clock()
  %woken.took = sub i64 %woken.end, %now
  call void @rest_after_loss(ptr %team, i64 %alone, i64 %woken.took, i64 %woken.end)
  store i64 %woken.end, ptr %last.p
  ret i32 %woken.code
single:
  %single.code = call i32 @run_serial(ptr %part)
  %single.end = call i64 %clock()
  %single.took = sub i64 %single.end, %now
  call void @learn(ptr %alone.p, i64 %single.took)
  br label %learned
learned:
  %learned.code = phi i32 [ %code, %together ], [ %single.code, %single ]
  %learned.end = phi i64 [ %end, %together ], [ %single.end, %single ]
  %after = call i1 @alone_takes_less(ptr %part)
  %changed = xor i1 %before, %after
  %turn.now = load i64, ptr %turn.p
  %turn.new = select i1 %changed, i64 0, i64 %turn.now
  store i64 %turn.new, ptr %turn.p
  store i64 %learned.end, ptr %last.p
  ret i32 %learned.code
}}

; Whether a part takes less time alone, or not an eighth more.
define internal i1 @alone_takes_less(ptr %part) nounwind {{
  %alone.p = getelementptr i8, ptr %part, i64 {ALONE_NS}
  %alone = load i64, ptr %alone.p
  %shared.p = getelementptr i8, ptr %part, i64 {SHARED_NS}
  %shared = load i64, ptr %shared.p
  %margin = lshr i64 %shared, 3
  %equal = add i64 %shared, %margin
  %less = icmp ult i64 %alone, %equal
  ret i1 %less
}}

; The least that something takes. A run that took longer raises it by a part of that, at most by a sixteenth.
define internal void @learn(ptr %known.p, i64 %took) nounwind {{
  %known = load i64, ptr %known.p
  %first = icmp eq i64 %known, 0
  %less = icmp ult i64 %took, %known
  %takes = or i1 %first, %less
  %more = sub i64 %took, %known
  %bounded = call i64 @llvm.umin.i64(i64 %more, i64 %known)
  %part = lshr i64 %bounded, 4
  %raised = add i64 %known, %part
  %new = select i1 %takes, i64 %took, i64 %raised
  store i64 %new, ptr %known.p
  ret void
}}

; Runs stay alone for some time after one in which a worker lost its CPU.
define internal void @rest_after_loss(ptr %team, i64 %alone, i64 %took, i64 %end) nounwind {{
entry:
  %twice = shl i64 %alone, 1
  %most = add i64 %twice, {_LOSS_NS}
  %lost = icmp ugt i64 %took, %most
  br i1 %lost, label %rest, label %done
rest:
  %pause = shl i64 %took, {_REST}
  %until = add i64 %end, %pause
  %resume.p = getelementptr i8, ptr %team, i64 {TEAM_RESUME}
  store i64 %until, ptr %resume.p
  br label %done
done:
  ret void
}}
"""
