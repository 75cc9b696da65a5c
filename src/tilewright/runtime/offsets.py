"""Where everything lies in the native tables: byte offsets and sizes that the driver's IR and the Python side share.

Numbers only; ``driver`` holds the code that walks the tables, ``program`` and ``team`` fill them.
"""

from __future__ import annotations

__all__ = [
    "ALONE_NS",
    "ARGS",
    "ARG_COUNT",
    "ARG_OFFSETS",
    "ARG_SLOTS",
    "CHUNK_LIMIT",
    "LAUNCHES",
    "LAUNCH_BYTES",
    "LAUNCH_COUNT",
    "LAZY",
    "LINE",
    "LOOK",
    "LOOK_WORDS",
    "PART_BYTES",
    "PART_TEAM",
    "PROFILE",
    "PROFILE_WORDS",
    "RECORD_WORDS",
    "RUN_WORD",
    "SEGMENT_BYTES",
    "SHARED_NS",
    "SLOTS",
    "STATUS",
    "STRIDE",
    "TEAM_BACKOFF",
    "TEAM_BYTES",
    "TEAM_CLOCK",
    "TEAM_CPU",
    "TEAM_CREDIT",
    "TEAM_HAZARDS",
    "TEAM_LAST",
    "TEAM_MASKS",
    "TEAM_MASK_BYTES",
    "TEAM_MASK_COUNT",
    "TEAM_PROGRAM",
    "TEAM_RESUME",
    "TEAM_SCRATCH",
    "TEAM_SIGNAL",
    "TEAM_SIZE",
    "TEAM_SLEEP",
    "TEAM_SLEEPERS",
    "TEAM_SPINS",
    "TEAM_SPIN_NS",
    "TEAM_STOP",
    "TEAM_TIDS",
    "TEAM_WAKE",
    "TEAM_WAKE_NS",
    "TEAM_YIELD",
    "THREADS",
    "THREAD_LIMIT",
    "TURN",
    "WAKE_LIMIT",
]

LINE = 64  # words that different threads write are a cache line apart
CHUNK_LIMIT = 1 << 24  # chunks of one launch: the claim word's low bits
THREAD_LIMIT = 1 << 10

# The team's control block.
TEAM_SIGNAL = 0  # i32, the futex word: counts published runs
TEAM_PROGRAM = 8  # ptr: the part published last, or null. Who sees the signal has it
TEAM_SLEEPERS = 64  # i32
TEAM_STOP = 192  # i32
TEAM_SPINS = 196  # i32: pauses of an idle worker before it sleeps
TEAM_HAZARDS = 200  # ptr: a line per thread, holding the part that thread is looking at
TEAM_SCRATCH = 208  # ptr: scratch memory of each thread
TEAM_SLEEP = 216  # ptr to void (ptr team, i32 seen)
TEAM_WAKE = 224  # ptr to void (ptr team, i32 count)
TEAM_YIELD = 232  # ptr to i32 ()
TEAM_CLOCK = 240  # ptr to i64 (): nanoseconds
# What the caller knows of runs of lazy parts. Only it reads and writes these.
TEAM_LAST = 256  # i64: when the last run of a lazy part ended
TEAM_CREDIT = 264  # i64: nanoseconds that those took that found sleepers, one right after the other
TEAM_WAKE_NS = 272  # i64: what waking took the last time
TEAM_BACKOFF = 280  # i64: how often they were woken and found asleep again between such runs
TEAM_SPIN_NS = 288  # i64: how long an idle worker waits before it sleeps
TEAM_RESUME = 296  # i64: until when lazy parts run alone
# Where workers may run: not on the caller's CPU, where the system likes to put what is woken.
TEAM_CPU = 320  # i64: the caller's CPU when they were placed last; -1: not yet
TEAM_TIDS = 328  # ptr to i32: the system's number of each thread; 0 for one that has not started
TEAM_SIZE = 336  # i64
TEAM_MASKS = (
    344  # ptr to a CPU mask for each CPU that the caller may be on, or null: workers stay where they are put
)
TEAM_MASK_COUNT = 352
TEAM_MASK_BYTES = 360
TEAM_BYTES = 384

# A native part's header.
RUN_WORD = 0
PART_TEAM = 64  # ptr
LAUNCH_COUNT = 72
LAUNCHES = 80  # ptr to launch records
SLOTS = 88  # ptr to the run's pointer table
ARG_COUNT = 96
ARG_SLOTS = 104  # ptr to i64: slot of each argument
ARG_OFFSETS = 112  # ptr to i64: byte offset of each argument
ARGS = 120  # ptr to ptr: resolved arguments
STATUS = 128  # ptr to i32[4]
PROFILE = 136  # ptr or null
THREADS = 144  # threads of the next run
WAKE_LIMIT = 152  # sleeping workers worth waking
STRIDE = 160  # threads the state tables have room for
# What the caller of a lazy part has learned, on a line of its own.
LAZY = 192  # whether to choose between running alone and with the workers by what each took
ALONE_NS = 200  # nanoseconds alone; 0: not known
SHARED_NS = 208  # with workers that were awake
TURN = 216  # counts runs that found workers awake
PART_BYTES = 256

# A launch record: kernel, chunks, segments, wait_for, state, (unused) … ; state is the done line, then a
# line per thread.
LAUNCH_BYTES = 64
# A segment record: first chunk, grid, chunk, arguments. A launch's last segment is followed by one that
# starts at `chunks`.
SEGMENT_BYTES = 32
# Profile row of (launch, thread): first start, last end, busy, chunks; nanoseconds.
PROFILE_WORDS = 4

# A sequence: the number of its records, then a pointer to them. A record is a native part (its run function, its
# header), a loop (null, a block of LOOK or null, the sequence of the body, iterations, number of slots, their bindings, the
# pointer table around the loop, the body's, number of swaps, their rows, slot of the condition or -1, 0) or a choice
# (null, null, pointers to the branches' sequences, 0, slots, bindings and tables as for a loop, 0, 0, slot of the
# selector, number of branches). A binding: slot of the table around, byte offset, bytes from one iteration to the next.
# A row of swaps: two slots of the body's table, bytes of what lies there.
RECORD_WORDS = 12

# What loops look at that may be stopped: the function that is asked, the clock, when it was asked last; then what it asks
# Python with. By words.
LOOK = {
    name: 8 * number
    for number, name in enumerate(("ask", "clock", "asked", "getsignal", "number", "handler", "expected"))
}
LOOK_WORDS = len(LOOK)
