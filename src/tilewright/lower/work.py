"""What the work of a map or row group is like: how much an element takes, what waits for what, and which values lie inside."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.graph.ir import Value
from tilewright.kernel.ir import Expr, Let, Set, Stmt, Store
from tilewright.lower.groups import Group, operation_cost, own_cost
from tilewright.recipes.machine import Machine

__all__ = ["computes_function", "depths", "inside_of", "side_by_side", "work_of"]

# Cheap operations in a chain: three functions like tanh one after the other, where one multiplication begins in a cycle.
SERIAL_COST = 48
LONG_CHAIN = 56  # likewise, two such functions where two begin: twice as many vectors
FUNCTION_COST = 14  # one such function
FEW_OPERATIONS = 10  # beside one
# Functions of one chain, without a branch: the numbers of eight vectors find registers.
SLIM = ("exp", "exp2", "expm1", "sigmoid", "sinh", "cosh", "erf")


def work_of(stmts: list[Stmt], atom: Expr) -> int:
    """A rough count of cheap instructions for one element of a loop over ``atom``: what is the same in every iteration is
    computed before the loop, and what is in several expressions once."""
    moves: dict[Expr, bool] = {}
    stack = [s.value for s in stmts if isinstance(s, (Let, Set, Store))]
    while stack:
        e = stack[-1]
        missing = [a for a in e.args if a not in moves]
        if e in moves or not missing:
            stack.pop()
            moves[e] = e is atom or e.op == "reg" or any(moves[a] for a in e.args)
        stack.extend(missing)
    return sum(operation_cost(e.op) for e, moving in moves.items() if moving and e.args and e.dtype.is_float)


def computes_function(stmts: list[Stmt]) -> bool:
    """Whether statements compute a function of ``SLIM``, and no other that is as costly."""
    found, seen = set[str](), set[Expr]()
    stack = [s.value for s in stmts if isinstance(s, (Let, Set, Store))]
    while stack:
        e = stack.pop()
        if e not in seen:
            seen.add(e)
            stack.extend(e.args)
            if operation_cost(e.op) >= FUNCTION_COST:
                found.add(e.op)
    return bool(found) and found <= set(SLIM)


def depths(group: Group, inside: set[Value]) -> dict[Value, int]:
    """How many reductions of the group lie, one after another, before each value it computes."""
    depth: dict[Value, int] = {}
    reductions = set(group.reductions)

    def visit(root: Value) -> int:
        stack = [root]
        while stack:
            v = stack[-1]
            if v in depth:
                stack.pop()
                continue
            missing = [x for x in v.inputs if x not in depth] if v in inside or v is root else []
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if v not in inside and v is not root:
                depth[v] = 0
            else:
                depth[v] = max((depth[x] for x in v.inputs), default=0) + (1 if v in reductions else 0)
        return depth[root]

    for v in group.members:
        visit(v)
    return depth


def inside_of(group: Group, stored: Callable[[Value], bool]) -> set[Value]:
    """Members and the floating values between them: what lies above a member and below another, without a store between."""
    touches: dict[Value, bool] = {}
    for member in group.members:
        stack = [member]
        while stack:
            x = stack[-1]
            below = () if stored(x) else x.inputs
            missing = [y for y in below if y not in touches]
            if x in touches or not missing:
                touches.setdefault(x, x in group.members or any(touches[y] for y in below))
                stack.pop()
            else:
                stack.extend(missing)
    return {x for x, inside in touches.items() if inside}


def side_by_side(group: Group, stored: Callable[[Value], bool], machine: Machine) -> int:
    """How many vectors go side by side through the operations of a map because the longest chain of those that wait for each
    other is so long that the next vectors' instructions do not come into the processor's view before it ends; 0 if it is short.

    What is in view takes less time where more operations begin in a cycle. Several chains in one vector keep the processor
    busy by themselves and need more registers; so does a power, whose parts are pairs of numbers.
    """
    heights: dict[Value, int] = {}
    stack = list(group.members)
    while stack:
        v = stack[-1]
        below = () if stored(v) else v.inputs
        missing = [x for x in below if x not in heights]
        stack.extend(missing)
        if not missing:
            heights[stack.pop()] = own_cost(v) * bool(below) + max((heights[x] for x in below), default=0)
    height, work = max(heights.values(), default=0), sum(own_cost(v) for v in heights if not stored(v))
    if height * machine.fmas < SERIAL_COST:
        functions = [v for v in heights if own_cost(v) >= FUNCTION_COST and not stored(v)]
        if machine.fmas == 1 or len(functions) != 1 or work > FUNCTION_COST + FEW_OPERATIONS:
            return 0
        return 8 if functions[0].op in SLIM else 4
    wide = machine.fmas > 1 and height * machine.fmas >= LONG_CHAIN and 2 * work <= 3 * height
    return 8 if wide and all(v.op != "pow" or stored(v) for v in heights) else 4
