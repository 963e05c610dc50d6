"""The tables of docs/reference.md and docs/security.md say what the code does."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import langgraph_redis_state
from langgraph_redis_state import Fsync, RedisSaver, Replicas, errors

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text("utf-8")


def table(text: str, *columns: str) -> list[dict[str, str]]:
    """The rows of the only table with these columns."""
    found = re.findall(rf"^\| {re.escape(' | '.join(columns))} \|\n\|[-| ]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert len(found) == 1, columns
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found[0].splitlines()]
    return [dict(zip(columns, (cell.strip().replace(r"\|", "|") for cell in row), strict=True)) for row in rows]


OPTIONS = table(REFERENCE, "option", "type", "default", "meaning")
ERRORS = table(REFERENCE, "error", "also a", "when", "what to do")
URLS = table(REFERENCE, "URL", "server", "default port")
VERBS = table(REFERENCE, "sync", "async", "what it does")
CONNECTIONS = {
    row["option"].strip("`"): row["default"].strip("`") for row in table(REFERENCE, "option", "default", "unit", "meaning")
}
LEVELS = table(REFERENCE, "level", "default timeout", "a write is done when", "what can be lost")


def test_every_option_of_the_constructor_is_listed_in_order() -> None:
    named = re.findall(r"\w+", " ".join(row["option"] for row in OPTIONS))
    assert named == list(inspect.signature(RedisSaver).parameters)


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row["option"].strip("`"))
def test_the_default_of_an_option_is_that_of_the_constructor(row: dict[str, str]) -> None:
    others = {"LangGraph's": None, "64 MiB": 64 * 1024 * 1024}
    default = row["default"]
    value = others[default] if default in others else ast.literal_eval(default.strip("`"))
    assert value == inspect.signature(RedisSaver).parameters[row["option"].strip("`")].default


def test_every_error_is_listed_with_its_bases_and_what_to_do() -> None:
    told = {row["error"].strip("`"): set(re.findall(r"\w+", row["also a"])) for row in ERRORS}
    classes = [
        name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, errors.CheckpointerError)
    ]
    assert list(told) == [name for name in classes if name != "CheckpointerError"]
    for name, bases in told.items():
        assert bases == {base.__name__ for base in getattr(errors, name).__bases__} - {"CheckpointerError"}, name
        assert hasattr(langgraph_redis_state, name)
    assert all(row["when"].endswith(".") and row["what to do"].endswith(".") for row in ERRORS)


def test_the_errors_of_the_standard_library_in_the_table_exist() -> None:
    for row in ERRORS:
        for name in re.findall(r"\w+", row["also a"]):
            assert hasattr(builtins, name) or hasattr(errors, name)


def test_the_listed_urls_are_those_that_an_error_names() -> None:
    with pytest.raises(ValueError, match="allowed are") as caught:
        RedisSaver("http://localhost")
    allowed = str(caught.value).partition("allowed are: ")[2]
    assert [row["URL"].strip("`") for row in URLS] == re.split(r", (?=\w[\w+]*://)", allowed.removesuffix("."))


@pytest.mark.parametrize("row", URLS, ids=lambda row: row["URL"].partition("://")[0].strip("`"))
def test_a_url_without_a_port_means_the_default_port(row: dict[str, str]) -> None:
    scheme = row["URL"].strip("`").partition("://")[0]
    path = {"unix": "/tmp/lgrs.sock", "redis+sentinel": "host/service", "rediss+sentinel": "host/service"}.get(scheme, "host")
    with RedisSaver(f"{scheme}://{path}") as saver:
        assert re.findall(r"host:(\d+)", repr(saver)) == ([row["default port"]] if row["default port"] else [])


def test_the_connection_defaults_are_those_of_the_clients_that_the_saver_builds() -> None:
    with RedisSaver("redis://host") as saver:
        pool = saver.client.connection_pool
        settings = {**pool.connection_kwargs, "max_connections": pool.max_connections, "timeout": pool.timeout}
        told = {name: ast.literal_eval(default) for name, default in CONNECTIONS.items() if name in settings.keys() - {"retry"}}
        assert len(told) == len(CONNECTIONS) - 2
        assert told == {name: settings[name] for name in told}
        assert CONNECTIONS["retry"] == f"{settings['retry']._retries} retries"
    with RedisSaver("redis+sentinel://host/service") as saver:
        (sentinel,) = saver.client.connection_pool.sentinel_manager.sentinels
        asked = sentinel.connection_pool.connection_kwargs
        assert CONNECTIONS["sentinel_kwargs"] == f"{asked['socket_timeout']:g} s timeouts"
        assert asked["socket_timeout"] == asked["socket_connect_timeout"]


def test_every_verb_is_listed_with_its_twin() -> None:
    public = {name for name in dir(RedisSaver) if not name.startswith("_")}
    twins = {name: f"a{name}" for name in public if f"a{name}" in public}
    assert {row["sync"].strip("`"): row["async"].strip("`") for row in VERBS} == twins
    alone = public - set(twins) - set(twins.values()) - {"config_specs", "serde"}
    assert alone - {"from_url", "from_conn_string", "embedded"} == {"with_allowlist", "get_next_version", "client"}
    for name in alone:
        assert f"`{name}`" in REFERENCE or f"RedisSaver.{name}" in REFERENCE, name


@pytest.mark.parametrize("row", LEVELS[1:], ids=lambda row: row["level"])
def test_the_timeouts_of_durability_are_those_of_the_classes(row: dict[str, str]) -> None:
    level: Any = Fsync() if "Fsync" in row["level"] else Replicas(1)
    assert row["default timeout"] == f"{level.timeout} seconds"


def test_the_rights_are_those_that_the_integration_tests_hold() -> None:
    tree = ast.parse((ROOT / "integration_tests" / "conftest.py").read_text("utf-8"))
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.endswith("RIGHTS")
    }
    quoted, looking = re.findall(r"^```\n(resetchannels .*?)^```$", SECURITY, re.MULTILINE | re.DOTALL)
    assert quoted.split() == constants["RIGHTS"].split()
    assert looking.split() == constants["LOOKING_RIGHTS"].split()
    assert f"- a Cluster: `{constants['CLUSTER_RIGHTS']}`\n" in SECURITY
    levels = {"Replicas": "durability=Replicas(n)", 'Replicas("all")': 'Replicas("all")', "Fsync": "Fsync()"}
    assert levels.keys() == constants["DURABILITY_RIGHTS"].keys()
    for name, rights in constants["DURABILITY_RIGHTS"].items():
        said = " and ".join(f"`{right}`" for right in rights.split())
        assert f"`{levels[name]}`: {said}" in SECURITY
