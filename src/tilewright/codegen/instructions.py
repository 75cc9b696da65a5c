"""Scalar operations as LLVM instructions: one value or a whole vector of lanes at a time.

`lower` turns an operation of the scalar vocabulary, `convert` a cast, `bits` a bitcast into instructions of a `Writer`. Operands
and results are texts of SSA values or constants. It knows nothing of loops, buffers or scopes.

Values in registers: bool is `i1`; float16 and bfloat16 are their bits as `i16`, so that no calling convention and no compiler
support routine is ever involved; every other type is LLVM's own. Half types are computed in float and rounded once.
"""

from __future__ import annotations

import struct
from typing import Protocol

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.verify import KernelError

__all__ = [
    "Machine",
    "Writer",
    "bits",
    "constant",
    "convert",
    "dot_accumulate",
    "fused",
    "iota",
    "lower",
    "of_type",
    "type_name",
]


class Machine(Protocol):
    """What of the target decides which instructions are written."""

    @property
    def vector_bytes(self) -> int: ...
    @property
    def has_masks(self) -> bool: ...
    @property
    def has_fma(self) -> bool: ...
    @property
    def has_f16(self) -> bool: ...
    @property
    def dots(self) -> frozenset[str]: ...
    @property
    def streams(self) -> bool: ...


class Writer(Protocol):
    """Where instructions go."""

    machine: Machine

    def write(self, instruction: str) -> str:
        """Append an instruction without side effects; returns the name of its value (equal text, equal name)."""
        ...

    def call(self, result: str, name: str, *args: tuple[str, str], flags: str = "") -> str:
        """Append a call of a declared pure function; ``args`` are (type, value) pairs, ``flags`` what floats need not keep."""
        ...

    def intrinsic(self, result: str, name: str, *args: tuple[str, str]) -> str:
        """Append a call of a pure function of exactly this name."""
        ...

    def declare(self, name: str, result: str, *operands: str) -> None:
        """Add a declaration of a function of exactly this name to the module once."""
        ...

    def define(self, name: str, text: str) -> None:
        """Add a function definition to the module once."""
        ...


_SCALAR = {d: f"i{d.bits}" for d in dt.ALL if d.is_integer}
_SCALAR |= {dt.bool_: "i1", dt.float16: "i16", dt.bfloat16: "i16", dt.float32: "float", dt.float64: "double"}
_SCALAR |= dict.fromkeys(dt.STORAGE, "i8")
_TYPES: dict[tuple[str, int], str] = {}


def of_type(scalar: str, lanes: int) -> str:
    """The LLVM type of ``lanes`` values of type ``scalar`` (0 lanes: one plain value)."""
    return f"<{lanes} x {scalar}>" if lanes else scalar


def type_name(dtype: DType, lanes: int = 0) -> str:
    """The LLVM type of a value in registers."""
    return of_type(_SCALAR[dtype], lanes)


def _literal(value: bool | int | float, dtype: DType) -> str:
    if dtype.is_bool:
        return "true" if value else "false"
    if dtype.is_integer:
        return str(int(value))
    with np.errstate(all="ignore"):
        rounded = np.asarray(value, np.float64).astype(dtype.numpy)
    if dtype.is_storage:
        return str(int(rounded.view(np.uint8)))
    if dtype.bits == 16:
        return str(int(rounded.view(np.uint16)))
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(rounded)))[0]:016X}"


def constant(value: bool | int | float, dtype: DType, lanes: int = 0) -> str:
    """The text of a constant, the same in every lane."""
    text = _literal(value, dtype)
    return f"splat ({_SCALAR[dtype]} {text})" if lanes else text


def iota(scalar: str, lanes: int, step: int = 1, start: int = 0) -> str:
    """The constant vector start, start + step, ... of an integer type."""
    return "<" + ", ".join(f"{scalar} {start + step * i}" for i in range(lanes)) + ">"


# ---- 16-bit floats ------------------------------------------------------------------------------------------------


class _Ints:
    """Short names for 32-bit integer work on ``lanes`` lanes."""

    def __init__(self, out: Writer, lanes: int) -> None:
        self.out, self.lanes = out, lanes
        self.i1, self.i16, self.i32 = (of_type(t, lanes) for t in ("i1", "i16", "i32"))
        self.f32 = of_type("float", lanes)

    def const(self, value: int) -> str:
        return f"splat (i32 {value})" if self.lanes else str(value)

    def __call__(self, op: str, a: str, b: str | int) -> str:
        return self.out.write(f"{op} {self.i32} {a}, {self.const(b) if isinstance(b, int) else b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.out.write(f"select {self.i1} {condition}, {self.i32} {a}, {self.i32} {b}")

    def as_float(self, x: str) -> str:
        return self.out.write(f"bitcast {self.i32} {x} to {self.f32}")

    def of_float(self, x: str) -> str:
        return self.out.write(f"bitcast {self.f32} {x} to {self.i32}")

    def to_i16(self, x: str) -> str:
        return self.out.write(f"trunc {self.i32} {x} to {self.i16}")


def _widen(out: Writer, dtype: DType, lanes: int, x: str) -> str:
    """The float32 value of float16 or bfloat16 bits; exact."""
    i = _Ints(out, lanes)
    if dtype is dt.float16 and out.machine.has_f16:
        half = of_type("half", lanes)
        return out.write(f"fpext {half} {out.write(f'bitcast {i.i16} {x} to {half}')} to {i.f32}")
    wide = out.write(f"zext {i.i16} {x} to {i.i32}")
    if dtype is dt.bfloat16:
        return i.as_float(i("shl", wide, 16))
    # The exponent's bias differs by 112: scaling by 2^112 also normalises subnormal numbers.
    magnitude = i("shl", i("and", wide, 0x7FFF), 13)
    scale = constant(2.0**112, dt.float32, lanes)
    finite = i.of_float(out.write(f"fmul {i.f32} {i.as_float(magnitude)}, {scale}"))
    special = i("icmp uge", magnitude, 0x7C00 << 13)
    value = i.select(special, i("or", magnitude, 0x7F800000), finite)
    return i.as_float(i("or", value, i("shl", i("and", wide, 0x8000), 16)))


def _narrow(out: Writer, dtype: DType, lanes: int, x: str) -> str:
    """Float32 rounded to nearest even as float16 or bfloat16 bits."""
    i = _Ints(out, lanes)
    if dtype is dt.float16 and out.machine.has_f16:
        half = of_type("half", lanes)
        return out.write(f"bitcast {half} {out.write(f'fptrunc {i.f32} {x} to {half}')} to {i.i16}")
    value = i.of_float(x)
    nan = out.write(f"fcmp uno {i.f32} {x}, zeroinitializer" if lanes else f"fcmp uno float {x}, 0.0")
    if dtype is dt.bfloat16:
        high = i("lshr", value, 16)
        rounded = i("lshr", i("add", i("add", value, 0x7FFF), i("and", high, 1)), 16)
        return i.to_i16(i.select(nan, i("or", high, 0x40), rounded))
    magnitude = i("and", value, 0x7FFFFFFF)
    sign = i("lshr", i("and", value, 0x80000000), 16)
    odd = i("and", i("lshr", magnitude, 13), 1)
    normal = i("lshr", i("add", i("add", magnitude, 0xFFF - (112 << 23)), odd), 13)
    # Adding 0.5, whose last place is float16's smallest number, rounds subnormal results.
    half_bits = 0x3F000000
    shifted = out.write(f"fadd {i.f32} {i.as_float(magnitude)}, {constant(0.5, dt.float32, lanes)}")
    tiny = i("sub", i.of_float(shifted), half_bits)
    result = i.select(i("icmp ult", magnitude, 0x38800000), tiny, normal)
    result = i.select(i("icmp uge", magnitude, 0x477FF000), i.const(0x7C00), result)
    result = i.select(nan, i.const(0x7E00), result)
    return i.to_i16(i("or", result, sign))


def _to_odd(out: Writer, lanes: int, x: str) -> str:
    """A double as float rounded to odd, so that rounding once more to 16 bits rounds the double itself."""
    i = _Ints(out, lanes)
    f64 = of_type("double", lanes)
    near = out.write(f"fptrunc {f64} {x} to {i.f32}")
    back = out.write(f"fpext {i.f32} {near} to {f64}")
    size, back_size = out.call(f64, "llvm.fabs", (f64, x)), out.call(f64, "llvm.fabs", (f64, back))
    away = out.write(f"zext {i.i1} {out.write(f'fcmp ogt {f64} {back_size}, {size}')} to {i.i32}")
    inexact = out.write(f"zext {i.i1} {out.write(f'fcmp one {f64} {back_size}, {size}')} to {i.i32}")
    return i.as_float(i("or", i("sub", i.of_float(near), away), inexact))


# ---- conversions --------------------------------------------------------------------------------------------------


def convert(out: Writer, source: DType, to: DType, lanes: int, x: str) -> str:
    """``x`` of type ``source`` as ``to`` with the meaning of ``core.scalar.cast_numpy``."""
    if source is to:
        return x
    if source.is_float and source.bits == 16:
        x, source = _widen(out, source, lanes, x), dt.float32
        if source is to:
            return x
    old, new = type_name(source, lanes), type_name(to, lanes)
    if to.is_bool:
        zero = constant(0, source, lanes)
        return out.write(f"fcmp une {old} {x}, {zero}" if source.is_float else f"icmp ne {old} {x}, {zero}")
    if to.is_float and to.bits == 16:
        if source is dt.float64:
            x = _to_odd(out, lanes, x)
        else:
            x = convert(out, source, dt.float32, lanes, x)
        return _narrow(out, to, lanes, x)
    if source.is_float and to.is_float:
        return out.write(f"{'fpext' if to.bits > source.bits else 'fptrunc'} {old} {x} to {new}")
    if source.is_float:
        return out.call(new, f"llvm.fpto{'s' if to.kind == 'i' else 'u'}i.sat", (old, x))
    if to.is_float:
        return out.write(f"{'sitofp' if source.kind == 'i' else 'uitofp'} {old} {x} to {new}")
    width = 1 if source.is_bool else source.bits
    if width == to.bits:
        return x
    kind = "trunc" if to.bits < width else "sext" if source.kind == "i" else "zext"
    return out.write(f"{kind} {old} {x} to {new}")


def bits(out: Writer, source: DType, to: DType, lanes: int, x: str) -> str:
    """The bits of ``x`` as another type of the same width."""
    old, new = type_name(source, lanes), type_name(to, lanes)
    if source.is_bool or to.is_bool:  # a bool is a byte of 0 or 1 in memory and one bit in registers
        byte = of_type("i8", lanes)
        if source.is_bool:
            return out.write(f"zext {old} {x} to {byte}")
        return out.write(f"icmp ne {byte} {x}, {constant(0, dt.int8, lanes)}")
    return x if old == new else out.write(f"bitcast {old} {x} to {new}")


# ---- operations ---------------------------------------------------------------------------------------------------

_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_FLOAT_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_ARITHMETIC = {"add": "add", "sub": "sub", "mul": "mul", "bitand": "and", "bitor": "or", "bitxor": "xor"}
_INTRINSIC = {
    "sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc",
    "copysign": "copysign",
}  # fmt: skip


def lower(out: Writer, name: str, dtype: DType, lanes: int, *args: str, known: tuple[bool, ...] = ()) -> str:
    """Operation ``name`` on operands of type ``dtype`` (for ``where``: of its second operand).

    ``known[i]`` says that operand i is a constant that is not NaN, which saves work in ``maximum`` and ``minimum``.
    """
    if name == "where":
        t = type_name(dtype, lanes)
        return out.write(f"select {of_type('i1', lanes)} {args[0]}, {t} {args[1]}, {t} {args[2]}")
    if dtype.is_float and dtype.bits == 16:
        wide = [_widen(out, dtype, lanes, x) for x in args]
        result = _float(out, name, dt.float32, lanes, wide, known)
        return result if name in _FLOAT_COMPARE else _narrow(out, dtype, lanes, result)
    if dtype.is_float:
        return _float(out, name, dtype, lanes, list(args), known)
    if dtype.is_bool:
        return _bool(out, name, lanes, args)
    return _integer(out, name, dtype, lanes, args)


def fused(out: Writer, dtype: DType, lanes: int, a: str, b: str, c: str) -> str:
    """a*b + c rounded once (half types: in float, then to the half type)."""
    if dtype.bits == 16:
        wide = [_widen(out, dtype, lanes, x) for x in (a, b, c)]
        return _narrow(out, dtype, lanes, fused(out, dt.float32, lanes, *wide))
    if dtype is dt.float32 and not out.machine.has_fma:
        return _fused_in_double(out, lanes, a, b, c)
    t = type_name(dtype, lanes)
    return out.call(t, "llvm.fma", (t, a), (t, b), (t, c))


def dot_accumulate(out: Writer, elements: str, lanes: int, c: str, a: str, b: str) -> str:
    """c + products of the packed elements of the words a and b: one instruction where the target has it for these types and
    as many lanes, otherwise the same in plain arithmetic."""
    i32 = of_type("i32", lanes)
    if elements in out.machine.dots and lanes in (4, 8, 16) and 4 * lanes <= out.machine.vector_bytes:
        width = 32 * lanes
        if elements == "bfloat16.bfloat16":
            t, words, name = of_type("float", lanes), of_type("bfloat", 2 * lanes), "avx512bf16.dpbf16ps"
        else:
            t, words, name = i32, of_type("i8", 4 * lanes), "avx512.vpdpbusd"
        a, b = (out.write(f"bitcast {i32} {x} to {words}") for x in (a, b))
        return out.intrinsic(t, f"llvm.x86.{name}.{width}", (t, c), (words, a), (words, b))
    if elements == "bfloat16.bfloat16":
        return _dot_bf16(out, lanes, c, a, b)
    left, right = elements.split(".")
    for at in range(4):
        x, y = (_byte(out, lanes, word, at, t == "int8") for word, t in ((a, left), (b, right)))
        c = out.write(f"add {i32} {c}, {out.write(f'mul {i32} {x}, {y}')}")
    return c


def _byte(out: Writer, lanes: int, word: str, at: int, signed: bool) -> str:
    """One byte of a word as an int32."""
    i = _Ints(out, lanes)
    return i("ashr" if signed else "lshr", i("shl", word, 24 - 8 * at) if at < 3 else word, 24)


def _dot_bf16(out: Writer, lanes: int, c: str, a: str, b: str) -> str:
    """The second elements first, as the instruction does; products are exact, so fma and a sum of them are the same."""
    i = _Ints(out, lanes)
    high, low = ([i.as_float(i(op, x, n)) for x in (a, b)] for op, n in (("and", 0xFFFF0000), ("shl", 16)))
    for x, y in (high, low):
        if out.machine.has_fma:
            c = fused(out, dt.float32, lanes, x, y, c)
        else:
            c = out.write(f"fadd {i.f32} {c}, {out.write(f'fmul {i.f32} {x}, {y}')}")
    return c


def _fused_in_double(out: Writer, lanes: int, a: str, b: str, c: str) -> str:
    """Fused float32 arithmetic without the instruction, where a library call for every lane would be the alternative.

    The product is exact in double. The sum is rounded to odd with the help of its exact error (Knuth's two-sum), so that
    rounding it to float is the only rounding that shows.
    """
    f32, f64, i64, i1 = (of_type(t, lanes) for t in ("float", "double", "i64", "i1"))

    def f(name: str, x: str, y: str) -> str:
        return out.write(f"{name} {f64} {x}, {y}")

    x, y, z = (out.write(f"fpext {f32} {v} to {f64}") for v in (a, b, c))
    product = f("fmul", x, y)
    total = f("fadd", product, z)
    part = f("fsub", total, product)
    error = f("fadd", f("fsub", product, f("fsub", total, part)), f("fsub", z, part))
    raw, error_bits = (out.write(f"bitcast {f64} {v} to {i64}") for v in (total, error))
    # Bits are sign and magnitude: an error of the other sign means that the magnitude was rounded up.
    zero, one, sign = (constant(v, dt.int64, lanes) for v in (0, 1, 63))
    opposite = out.write(f"xor {i64} {raw}, {error_bits}")
    step = out.write(f"or {i64} {out.write(f'ashr {i64} {opposite}, {sign}')}, {one}")
    even = out.write(f"icmp eq {i64} {out.write(f'and {i64} {raw}, {one}')}, {zero}")
    inexact = out.write(
        f"and {i1} {even}, {out.write(f'fcmp one {f64} {error}, {constant(0.0, dt.float64, lanes)}')}"
    )
    odd = out.write(f"select {i1} {inexact}, {i64} {out.write(f'add {i64} {raw}, {step}')}, {i64} {raw}")
    return out.write(f"fptrunc {f64} {out.write(f'bitcast {i64} {odd} to {f64}')} to {f32}")


def _float(out: Writer, name: str, dtype: DType, lanes: int, args: list[str], known: tuple[bool, ...]) -> str:
    t = type_name(dtype, lanes)
    a, b = args[0], args[-1]
    if name in _FLOAT_ARITHMETIC:
        return out.write(f"{_FLOAT_ARITHMETIC[name]} {t} {a}, {b}")
    if name in _FLOAT_COMPARE:
        return out.write(f"fcmp {_FLOAT_COMPARE[name]} {t} {a}, {b}")
    if name in _INTRINSIC:
        return out.call(t, f"llvm.{_INTRINSIC[name]}", *((t, x) for x in args))
    if name == "neg":
        return out.write(f"fneg {t} {a}")
    if name in ("maximum", "minimum"):
        return _extremum(out, name, t, lanes, a, b, known)
    if name == "sign":
        zero, one, i1 = constant(0.0, dtype, lanes), constant(1.0, dtype, lanes), of_type("i1", lanes)
        # The sign of both zeros is +0 and that of NaN is NaN: a + 0 is all three.
        itself = out.write(f"fcmp ueq {t} {a}, {zero}")
        kept = out.write(f"fadd {t} {a}, {zero}")
        return out.write(
            f"select {i1} {itself}, {t} {kept}, {t} {out.call(t, 'llvm.copysign', (t, one), (t, a))}"
        )
    raise KernelError(f"kernels have no operation {name} on {dtype}")


def _extremum(out: Writer, name: str, t: str, lanes: int, a: str, b: str, known: tuple[bool, ...]) -> str:
    """The greater or smaller operand, NaN if either is; of zeros either one."""
    if known and known[-1]:
        a, b = b, a
    if known and any(known):
        # a is a number: a NaN in b falls through, and x86's one-sided min and max fit
        order = "ogt" if name == "maximum" else "olt"
        condition = out.write(f"fcmp {order} {t} {a}, {b}")
        return out.write(f"select {of_type('i1', lanes)} {condition}, {t} {a}, {t} {b}")
    # x86 asks only whether the intrinsic's first operand is NaN: let that be the element, not the extremum so far
    return out.call(t, f"llvm.{name}", (t, b), (t, a), flags="nsz ")


def _bool(out: Writer, name: str, lanes: int, args: tuple[str, ...]) -> str:
    t = of_type("i1", lanes)
    op = {
        "maximum": "or",
        "minimum": "and",
        "bitand": "and",
        "bitor": "or",
        "bitxor": "xor",
        "ne": "xor",
    }.get(name)
    if op is not None:
        return out.write(f"{op} {t} {args[0]}, {args[1]}")
    if name == "invert":
        return out.write(f"xor {t} {args[0]}, {constant(True, dt.bool_, lanes)}")
    return out.write(f"icmp {'eq' if name == 'eq' else 'u' + name} {t} {args[0]}, {args[1]}")


def _integer(out: Writer, name: str, dtype: DType, lanes: int, args: tuple[str, ...]) -> str:
    t, i1, sign = type_name(dtype, lanes), of_type("i1", lanes), "s" if dtype.kind == "i" else "u"
    a, b = args[0], args[-1]
    zero = constant(0, dtype, lanes)

    def select(condition: str, x: str, y: str) -> str:
        return out.write(f"select {i1} {condition}, {t} {x}, {t} {y}")

    if name in _INT_ARITHMETIC:
        return out.write(f"{_INT_ARITHMETIC[name]} {t} {a}, {b}")
    if name in ("eq", "ne"):
        return out.write(f"icmp {name} {t} {a}, {b}")
    if name in ("lt", "le", "gt", "ge"):
        return out.write(f"icmp {sign}{name} {t} {a}, {b}")
    if name in ("maximum", "minimum"):
        return out.call(t, f"llvm.{sign}{name[:3]}", (t, a), (t, b))
    if name == "neg":
        return out.write(f"sub {t} {zero}, {a}")
    if name == "invert":
        return out.write(f"xor {t} {a}, {constant(-1, dtype, lanes)}")
    if name == "abs":
        return a if sign == "u" else out.call(t, "llvm.abs", (t, a), ("i1", "false"))
    if name == "sign":
        one = constant(1, dtype, lanes)
        low = out.call(t, f"llvm.{sign}min", (t, a), (t, one))
        return low if sign == "u" else out.call(t, "llvm.smax", (t, low), (t, constant(-1, dtype, lanes)))
    if name in ("shl", "shr"):
        width = constant(dtype.bits, dtype, lanes)
        inside = out.write(f"icmp ult {t} {b}, {width}")
        if name == "shr" and sign == "s":
            return out.write(f"ashr {t} {a}, {select(inside, b, constant(dtype.bits - 1, dtype, lanes))}")
        shifted = out.write(f"{'shl' if name == 'shl' else 'lshr'} {t} {a}, {select(inside, b, zero)}")
        return select(inside, shifted, zero)
    if name in ("floordiv", "mod"):
        return _integer_division(out, name, dtype, lanes, a, b)
    if name == "pow":
        _define_power(out, dtype, lanes)
        return out.call(t, _power_name(dtype, lanes), (t, a), (t, b))
    raise KernelError(f"kernels have no operation {name} on {dtype}")


def _integer_division(out: Writer, name: str, dtype: DType, lanes: int, a: str, b: str) -> str:
    """Rounded towards minus infinity; by zero gives 0; the smallest number over -1 wraps."""
    t, i1 = type_name(dtype, lanes), of_type("i1", lanes)
    zero, one = constant(0, dtype, lanes), constant(1, dtype, lanes)

    def select(condition: str, x: str, y: str) -> str:
        return out.write(f"select {i1} {condition}, {t} {x}, {t} {y}")

    by_zero = out.write(f"icmp eq {t} {b}, {zero}")
    if dtype.kind == "u":
        safe = select(by_zero, one, b)
        result = out.write(f"{'udiv' if name == 'floordiv' else 'urem'} {t} {a}, {safe}")
        return select(by_zero, zero, result)
    by_minus_one = out.write(f"icmp eq {t} {b}, {constant(-1, dtype, lanes)}")
    safe = select(out.write(f"or {i1} {by_zero}, {by_minus_one}"), one, b)
    rest = out.write(f"srem {t} {a}, {safe}")
    opposite = out.write(f"icmp slt {t} {out.write(f'xor {t} {rest}, {safe}')}, {zero}")
    adjust = out.write(f"and {i1} {out.write(f'icmp ne {t} {rest}, {zero}')}, {opposite}")
    if name == "mod":  # by one the rest is 0, which also serves divisors 0 and -1
        return select(adjust, out.write(f"add {t} {rest}, {safe}"), rest)
    quotient = out.write(f"sdiv {t} {a}, {safe}")
    floor = out.write(f"add {t} {quotient}, {out.write(f'sext {i1} {adjust} to {t}')}")
    floor = select(by_minus_one, out.write(f"sub {t} {zero}, {a}"), floor)
    return select(by_zero, zero, floor)


def _power_name(dtype: DType, lanes: int) -> str:
    return f"tw.power.{dtype.name}" + (f".v{lanes}" if lanes else "")


def _define_power(out: Writer, dtype: DType, lanes: int) -> None:
    """Repeated squaring; a negative exponent gives 1/base truncated: 1, -1 or 0."""
    t, i1 = type_name(dtype, lanes), of_type("i1", lanes)
    zero, one, minus = (constant(v, dtype, lanes) for v in (0, 1, -1))
    more = "%more = icmp ne i1 %any, false"
    any_left = (
        f"%any = call i1 @llvm.vector.reduce.or.v{lanes}i1({i1} %left)"
        if lanes
        else "%any = or i1 %left, false"
    )
    lines = [
        f"define internal {t} @{_power_name(dtype, lanes)}({t} %base, {t} %exponent) nounwind {{",
        "entry:",
        "  br label %loop",
        "loop:",
        f"  %power = phi {t} [ {one}, %entry ], [ %power.next, %loop ]",
        f"  %square = phi {t} [ %base, %entry ], [ %square.next, %loop ]",
        f"  %rest = phi {t} [ %exponent, %entry ], [ %rest.next, %loop ]",
        f"  %bit = and {t} %rest, {one}",
        f"  %odd = icmp ne {t} %bit, {zero}",
        f"  %product = mul {t} %power, %square",
        f"  %power.next = select {i1} %odd, {t} %product, {t} %power",
        f"  %square.next = mul {t} %square, %square",
        f"  %rest.next = lshr {t} %rest, {one}",
        f"  %left = icmp ne {t} %rest.next, {zero}",
        f"  {any_left}",
        f"  {more}",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    if dtype.kind == "i":
        lines += [
            f"  %negative = icmp slt {t} %exponent, {zero}",
            f"  %last = and {t} %exponent, {one}",
            f"  %even = icmp eq {t} %last, {zero}",
            f"  %sign = select {i1} %even, {t} {one}, {t} %base",
            f"  %is.one = icmp eq {t} %base, {one}",
            f"  %is.minus = icmp eq {t} %base, {minus}",
            f"  %inverse.minus = select {i1} %is.minus, {t} %sign, {t} {zero}",
            f"  %inverse = select {i1} %is.one, {t} {one}, {t} %inverse.minus",
            f"  %result = select {i1} %negative, {t} %inverse, {t} %power.next",
            f"  ret {t} %result",
            "}",
        ]
    else:
        lines += [f"  ret {t} %power.next", "}"]
    if lanes:
        out.declare(f"llvm.vector.reduce.or.v{lanes}i1", "i1", i1)
    out.define(_power_name(dtype, lanes), "\n".join(lines))
