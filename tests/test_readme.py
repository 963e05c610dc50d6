"""Every Python block of the README runs as it stands, but for the address of the server."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import langgraph_redis_state
from langgraph_redis_state import errors
from langgraph_redis_state.client import clients, options

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ADDRESS = "redis://localhost:6379/0"
BLOCKS = [
    (README.count("\n", 0, found.start()) + 2, found.group(1))
    for found in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("line", "block"), BLOCKS, ids=[f"line-{line}" for line, _ in BLOCKS])
def test_a_python_block_of_the_readme_runs(line: int, block: str, url: str) -> None:
    source = "\n" * (line - 1) + block.replace(ADDRESS, url)  # so that a traceback names the line of the README
    exec(compile(source, str(ROOT / "README.md"), "exec"), {"__name__": "readme"})


def test_the_readme_has_python_blocks_and_they_use_the_default_address() -> None:
    assert len(BLOCKS) >= 6
    addresses = {found for _, block in BLOCKS for found in re.findall(r"\w+://[^\"]*", block)}
    assert addresses == {ADDRESS}


def test_the_readme_lists_every_option_of_the_constructor() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| [^|]+ \|$", README, re.MULTILINE)
    named = re.findall(r"\w+", " ".join(rows))
    assert named == list(inspect.signature(langgraph_redis_state.RedisSaver).parameters)


def test_the_readme_tells_the_defaults_of_the_constructor() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \| [^|]+ \|$", README, re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    others = {"LangGraph's": None, "64 MiB": 64 * 1024 * 1024}
    options = inspect.signature(langgraph_redis_state.RedisSaver).parameters.values()
    for option in options:
        default = told[option.name]
        value = others[default] if default in others else ast.literal_eval(default.strip("`"))
        assert value == option.default, option.name


def test_the_readme_compares_with_the_figures_of_the_published_run() -> None:
    run = json.loads((ROOT / "docs" / "benchmarks" / "benchmarks.json").read_text("utf-8"))["sections"]
    chat, short = run["long chat"], run["short chats"]
    names = {
        "this package": "this",
        "langgraph-checkpoint-redis": "checkpoint-redis",
        "ValkeySaver (langgraph-checkpoint-aws)": "ValkeySaver",
        "langgraph-checkpoint-plainredis": "plainredis",
        "`InMemorySaver`": "InMemorySaver",
    }
    columns: list[tuple[dict[str, Any], str, float]] = [
        ({name: sizes["500"] for name, sizes in chat["memory"].items()}, "MB", 1e6),
        ({name: each["median_ms"] for name, each in chat["put at 500"]["put"].items()}, "ms", 1),
        ({name: each["sent"] for name, each in chat["traffic"]["put"].items()}, "KB", 1e3),
        ({name: each["median_ms"] for name, each in chat["reads"]["get_tuple latest"].items()}, "ms", 1),
        ({name: each["median_ms"] for name, each in short["put"].items()}, "ms", 1),
    ]
    table = README.partition("\n## How it compares")[2]
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]*(?:\|[^|]*){4}) \|$", table, re.MULTILINE))
    for row, name in names.items():
        for cell, (measured, unit, scale) in zip(rows[row].split("|"), columns, strict=True):
            figure = cell.strip().removeprefix("about ")
            if name not in measured:
                assert not figure, row
                continue
            number, _, of = figure.partition(" ")
            assert of == unit, row
            exactly = measured[name] / scale
            assert float(number) == round(exactly, len(number.partition(".")[2])), f"{row}: {exactly} is told as {figure}"


def test_the_readme_lists_every_error() -> None:
    table = re.findall(r"^\| `(\w+Error)` \|", README, re.MULTILINE)
    assert sorted(table) == sorted(set(errors.__all__) - {"CheckpointerError"})


def test_the_readme_names_every_method_of_the_saver_that_langgraph_does_not_call() -> None:
    saver = langgraph_redis_state.RedisSaver
    called = {"get", "get_tuple", "list", "put", "put_writes", "config_specs", "get_next_version", "get_delta_channel_history"}
    called.add("with_allowlist")
    public = {name for name in dir(saver) if not name.startswith("_")}
    twins = {name for name in public if name[1:] in public and name.startswith("a")}
    assert {name for name in public - twins - called if f"`{name}" not in README and f".{name}(" not in README} == set()


def test_the_links_of_the_readme_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_connection_defaults_are_those_of_the_code() -> None:
    readme, said = " ".join(README.split()), options.DEFAULTS
    for sentence in (
        f"open at most {said['max_connections']} connections (`max_connections`;",
        f"wait up to {said['timeout']:g} seconds (`timeout`)",
        f"up to {options._RETRIES} times (`retry`)",
        f"wait {said['socket_connect_timeout']:g} seconds for a connection (`socket_connect_timeout`)",
        f"and {said['socket_timeout']:g} for an answer (`socket_timeout`)",
        f"idle for {said['health_check_interval']} (`health_check_interval`), and speak RESP{said['protocol']} (`protocol`)",
        f"waited for {clients.SENTINEL_SECONDS:g} seconds",
    ):
        assert sentence in readme
