"""Sequences, loops and choices: LLVM IR text of the driver that walks stages which do not overlap.

A sequence is a number of records, each a native part, a loop over a sequence, or a choice between several; `offsets` says how a
record lies in memory. Everything here runs on the calling thread; a part shares its launches with the workers by itself
(`driver`).
"""

from __future__ import annotations

from tilewright.runtime.offsets import LOOK, RECORD_WORDS

__all__ = ["SEQUENCE"]

_ASK_NS = 100_000_000  # how often a loop asks whether it is to stop: asking takes the GIL
_QUICK_NS, _SLOW_NS = (
    1_000_000,
    8_000_000,
)  # between two looks at the clock: then fewer of them, or one every iteration

SEQUENCE = f"""
; Stages one after the other on the calling thread, until one reports a status; returns it.
define internal i32 @sequence(ptr %sequence) nounwind {{
entry:
  %count = load i64, ptr %sequence
  %records.p = getelementptr i8, ptr %sequence, i64 8
  %records = load ptr, ptr %records.p
  br label %head
head:
  %r = phi i64 [ 0, %entry ], [ %r.next, %next ]
  %more = icmp ult i64 %r, %count
  br i1 %more, label %body, label %done
body:
  %offset = mul i64 %r, {8 * RECORD_WORDS}
  %record = getelementptr i8, ptr %records, i64 %offset
  %inner.p = getelementptr i8, ptr %record, i64 16
  %inner = load ptr, ptr %inner.p
  %plain = icmp eq ptr %inner, null
  br i1 %plain, label %part, label %nested
nested:
  %branches.p = getelementptr i8, ptr %record, i64 88
  %branches = load i64, ptr %branches.p
  %repeats = icmp eq i64 %branches, 0
  br i1 %repeats, label %loop, label %choice
part:
  %run = load ptr, ptr %record
  %part.p = getelementptr i8, ptr %record, i64 8
  %header = load ptr, ptr %part.p
  %part.code = call i32 %run(ptr %header)
  br label %check
loop:
  %loop.code = call i32 @loop(ptr %record, ptr %inner)
  br label %check
choice:
  %choice.code = call i32 @choice(ptr %record, ptr %inner, i64 %branches)
  br label %check
check:
  %code = phi i32 [ %part.code, %part ], [ %loop.code, %loop ], [ %choice.code, %choice ]
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %stop, label %next
next:
  %r.next = add i64 %r, 1
  br label %head
stop:
  ret i32 %code
done:
  ret i32 0
}}

; Fill the pointer table of a loop's body or of branches from the one around it.
define internal void @bind(ptr %record) nounwind {{
entry:
  %slots.p = getelementptr i8, ptr %record, i64 32
  %slots = load i64, ptr %slots.p
  %bindings.p = getelementptr i8, ptr %record, i64 40
  %bindings = load ptr, ptr %bindings.p
  %outer.p = getelementptr i8, ptr %record, i64 48
  %outer = load ptr, ptr %outer.p
  %table.p = getelementptr i8, ptr %record, i64 56
  %table = load ptr, ptr %table.p
  br label %head
head:
  %b = phi i64 [ 0, %entry ], [ %b.next, %bind ]
  %more = icmp ult i64 %b, %slots
  br i1 %more, label %bind, label %done
bind:
  %offset = mul i64 %b, 24
  %slot.p = getelementptr i8, ptr %bindings, i64 %offset
  %slot = load i64, ptr %slot.p
  %base.p = getelementptr ptr, ptr %outer, i64 %slot
  %base = load ptr, ptr %base.p
  %at.p = getelementptr i8, ptr %slot.p, i64 8
  %at = load i64, ptr %at.p
  %start = getelementptr i8, ptr %base, i64 %at
  %own.p = getelementptr ptr, ptr %table, i64 %b
  store ptr %start, ptr %own.p
  %b.next = add i64 %b, 1
  br label %head
done:
  ret void
}}

; A choice: the one branch whose number the selector holds, or the nearest there is.
define internal i32 @choice(ptr %record, ptr %sequences, i64 %branches) nounwind {{
  call void @bind(ptr %record)
  %table.p = getelementptr i8, ptr %record, i64 56
  %table = load ptr, ptr %table.p
  %slot.p = getelementptr i8, ptr %record, i64 80
  %slot = load i64, ptr %slot.p
  %selector.p = getelementptr ptr, ptr %table, i64 %slot
  %selector = load ptr, ptr %selector.p
  %number = load i32, ptr %selector
  %wide = sext i32 %number to i64
  %low = call i64 @llvm.smax.i64(i64 %wide, i64 0)
  %last = sub i64 %branches, 1
  %chosen = call i64 @llvm.smin.i64(i64 %low, i64 %last)
  %sequence.p = getelementptr ptr, ptr %sequences, i64 %chosen
  %sequence = load ptr, ptr %sequence.p
  %code = call i32 @sequence(ptr %sequence)
  ret i32 %code
}}
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.smin.i64(i64, i64)

; Whether a loop is to stop. It reads the clock at its own pace (iterations until the next look, and between two looks; when
; the last one was), and asks when a while has passed since anybody did.
define internal i1 @look(ptr %block, ptr %pace) noinline nounwind {{
entry:
  %clock.p = getelementptr i8, ptr %block, i64 {LOOK["clock"]}
  %clock = load ptr, ptr %clock.p
  %now = call i64 %clock()
  %every.p = getelementptr i64, ptr %pace, i64 1
  %every = load i64, ptr %every.p
  %seen.p = getelementptr i64, ptr %pace, i64 2
  %seen = load i64, ptr %seen.p
  %since = sub i64 %now, %seen
  %quick = icmp ult i64 %since, {_QUICK_NS}
  %slow = icmp ugt i64 %since, {_SLOW_NS}
  %doubled = shl i64 %every, 1
  %same = select i1 %quick, i64 %doubled, i64 %every
  %next = select i1 %slow, i64 1, i64 %same
  store i64 %next, ptr %pace
  store i64 %next, ptr %every.p
  store i64 %now, ptr %seen.p
  %asked.p = getelementptr i8, ptr %block, i64 {LOOK["asked"]}
  %asked = load i64, ptr %asked.p
  %passed = sub i64 %now, %asked
  %due = icmp uge i64 %passed, {_ASK_NS}
  br i1 %due, label %ask, label %on
ask:
  store i64 %now, ptr %asked.p
  %ask.p = getelementptr i8, ptr %block, i64 {LOOK["ask"]}
  %ask.f = load ptr, ptr %ask.p
  %answer = call i32 %ask.f(ptr %block)
  %stop = icmp ne i32 %answer, 0
  ret i1 %stop
on:
  ret i1 false
}}

; A loop: its body has a pointer table of its own; from one iteration to the next each pointer moves by its stride,
; and pairs trade places. One with a condition ends before an iteration that finds it zero. Nobody knew whether the
; number of trades would be even, so after an odd one what lies in a second place is copied to the first.
; One that is given something to look at (null otherwise) may be stopped between two iterations; its status is then -2.
define internal i32 @loop(ptr %record, ptr %inner) nounwind {{
entry:
  %pace = alloca [3 x i64]
  store [3 x i64] [i64 1, i64 1, i64 0], ptr %pace
  %block.p = getelementptr i8, ptr %record, i64 8
  %block = load ptr, ptr %block.p
  %unasked = icmp eq ptr %block, null
  call void @bind(ptr %record)
  %count.p = getelementptr i8, ptr %record, i64 24
  %count = load i64, ptr %count.p
  %slots.p = getelementptr i8, ptr %record, i64 32
  %slots = load i64, ptr %slots.p
  %bindings.p = getelementptr i8, ptr %record, i64 40
  %bindings = load ptr, ptr %bindings.p
  %table.p = getelementptr i8, ptr %record, i64 56
  %table = load ptr, ptr %table.p
  %swaps.p = getelementptr i8, ptr %record, i64 64
  %swaps = load i64, ptr %swaps.p
  %pairs.p = getelementptr i8, ptr %record, i64 72
  %pairs = load ptr, ptr %pairs.p
  %condition.p = getelementptr i8, ptr %record, i64 80
  %condition = load i64, ptr %condition.p
  %counted = icmp slt i64 %condition, 0
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %swap.head ]
  br i1 %counted, label %compare, label %look
compare:
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
look:
  %flag.p = getelementptr ptr, ptr %table, i64 %condition
  %flag.at = load ptr, ptr %flag.p
  %flag = load i8, ptr %flag.at
  %over = icmp eq i8 %flag, 0
  br i1 %over, label %over.head, label %body
over.head:
  %odd = trunc i64 %i to i1
  br i1 %odd, label %home.head, label %done
home.head:
  %h = phi i64 [ 0, %over.head ], [ %h.next, %home ]
  %h.more = icmp ult i64 %h, %swaps
  br i1 %h.more, label %home, label %done
home:
  %h.offset = mul i64 %h, 24
  %h.row = getelementptr i8, ptr %pairs, i64 %h.offset
  %h.first = load i64, ptr %h.row
  %h.second.p = getelementptr i8, ptr %h.row, i64 8
  %h.second = load i64, ptr %h.second.p
  %h.bytes.p = getelementptr i8, ptr %h.row, i64 16
  %h.bytes = load i64, ptr %h.bytes.p
  %h.x.p = getelementptr ptr, ptr %table, i64 %h.first
  %h.y.p = getelementptr ptr, ptr %table, i64 %h.second
  %h.x = load ptr, ptr %h.x.p
  %h.y = load ptr, ptr %h.y.p
  call void @llvm.memcpy.p0.p0.i64(ptr %h.y, ptr %h.x, i64 %h.bytes, i1 false)
  %h.next = add i64 %h, 1
  br label %home.head
body:
  %code = call i32 @sequence(ptr %inner)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %stop, label %going
going:
  br i1 %unasked, label %move.start, label %pass
pass:
  %left = load i64, ptr %pace
  %left.now = sub i64 %left, 1
  store i64 %left.now, ptr %pace
  %turn = icmp eq i64 %left.now, 0
  br i1 %turn, label %clock, label %move.start
clock:
  %stopped = call i1 @look(ptr %block, ptr %pace)
  br i1 %stopped, label %interrupted, label %move.start
interrupted:
  ret i32 -2
move.start:
  br label %move.head
move.head:
  %m = phi i64 [ 0, %move.start ], [ %m.next, %move ]
  %m.more = icmp ult i64 %m, %slots
  br i1 %m.more, label %move, label %swap.start
move:
  %m.offset = mul i64 %m, 24
  %m.row = getelementptr i8, ptr %bindings, i64 %m.offset
  %stride.p = getelementptr i8, ptr %m.row, i64 16
  %stride = load i64, ptr %stride.p
  %place.p = getelementptr ptr, ptr %table, i64 %m
  %place = load ptr, ptr %place.p
  %moved = getelementptr i8, ptr %place, i64 %stride
  store ptr %moved, ptr %place.p
  %m.next = add i64 %m, 1
  br label %move.head
swap.start:
  %i.next = add i64 %i, 1
  br label %swap.head
swap.head:
  %s = phi i64 [ 0, %swap.start ], [ %s.next, %swap ]
  %s.more = icmp ult i64 %s, %swaps
  br i1 %s.more, label %swap, label %head
swap:
  %s.offset = mul i64 %s, 24
  %pair = getelementptr i8, ptr %pairs, i64 %s.offset
  %first = load i64, ptr %pair
  %second.p = getelementptr i8, ptr %pair, i64 8
  %second = load i64, ptr %second.p
  %x.p = getelementptr ptr, ptr %table, i64 %first
  %y.p = getelementptr ptr, ptr %table, i64 %second
  %x = load ptr, ptr %x.p
  %y = load ptr, ptr %y.p
  store ptr %y, ptr %x.p
  store ptr %x, ptr %y.p
  %s.next = add i64 %s, 1
  br label %swap.head
stop:
  ret i32 %code
done:
  ret i32 0
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""
