"""The rules of the house as functions: sources in, a list of violations out, each with its module and mostly a line.

Floors, pins and budgets are tables at the top; change them together with docs/architecture.md and a decision record.
"""

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Final

PACKAGES: Final = ("core", "reconciler", "migrations")

# A module stands on the floor of the longest prefix here.
FLOORS: Final[Mapping[str, int]] = {
    "core": 0,
    "migrations": 0,
    "core.content": 1,
    "core.transfer": 2,
    "core.snapshots": 2,
    "core.network": 2,
    "core.runtime": 2,
    "reconciler": 3,
    "reconciler.model": 3,
    "reconciler.decide": 4,
    "reconciler.store": 5,
    "reconciler.sources": 5,
    "reconciler.engine": 6,
    "reconciler.controllers": 7,
    "reconciler.fleet": 8,
    "reconciler.config": 9,
    "reconciler.older": 9,
    "reconciler.wiring": 9,
    "reconciler.reloading": 9,
    "reconciler.taking_up": 9,
    "reconciler.translation": 9,
    "reconciler.resident": 9,
    "reconciler.assembly": 9,
    "reconciler.places": 4,
    "reconciler.cli": 10,
    "reconciler.__main__": 10,
}
LEAN_ROOMS: Final = ("core", "reconciler")  # what is new in them needs a line above, but for plain modules of core
NEVER_SIDEWAYS: Final = ("core.transfer", "core.snapshots", "core.network", "core.runtime")
ENGINE_FLOOR: Final = FLOORS["reconciler.engine"]

# Who may import what is not ours. The standard library is free unless it is named here.
PINS: Final[Mapping[str, Sequence[str]]] = {
    "git": ("reconciler.sources.git",),
    "gitdb": ("reconciler.sources.git",),
    "ruamel": ("reconciler.sources.manifests", "reconciler.config", "migrations.config.yaml_text"),
    "apscheduler": ("reconciler.engine.timetable",),
    "tenacity": ("core.retrying",),
    "opentelemetry": ("core.telemetry_sdk",),
    "urllib3": ("core.transfer.http", "core.otlp"),
    "pydantic": ("reconciler.model", "reconciler.model.*", "reconciler.config"),
    "pydantic_core": ("reconciler.model", "reconciler.model.*", "reconciler.config"),
    "click": ("reconciler.cli", "reconciler.cli.*"),
    "isal": ("core.*",),
    "zstandard": ("core.*",),
    "wasmtime": ("core.runtime.wasm_engine",),
    "grpc": ("core.runtime.grpc_client",),
    "sqlite3": ("reconciler.store.sqlite*", "core.snapshots.ledger"),
    "subprocess": ("core.process",),
    "ctypes": ("core.syscalls",),
    "multiprocessing": (),
    "asyncio": (),
    "requests": (),
}
IMPURE: Final = frozenset(
    {"asyncio", "fcntl", "io", "os", "random", "select", "shutil", "socket", "sqlite3", "subprocess"}
    | {"tempfile", "threading", "time", "urllib"}
)
PURE_ROOMS: Final = ("reconciler.model", "reconciler.decide", "migrations")
CLOCKS: Final = frozenset(
    {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.sleep"}
    | {"datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now", "date.today"}
)
CLOCK_HOME: Final = "core.clock"

FUNCTION_MEDIAN: Final = 8
FUNCTION_P90: Final = 35
FUNCTION_MAX: Final = 60
FILE_MAX: Final = 400
PARAMETERS_MAX: Final = 6
DOCSTRINGS_MIN: Final = 0.95
BROAD_EXCEPTS_MAX: Final = 1
BROAD_HOME: Final = "reconciler.engine"
REFUSED_NAMES: Final = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})
BROAD: Final = frozenset({"Exception", "BaseException"})

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function
Rule = Callable[["House"], list[str]]


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source, self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def functions(self) -> list[Function]:
        """Every function and method, nested ones too."""
        return [node for node in self.nodes if isinstance(node, Function)]

    def at(self, node: ast.AST, what: str) -> str:
        """A violation with its place."""
        return f"{self.name}:{getattr(node, 'lineno', 1)}: {what}"


@dataclass(frozen=True)
class House:
    """All modules by name."""

    modules: Mapping[str, Module]

    @classmethod
    def of(cls, sources: Mapping[str, str]) -> "House":
        """A made-up house: packages are the names that others begin with."""
        return cls(
            {
                name: Module(name, source, any(other.startswith(f"{name}.") for other in sources))
                for name, source in sources.items()
            }
        )

    @classmethod
    def read(cls, top: Path) -> "House":
        """The house in a checkout."""
        modules = {}
        for path in (path for package in PACKAGES for path in sorted((top / package).rglob("*.py"))):
            parts = path.relative_to(top).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules[name] = Module(name, path.read_text(), is_package)
        return cls(modules)

    @cached_property
    def imports(self) -> Mapping[str, Collection[str]]:
        """For each module, the modules of the house that it imports anywhere, under TYPE_CHECKING too."""
        return {
            module.name: {found for name in imported(module) if (found := self.nearest(name)) and found != module.name}
            for module in self.modules.values()
        }

    def nearest(self, dotted: str) -> str | None:
        """The module that an imported name is or lives in; None for what is not ours."""
        while dotted and dotted not in self.modules:
            dotted = dotted.rpartition(".")[0]
        return dotted or None


def imported(module: Module) -> Iterator[str]:
    """Dotted names that a module imports; of `from a import b` the name `a.b`, which may be a module or not."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.name.split(".")[: len(module.name.split(".")) - node.level + module.is_package]
                base = ".".join([*up, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, room: str) -> bool:
    """Whether a module is the room or lies in it."""
    return name == room or name.startswith(f"{room}.")


def floor(module: Module) -> int | None:
    """The floor of a module; None where no line of FLOORS provides for it."""
    room = max((room for room in FLOORS if within(module.name, room)), key=len, default=None)
    plain_in_core = module.name.count(".") == 1 and not module.is_package
    if room is None or (room in LEAN_ROOMS and module.name != room and not (room == "core" and plain_in_core)):
        return None
    return FLOORS[room]


# --------------------------------------------------------------------------------------------------- floors and pins


def homeless(house: House) -> list[str]:
    """Modules without a floor."""
    return [f"{module.name}: no floor in FLOORS" for module in house.modules.values() if floor(module) is None]


def upward_imports(house: House) -> list[str]:
    """Imports from a higher floor, among the modules that have one."""
    floors = {name: at for name, module in house.modules.items() if (at := floor(module)) is not None}
    return [
        f"{name} (floor {floors[name]}) imports {target} (floor {floors[target]})"
        for name, targets in sorted(house.imports.items())
        for target in sorted(targets)
        if name in floors and target in floors and floors[target] > floors[name]
    ]


def sideways_imports(house: House) -> list[str]:
    """Imports between the four rooms that must not know each other."""

    def room_of(name: str) -> str | None:
        return next((room for room in NEVER_SIDEWAYS if within(name, room)), None)

    return [
        f"{name} imports {target} sideways"
        for name, targets in sorted(house.imports.items())
        for target in sorted(targets)
        if (mine := room_of(name)) and (other := room_of(target)) and mine != other
    ]


def import_cycles(house: House) -> list[str]:
    """One sentence for each knot of modules that import each other."""
    graph, reach = house.imports, {name: reachable(house.imports, name) for name in house.imports}
    knots = {
        frozenset({name, *(other for other in reach[name] if name in reach[other])})
        for name in graph
        if name in reach[name]
    }
    return sorted(f"import cycle: {', '.join(sorted(knot))}" for knot in knots)


def reachable(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    """Everything that can be reached from `start` in one step or more."""
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo.extend(graph[name])
    return seen


def broken_pins(house: House) -> list[str]:
    """Imports of a pinned library elsewhere, and of a library that is in no table."""
    found = []
    for module in house.modules.values():
        for top in sorted({name.split(".")[0] for name in imported(module)} - set(PACKAGES)):
            if top in PINS:
                if not any(fnmatchcase(module.name, pattern) for pattern in PINS[top]):
                    found.append(f"{module.name} imports {top}, whose place is {', '.join(PINS[top]) or 'nowhere'}")
            elif top not in sys.stdlib_module_names:
                found.append(f"{module.name} imports {top}, which has no pin")
    return found


def impure(house: House) -> list[str]:
    """Input, output, time and chance in the rooms that decide."""
    return [
        f"{module.name} imports {top}: this room is pure"
        for module in house.modules.values()
        if any(within(module.name, room) for room in PURE_ROOMS)
        for top in sorted({name.split(".")[0] for name in imported(module)} & IMPURE)
    ]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute access; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def own_clocks(house: House) -> list[str]:
    """Looking at a clock, or sleeping, below the engine and outside of the Clock port."""
    found = []
    for module in house.modules.values():
        if module.name != CLOCK_HOME and (floor(module) or 0) < ENGINE_FLOOR:
            names: list[tuple[ast.AST, str]] = [
                (node, dotted(node)) for node in module.nodes if isinstance(node, ast.Attribute)
            ]
            names += [
                (node, f"time.{alias.name}")
                for node in module.nodes
                if isinstance(node, ast.ImportFrom) and node.module == "time"
                for alias in node.names
            ]
            found += [
                module.at(node, f"{name}: time comes from the Clock port") for node, name in names if name in CLOCKS
            ]
    return found


# ------------------------------------------------------------------------------------------------------------ budgets


def docstring_of(node: Documented) -> ast.Expr | None:
    """The statement that is the docstring."""
    first = node.body[0] if node.body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return first if is_text and isinstance(first, ast.Expr) else None


def has_body(function: Function) -> bool:
    """False for a port's method: nothing but a docstring or `...`."""
    return not all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in function.body)


def length(function: Function) -> int:
    """Lines from `def` to the end, the docstring left out."""
    doc = docstring_of(function)
    return (function.end_lineno or 0) - function.lineno + 1 - ((doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)


def long_functions(house: House) -> list[str]:
    """Functions over the limit, then the median and the 90th percentile when those are."""
    sized = [(length(f), module, f) for module in house.modules.values() for f in module.functions if has_body(f)]
    found = [module.at(f, f"{f.name} has {n} lines, over {FUNCTION_MAX}") for n, module, f in sized if n > FUNCTION_MAX]
    if lengths := sorted(n for n, _, _ in sized):
        median, p90 = lengths[(len(lengths) - 1) // 2], lengths[(len(lengths) - 1) * 9 // 10]
        found += [f"functions: median {median} lines, over {FUNCTION_MEDIAN}"] if median > FUNCTION_MEDIAN else []
        found += [f"functions: p90 {p90} lines, over {FUNCTION_P90}"] if p90 > FUNCTION_P90 else []
    return found


def long_files(house: House) -> list[str]:
    """Files over the limit."""
    sized = [(len(module.source.splitlines()), module.name) for module in house.modules.values()]
    return [f"{name} has {lines} lines, over {FILE_MAX}" for lines, name in sized if lines > FILE_MAX]


def wide_constructors(house: House) -> list[str]:
    """`__init__` with too many parameters, keywords counted, `self` not."""
    found = []
    for module in house.modules.values():
        for function in (f for f in module.functions if f.name == "__init__"):
            args = function.args
            count = len(args.posonlyargs + args.args + args.kwonlyargs) + bool(args.vararg) + bool(args.kwarg) - 1
            if count > PARAMETERS_MAX:
                found.append(module.at(function, f"constructor with {count} parameters, over {PARAMETERS_MAX}"))
    return found


def swallowed(house: House) -> list[str]:
    """Handlers that do nothing."""
    return [
        module.at(node, "except … : pass")
        for module in house.modules.values()
        for node in module.nodes
        if isinstance(node, ast.ExceptHandler)
        and all(
            isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            for s in node.body
        )
    ]


def is_broad(kind: ast.expr | None) -> bool:
    """Whether an `except` takes everything."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(k is None or dotted(k).removeprefix("builtins.") in BROAD for k in kinds)


def broad_handlers(module: Module) -> Iterator[ast.AST]:
    """Handlers and `suppress` of everything, but for those that end in a bare `raise` (they only tidy up)."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield node
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("suppress") and any(map(is_broad, node.args)):
            yield node


def broad_excepts(house: House) -> list[str]:
    """Broad handlers outside of the engine, and in it all but the one of the worker loop."""
    places = [(module, node) for module in house.modules.values() for node in broad_handlers(module)]
    inside = [place for place in places if within(place[0].name, BROAD_HOME)]
    outside = [place for place in places if place not in inside]
    return [module.at(node, "broad except") for module, node in [*outside, *inside[BROAD_EXCEPTS_MAX:]]]


def public_names(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, Documented]]:
    """Public classes, functions and methods with their dotted names; overloads, setters and dunders need no words."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            marks = {dotted(mark).rpartition(".")[2] for mark in node.decorator_list}
            if not marks & {"overload", "setter", "override"}:
                yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_names(node.body, f"{prefix}.{node.name}")


def undocumented(house: House) -> list[str]:
    """Public names without a docstring, when they are more than a few."""
    names: list[tuple[str, Documented]] = [(module.name, module.tree) for module in house.modules.values()]
    names += [pair for module in house.modules.values() for pair in public_names(module.tree.body, module.name)]
    missing = [name for name, node in names if docstring_of(node) is None]
    enough = len(names) - len(missing) >= DOCSTRINGS_MIN * len(names)
    return [] if enough else [f"{name}: no docstring" for name in missing]


def refused_names(house: House) -> list[str]:
    """Modules that are named for nothing."""
    return [f"{name}: name the thing" for name in house.modules if REFUSED_NAMES & set(name.split("."))]


def unfinished(house: House) -> list[str]:
    """Notes to oneself, and stubs."""
    found = []
    for module in house.modules.values():
        for number, line in enumerate(module.source.splitlines(), 1):
            if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b", line):
                found.append(f"{module.name}:{number}: unfinished: {line.strip()}")
        for node in module.nodes:
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if dotted(raised) == "NotImplementedError":
                    found.append(module.at(node, "a stub: raise NotImplementedError"))
    return found


def silenced_types(house: House) -> list[str]:
    """`type: ignore` without a code and a reason after it."""
    return [
        f"{module.name}:{number}: type: ignore without code and reason"
        for module in house.modules.values()
        for number, line in enumerate(module.source.splitlines(), 1)
        if re.search(r"#\s*type:\s*ignore", line) and not re.search(r"#\s*type:\s*ignore\[[\w, -]+\]\W+\w{2,}", line)
    ]


HOUSE_RULES: Final[Sequence[Rule]] = (
    homeless,
    upward_imports,
    sideways_imports,
    import_cycles,
    broken_pins,
    impure,
    own_clocks,
    long_functions,
    long_files,
    wide_constructors,
    swallowed,
    broad_excepts,
    undocumented,
    refused_names,
    unfinished,
    silenced_types,
)


# -------------------------------------------------------------------------------------------------------------- tests


def faults_of_test(path: str, source: str) -> list[str]:
    """What is wrong with a test file: patched modules, real sleeps in unit tests, names that are no sentence."""
    module = Module(path, source)
    found = [f"{path}: imports unittest.mock" for name in imported(module) if name.startswith("unittest.mock")]
    if "unit/" in path:
        found += [module.at(n, "a real sleep") for n in module.nodes if dotted(n) == "time.sleep"]
    found += [
        module.at(function, f"{function.name} is no sentence")
        for function in module.functions
        if function.name.startswith("test_") and function.name.count("_") < 3 and Path(path).name.startswith("test_")
    ]
    return found
