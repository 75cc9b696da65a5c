"""Small hand-written kernels for the runtime's tests, compiled once per process: name -> native address."""

from functools import cache

from tilewright.runtime.jit import default_library

_LOOP = """
define void @{name}(ptr %bufs, ptr %scratch, i64 %lo, i64 %hi, ptr %status) nounwind {{
entry:
  %a = load ptr, ptr %bufs
  %b.p = getelementptr ptr, ptr %bufs, i64 1
  %b = load ptr, ptr %b.p
  br label %head
head:
  %i = phi i64 [ %lo, %entry ], [ %next, %tail ]
  %more = icmp ult i64 %i, %hi
  br i1 %more, label %body, label %end
body:
  %a.i = getelementptr i64, ptr %a, i64 %i
  %b.i = getelementptr i64, ptr %b, i64 %i
{body}
  br label %tail
tail:
  %next = add i64 %i, 1
  br label %head
end:
  ret void
}}
"""

_BODIES = {
    # b[i] = a[i] + 1
    "increment": """
  %x = load i64, ptr %a.i
  %y = add i64 %x, 1
  store i64 %y, ptr %b.i""",
    # b[i] = a[n - 1 - i] + 1 with n in a[n]: the array's last element is its length
    "reverse": """
  %n.p = getelementptr i64, ptr %a, i64 1024
  %n = load i64, ptr %n.p
  %last = sub i64 %n, 1
  %j = sub i64 %last, %i
  %a.j = getelementptr i64, ptr %a, i64 %j
  %x = load i64, ptr %a.j
  %y = add i64 %x, 1
  store i64 %y, ptr %b.i""",
    # a[i] += 1 atomically: an item run twice or never shows
    "count": """
  %old = atomicrmw add ptr %a.i, i64 1 monotonic, align 8""",
    # reports code a[i] and the details (i, 5, 6) where a[i] is not zero
    "check": """
  %x = load i64, ptr %a.i
  %bad = icmp ne i64 %x, 0
  br i1 %bad, label %report, label %tail
report:
  %code = trunc i64 %x to i32
  store i32 %code, ptr %status
  %s1 = getelementptr i32, ptr %status, i64 1
  %where = trunc i64 %i to i32
  store i32 %where, ptr %s1
  %s2 = getelementptr i32, ptr %status, i64 2
  store i32 5, ptr %s2
  %s3 = getelementptr i32, ptr %status, i64 3
  store i32 6, ptr %s3""",
    # b[i] = the scratch word, after writing a[i] through it; and 1 << 20 where scratch is not 64-byte aligned
    "through_scratch": """
  %x = load i64, ptr %a.i
  %word = getelementptr i8, ptr %scratch, i64 8184
  store volatile i64 %x, ptr %word
  %y = load volatile i64, ptr %word
  %address = ptrtoint ptr %scratch to i64
  %low = and i64 %address, 63
  %aligned = icmp eq i64 %low, 0
  %penalty = select i1 %aligned, i64 0, i64 1048576
  %z = add i64 %y, %penalty
  store i64 %z, ptr %b.i""",
    # b[i] = a[0] + … + a[1023]: needs everything an earlier launch wrote
    "total": """
  br label %sum
sum:
  %k = phi i64 [ 0, %body ], [ %k.next, %sum ]
  %acc = phi i64 [ 0, %body ], [ %acc.next, %sum ]
  %a.k = getelementptr i64, ptr %a, i64 %k
  %x = load i64, ptr %a.k
  %acc.next = add i64 %acc, %x
  %k.next = add i64 %k, 1
  %go = icmp ult i64 %k.next, 1024
  br i1 %go, label %sum, label %write
write:
  store i64 %acc.next, ptr %b.i""",
    # b[i] = lo, and b[i] + the chunk's length in a[i]: shows the ranges that kernels are called with
    "ranges": """
  store i64 %lo, ptr %b.i
  %length = sub i64 %hi, %lo
  store i64 %length, ptr %a.i""",
    # keeps a core busy for a[i] rounds, then counts like `count`
    "work": """
  %rounds = load i64, ptr %b.i
  br label %spin
spin:
  %r = phi i64 [ 0, %body ], [ %r.next, %spin ]
  %word = load volatile i64, ptr %b.i
  %r.next = add i64 %r, 1
  %go = icmp ult i64 %r.next, %rounds
  br i1 %go, label %spin, label %finish
finish:
  %old = atomicrmw add ptr %a.i, i64 1 monotonic, align 8""",
}


def kernel_source(name: str) -> str:
    """LLVM IR text of the kernel `name`."""
    return _LOOP.format(name=f"test_{name}", body=_BODIES[name])


@cache
def kernel(name: str) -> int:
    """Address of the kernel `name`."""
    everything = [(f"test_{other}", kernel_source(other), "") for other in _BODIES]
    return default_library().compile(everything)[f"test_{name}"]
