"""Rules of the code base that a reader relies on, held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import langgraph_redis_state

PACKAGE = Path(langgraph_redis_state.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")}
LUA = sorted((PACKAGE / "lua").glob("*.lua"))


def imported(module: ast.Module) -> set[str]:
    """Top-level names that a module imports, wherever; `.x` for modules of the package."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names |= {"." + (node.module or alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_the_edges_know_the_client_library_and_asyncio(name: str) -> None:
    found = imported(MODULES[name])
    assert not found & {"redis", "valkey"}  # `connection` imports it by name, when it is first used
    assert "asyncio" not in found or name in ("batches", "connection", "drivers")
    assert "import_module" not in (PACKAGE / f"{name}.py").read_text() or name == "connection"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("keys", {".checks", ".errors"}),
        ("codec", {"._dictionary", ".errors"}),
        ("chunks", {".codec"}),
        ("bounded", set()),
        ("records", {".", ".bounded", ".chunks", ".codec", ".errors", ".keys"}),
        ("elements", {".bounded", ".chunks", ".codec", ".records"}),
        ("checkpoints", {".bounded", ".errors", ".records"}),
        ("retention", {".keys", ".records"}),
        ("effects", set()),
        ("checks", set()),
        ("ids", {".errors"}),
        ("target", {".errors", ".keys", ".records"}),
        ("copying", {".codec", ".keys", ".records", ".target"}),
        ("deltas", {".", ".checkpoints", ".chunks", ".codec", ".errors", ".records"}),
        ("removal", {".deltas", ".effects", ".keys", ".records", ".retention"}),
        ("faults", {".codec", ".errors", ".keys", ".records", ".retention", ".target"}),
        ("durability", {".checks", ".effects", ".errors"}),
        ("batches", {".effects"}),
        ("translation", {".connection", ".effects", ".errors"}),
        ("contact", set()),
        ("drivers", {".connection", ".contact", ".durability", ".effects", ".errors", ".translation"}),
    ],
)
def test_lower_modules_do_not_import_upper_ones(name: str, allowed: set[str]) -> None:
    ours = {each for each in imported(MODULES[name]) if each.startswith(".")}
    ours = {"." if each == ".chunks" and name == "records" and "." in allowed else each for each in ours}
    assert ours <= allowed | {".chunks"} if name == "records" else ours <= allowed


def defined(module: ast.Module) -> set[str]:
    """Names of functions, of attributes that `self` is given, and of fields."""
    names = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("name", sorted(MODULES))
def test_private_names_stay_in_their_module(name: str) -> None:
    nodes = list(ast.walk(MODULES[name]))
    used = {
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) and node.module for alias in node.names if node.level
    }
    foreign = set().union(*(defined(module) for other, module in MODULES.items() if other != name)) - defined(MODULES[name])
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)} & foreign
    shared = defined(MODULES["connected"])  # what all that are Connected have
    assert not {each for each in used - shared if each.startswith("_") and not each.endswith("__")}


def test_importing_the_package_does_not_import_redis() -> None:
    code = "import sys, langgraph_redis_state; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["history", "operations", "states", "verification"])
def test_every_effect_stands_under_yield(name: str) -> None:
    """A `Call(...)`, `Read(...)` or `Scan(...)` that is not yielded would silently do nothing."""
    tree = MODULES[name]
    yielded = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Yield)}
    returned = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return)}
    loose = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Call", "Read", "Scan")
        and id(node) not in yielded | returned
    ]
    assert not loose


@pytest.mark.parametrize("name", ["history", "operations", "states", "verification"])
def test_every_operation_is_delegated_to(name: str) -> None:
    """Calling another operation without `yield from` would silently do nothing."""
    operations = {
        node.name
        for tree in (MODULES["history"], MODULES["operations"], MODULES["states"], MODULES["verification"])
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and isinstance(node.returns, ast.Subscript)
        and isinstance(node.returns.value, ast.Name)
        and node.returns.value.id == "Operation"
    }
    tree = MODULES[name]
    delegated = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.YieldFrom)}
    delegated |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return)}
    loose = [
        (node.lineno, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name | ast.Attribute)
        and (node.func.value.id if isinstance(node.func.value, ast.Name) else node.func.value.attr)
        in ("self", "operations", "_operations", "_history")
        and node.func.attr in operations
        and id(node) not in delegated
    ]
    assert not loose


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_scripts_touch_declared_keys_only_and_no_late_commands(path: Path) -> None:
    """Every key comes from KEYS; no KEYS, SCAN, FLUSH; no cmsgpack or struct, which not every server has."""
    code = "\n".join(line.split("--")[0] for line in path.read_text().splitlines())
    for forbidden in ("cmsgpack", "struct.", "cjson", "'SCAN'", "'KEYS'", "FLUSH", "ZRANGESTORE", "GETEX"):
        assert forbidden not in code
    allowed = {"T", "I", "THREADS", "EXPIRY", "RUNS", "META", "TOMB", "index", "key", "KEYS[1]", "KEYS[8]", "KEYS[9]"}
    for call in code.split("call('")[1:]:
        arguments = call.split(")")[0].split(",")
        command = arguments[0].strip("'")
        if command in ("TIME",):
            continue
        assert arguments[1].strip() in allowed, call[:60]


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_every_script_says_what_it_takes_and_replies(path: Path) -> None:
    head = path.read_text().split("\nlocal ")[0]
    assert head.startswith("-- ")
    if path.stem != "prelude":
        assert "ARGV" in head
        assert "Reply" in head
