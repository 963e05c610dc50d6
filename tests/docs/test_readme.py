"""Every Python block of the README runs, and runs again, as it stands but for the address of the server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10; pip carries the same
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ADDRESS = "redis://localhost:6379/0"
BLOCKS = [
    (README.count("\n", 0, found.start()) + 2, found.group(1))
    for found in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


def run(line: int, block: str, url: str) -> None:
    source = "\n" * (line - 1) + block.replace(ADDRESS, url)  # so that a traceback names the line of the README
    exec(compile(source, str(ROOT / "README.md"), "exec", dont_inherit=True), {"__name__": "readme"})


@pytest.mark.parametrize(("line", "block"), BLOCKS, ids=[f"line-{line}" for line, _ in BLOCKS])
def test_a_python_block_of_the_readme_runs_twice(
    line: int, block: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run(line, block, url)


def test_the_first_block_needs_no_server_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line, block = BLOCKS[0]
    assert ADDRESS not in block
    for number in (1, 2):
        run(line, block, "")
        answer = f"Hello! That was greeting number {number}."
        assert capsys.readouterr().out == answer + "\n"
        assert answer[-9:-1] in README.partition("It prints `")[2].partition("\n\n")[0]


def test_the_readme_has_python_blocks_and_they_use_the_default_address() -> None:
    assert len(BLOCKS) >= 3
    addresses = {found for _, block in BLOCKS for found in re.findall(r"\w+://[^\"]*", block)}
    assert addresses == {ADDRESS}


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 900


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


def test_the_links_on_the_package_index_are_absolute_and_lead_to_the_tag_of_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert hook["fragments"] == [{"path": "README.md"}]
    page = README
    for each in hook["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert len(links) == len(re.findall(r"\]\(", README)) > 10
    base = "https://github.com/OWNER/langgraph-redis-state/blob/v$HFPR_VERSION/"
    assert [link for link in links if not link.startswith(base)] == []
    assert base in hook["substitutions"][0]["replacement"]
    assert "OWNER" not in README
