"""Rules of the code base that a reader relies on, held by reading the source."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import langgraph_redis_state

PACKAGE = Path(langgraph_redis_state.__file__).parent
MODULES = {str(path.relative_to(PACKAGE))[:-3].replace("/", "."): path for path in sorted(PACKAGE.rglob("*.py"))}
LUA = sorted((PACKAGE / "scripts").rglob("*.lua"))

BELOW_VERBS = {"errors", "effects", "storage", "validation", "caching", "serialization", "address", "scripts"}
TOOLS = {"inspection", "cli", "web"}
PUBLIC = set(langgraph_redis_state.__all__) | {"__version__"}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "effects": set(),
    "validation": {"errors"},
    "storage": {"errors", "validation"},
    "caching": {"errors", "storage"},
    "serialization": {"errors", "storage", "caching"},
    "address": {"errors", "storage", "validation"},
    "durability": {"errors", "effects", "validation"},
    "scripts": {"errors", "effects", "storage"},
    "operations": BELOW_VERBS,
    "history": BELOW_VERBS | {"operations"},
    "verification": BELOW_VERBS | {"operations"},
    "client": {"errors", "effects", "validation", "durability"},
    "embedded": {"errors"},
    "inspection": PUBLIC,
    "cli": PUBLIC | {"inspection", "web", "archive", "migrate", "environment"},
    "web": PUBLIC | {"inspection"},
    "__main__": {"cli"},
    "options": {"errors", "storage", "validation", "durability"},
    "environment": {"errors", "durability"},
    "spellings": set(),
}
"""What each room, and each module outside of the rooms, may import of this package. The surfaces, which are not listed
(`saver`, `saver_history`, `connected`, `drop_in`, `server`, `state`, `store`, `archive`, `migrate`), may import all. No
room imports a surface. Tools import what is exported."""


@functools.cache
def text(module: str) -> str:
    return MODULES[module].read_text()


@functools.cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text(module))))


def room_of(module: str) -> str:
    return module.partition(".")[0]


def ours(module: str) -> Iterator[str]:
    """The rooms and top modules of this package that a module imports, wherever in its text."""
    is_package = MODULES[module].name == "__init__.py"
    place = module.split(".") if is_package else module.split(".")[:-1]
    place = [part for part in place if part != "__init__"]
    for node in nodes(module):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = place[: len(place) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield (base or [alias.name])[0]


def foreign(module: str) -> set[str]:
    """Top-level names of other packages that a module imports, wherever in its text."""
    names: set[str] = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


def test_rooms_import_in_one_direction() -> None:
    listed = [name for name in MODULES if room_of(name) in LAYERS]
    upward = {name: set(ours(name)) - {room_of(name)} - LAYERS[room_of(name)] for name in listed}
    assert not {name: rooms for name, rooms in upward.items() if rooms}


def test_every_room_is_in_the_picture() -> None:
    assert {room_of(name) for name in MODULES} == LAYERS.keys() | {
        *("__init__", "saver", "saver_history", "connected", "state", "store", "drop_in", "server", "archive", "migrate")
    }


def test_only_the_client_room_knows_the_client_library_and_asyncio() -> None:
    for module in MODULES:
        assert not foreign(module) & {"redis", "valkey"}, module  # `client` imports it by name, when it is first used
        if room_of(module) not in ("client", "migrate"):  # `migrate` talks to savers of other packages
            assert "asyncio" not in foreign(module), module
            assert module == "__init__" or "import_module" not in text(module), module


def test_every_room_says_what_may_import_it_and_what_it_may_touch() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and path.parent != PACKAGE:
            said = ast.get_docstring(ast.parse(text(module))) or ""
            assert 4 <= len(said.splitlines()) <= 14, module
            assert "Imported by" in said, module
            assert "May" in said, module


def test_nothing_is_too_long_to_read() -> None:
    for module in MODULES:
        assert len(text(module).splitlines()) <= 460, module
        for node in nodes(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                most = 450 if isinstance(node, ast.ClassDef) else 60
                assert (node.end_lineno or 0) - node.lineno + 1 <= most, f"{module}: {node.name}"


def test_replies_of_scripts_are_taken_apart_in_one_place() -> None:
    taken = {module for module in MODULES if re.search(r"\breply\[", text(module))}
    assert taken <= {
        "scripts.commands",
        "scripts.store_commands",
        "scripts.replies",
        "effects",
    }  # `effects` takes the token off


@functools.cache
def defined(module: str) -> set[str]:
    """Names of functions, of attributes that `self` is given, and of fields."""
    names = {node.name for node in nodes(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in nodes(module):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_private_names_stay_in_their_module() -> None:
    shared = defined("connected")  # what all that are Connected have
    anywhere = {name for module in MODULES for name in defined(module)}
    for module in MODULES:
        used = {alias.name for node in nodes(module) if isinstance(node, ast.ImportFrom) and node.level for alias in node.names}
        attributes = {node.attr for node in nodes(module) if isinstance(node, ast.Attribute)}
        used |= attributes & anywhere - defined(module)
        assert not {each for each in used - shared if each.startswith("_") and not each.endswith("__")}, module


def test_importing_the_package_imports_neither_redis_nor_what_a_saver_does_not_need() -> None:
    later = (
        "redis",
        *(f"langgraph_redis_state.{name}" for name in ("environment", "embedded", "state", "store", "verification")),
    )
    code = f"import sys, langgraph_redis_state; print(*[name for name in {later} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_every_exported_name_is_there_whenever_it_is_imported() -> None:
    for name in langgraph_redis_state.__all__:
        assert name in dir(langgraph_redis_state)
        assert getattr(langgraph_redis_state, name).__module__.startswith("langgraph_redis_state") or name == "TodoStatus", name
    with pytest.raises(AttributeError, match="no attribute 'RedisSavers'"):
        langgraph_redis_state.RedisSavers  # noqa: B018


EFFECTS = {"Call", "Read", "Scan", "Emit"}
PERFORMERS = ("run", "arun", "stream", "astream", "emitted", "partial")


def test_every_effect_is_yielded_and_every_operation_delegated_to() -> None:
    """One that is not would silently do nothing."""
    operations = {
        node.name
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.FunctionDef) and ast.unparse(node.returns or ast.Constant(None)).split("[")[0] == "Operation"
    }
    loose = []
    for module in MODULES:
        if room_of(module) in ("effects", "client", *TOOLS):
            continue
        used = {id(node.value) for node in nodes(module) if isinstance(node, ast.Yield | ast.YieldFrom | ast.Return)}
        for node in nodes(module):  # given to something that performs it
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PERFORMERS:
                used |= {id(argument) for argument in node.args}
        for node in nodes(module):
            if isinstance(node, ast.Call) and id(node) not in used:
                owner, _, name = ast.unparse(node.func).rpartition(".")
                if name in EFFECTS or (name in operations and owner in ("", "engine", "commands", "self._engine")):
                    loose.append((module, node.lineno, name))
    assert not loose


def test_scripts_touch_declared_keys_only_and_no_late_commands() -> None:
    """Every key comes from KEYS; no KEYS, SCAN, FLUSH; no cmsgpack or struct, which not every server has."""
    allowed = {"T", "I", "THREADS", "EXPIRY", "RUNS", "META", "TOMB", "index", "key", "KEYS[8]", "KEYS[9]"}
    allowed |= {"ITEMS", "ORDER", "EXPIRES", "VECTORS"}  # of the store
    for path in LUA:
        code = "\n".join(line.split("--")[0] for line in path.read_text().splitlines())
        for forbidden in ("cmsgpack", "struct.", "cjson", "'SCAN'", "'KEYS'", "FLUSH", "ZRANGESTORE", "GETEX"):
            assert forbidden not in code, path.stem
        for call in code.split("call('")[1:]:
            arguments = call.split(")")[0].split(",")
            if arguments[0].strip("'") != "TIME":
                assert arguments[1].strip() in allowed, f"{path.stem}: {call[:60]}"


def test_every_script_says_what_it_takes_and_replies() -> None:
    for path in LUA:
        head = path.read_text().split("\nlocal ")[0]
        assert head.startswith("-- "), path.stem
        if path.parent.name != "lib":
            assert "ARGV" in head, path.stem
            assert "Reply" in head, path.stem


def test_the_table_of_scripts_has_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (PACKAGE / "scripts" / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.stem for path in LUA if path.parent.name != "lib")
