"""Who may import whom: the package's layers, held by reading every import statement with `ast`.

The rules, each with a test below of the checker itself:

- a layer imports itself and the layers that the table names, nothing else;
- nothing but `python -m tilewright` imports `cli`, and nothing inside imports the package's front page;
- only `cli` and the package's front page import another part of the package inside a function: elsewhere
  such an import would hide a cycle (a late import of an optional outside library is fine);
- modules do not import each other in a circle while they load.

Imports for type checkers count as knowledge, so the table holds for them too; they load nothing, so they
make no circle.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "tilewright"

IR = {"core", "graph", "kernel"}
COMPILER = IR | {"autodiff", "passes", "recipes", "lower", "codegen", "runtime", "compiler"}
FRONTEND = COMPILER | {"tensor", "functions", "random", "jit", "array_api", "special", "signal"}
TRAINING = FRONTEND | {"nn", "optim", "data", "metrics", "interop", "io", "train"}

# Layer -> the layers it may import besides itself. `version` is one constant that anybody may read.
ALLOWED: dict[str, set[str]] = {
    "version": set(),
    "core": set(),
    "graph": {"core"},
    "autodiff": {"core", "graph"},
    "passes": {"core", "graph"},
    "kernel": {"core"},
    "recipes": {"core", "kernel"},
    "codegen": {"core", "kernel"},
    "lower": {"core", "graph", "kernel", "recipes"},
    "runtime": {"core"},
    "compiler": COMPILER,
    "tuning": COMPILER,
    "tensor": COMPILER,
    "functions": COMPILER | {"tensor"},
    "random": COMPILER | {"tensor", "functions"},
    "jit": COMPILER | {"tensor", "functions"},
    "array_api": COMPILER | {"tensor", "functions"},
    "special": COMPILER | {"tensor", "functions"},
    "signal": COMPILER | {"tensor", "functions", "special"},
    "nn": FRONTEND,
    "optim": FRONTEND | {"nn"},
    "data": FRONTEND,
    "metrics": FRONTEND,
    "interop": FRONTEND | {"nn"},
    "io": FRONTEND | {"interop"},
    "train": TRAINING,
    "lang.syntax": {"core"},
    "lang": TRAINING | {"lang.syntax"},
    "cli": TRAINING | {"tuning", "lang", "lang.syntax", ""},
    "": TRAINING | {"lang", "lang.syntax"},  # the front page, tilewright/__init__.py
    "__main__": {"cli"},  # python -m tilewright
}
LATE_IMPORTS = {"cli", ""}


@dataclass(frozen=True)
class Import:
    """`source` imports `target` (dotted names below the package); `late` if it does so in a function."""

    source: str
    target: str
    line: int
    late: bool
    typing_only: bool


def layer(module: str) -> str:
    """The layer of a dotted module name below the package: 'graph.text' -> 'graph'."""
    if module == "lang.syntax" or module.startswith("lang.syntax."):
        return "lang.syntax"
    return module.split(".")[0]


def read_sources(root: Path) -> dict[str, str]:
    """Map each module below `root`, as a dotted name without the package, to its text."""
    sources = {}
    for path in sorted(root.rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        sources[".".join(parts)] = path.read_text(encoding="utf-8")
    return sources


def is_typing_guard(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports_of(module: str, text: str, modules: set[str]) -> Iterator[Import]:
    """Yield every import of another part of the package in a module, at any depth."""

    def targets(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == PACKAGE or alias.name.startswith(PACKAGE + "."):
                    yield alias.name[len(PACKAGE) + 1 :]
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:  # relative imports are a lint error; here they must not hide one
                package = module.split(".") if module in packages else module.split(".")[:-1]
                name = ".".join(
                    [PACKAGE, *package[: len(package) - node.level + 1], *filter(None, [node.module])]
                )
            if name != PACKAGE and not name.startswith(PACKAGE + "."):
                return
            base = name[len(PACKAGE) + 1 :]
            for alias in node.names:
                child = f"{base}.{alias.name}" if base else alias.name
                yield child if child in modules else base

    packages = {name.rsplit(".", 1)[0] for name in modules if "." in name} | {""}

    def visit(node: ast.AST, late: bool, typing_only: bool) -> Iterator[Import]:
        for target in targets(node):
            yield Import(module, target, getattr(node, "lineno", 0), late, typing_only)
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and is_typing_guard(node):
            for child in node.body:
                yield from visit(child, late, True)
            for child in node.orelse:
                yield from visit(child, late, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late, typing_only)

    yield from visit(ast.parse(text), False, False)


def violations(sources: dict[str, str]) -> list[str]:
    """Every broken rule as one line that says where and what."""
    modules = set(sources)
    imports = [found for module, text in sources.items() for found in imports_of(module, text, modules)]
    problems = []
    for module in sorted(modules):
        if layer(module) not in ALLOWED:
            problems.append(f"{module}: the layer {layer(module)!r} is not in the table; give it a row")
    for found in imports:
        where = f"{found.source or '__init__'}:{found.line}"
        source, target = layer(found.source), layer(found.target)
        if source != target and target != "version" and target not in ALLOWED.get(source, set()):
            problems.append(
                f"{where}: {source or 'the front page'} must not know {target or 'the front page'}"
            )
        if found.late and source not in LATE_IMPORTS:
            problems.append(
                f"{where}: import of {found.target or PACKAGE} inside a function; move it to the top"
            )
    return problems + loading_circles(modules, imports)


def loading_circles(modules: set[str], imports: list[Import]) -> list[str]:
    """Name a circle among imports that run while modules load, if there is one."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in imports:
        # A package's own page may gather its modules, which Python resolves: no circle between modules.
        inside_own_package = found.source.startswith(found.target + ".") or found.target == ""
        if (
            not found.late
            and not found.typing_only
            and found.source != found.target
            and not inside_own_package
        ):
            graph[found.source].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["modules import each other in a circle: " + " <- ".join(error.args[1])]
    return []


def test_the_package_keeps_its_layers(repository: Path) -> None:
    sources = read_sources(repository / "src" / PACKAGE)
    assert sources, "no modules found"
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"core.a": "", "graph.b": "from tilewright.core import a"}, None),
        ({"core.a": "from tilewright.graph import b", "graph.b": ""}, "core must not know graph"),
        ({"core.a": "import tilewright.graph.b", "graph.b": ""}, "core must not know graph"),
        ({"core.a": "from ..graph import b", "graph.b": ""}, "core must not know graph"),
        (
            {"passes.a": "from tilewright.autodiff.vjp import f", "autodiff.vjp": ""},
            "passes must not know autodiff",
        ),
        (
            {"runtime.a": "from tilewright.kernel.ir import Kernel", "kernel.ir": ""},
            "runtime must not know kernel",
        ),
        ({"lang.syntax.a": "import tilewright.nn", "nn": ""}, "lang.syntax must not know nn"),
        ({"lang.check": "import tilewright.nn", "nn": ""}, None),
        ({"train.loop": "from tilewright.cli import main", "cli.main": ""}, "train must not know cli"),
        ({"train.loop": "import tilewright as tw", "": ""}, "train must not know the front page"),
        ({"cli.main": "def f():\n    import tilewright as tw", "": ""}, None),
        ({"nn.a": "def f():\n    from tilewright import nn", "nn": ""}, "inside a function"),
        (
            {
                "core.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tilewright.graph",
                "graph": "",
            },
            "core must not know graph",
        ),
        ({"core.a": "import tilewright.core.b", "core.b": "from tilewright.core.a import f"}, "in a circle"),
        ({"core.a": "from tilewright.version import __version__", "version": ""}, None),
        ({"strange.a": ""}, "not in the table"),
    ],
)
def test_the_checker_itself(sources: dict[str, str], expected: str | None) -> None:
    found = violations(sources)
    if expected is None:
        assert found == []
    else:
        assert any(expected in problem for problem in found), found
