"""The files of docs/recipes.md as a reader has them, and an embedded server. `make recipes` starts these tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langgraph_redis_state import EmbeddedServer

sys.path.insert(1, str(Path(__file__).parent))

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
ADDRESS = "redis://localhost:6379/0"


def recipe(name: str) -> str:
    """The block of the page whose first line is a comment with this name."""
    found = re.findall(rf"^```\w+\n(# {re.escape(name)}\n.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{PAGE} has {len(found)} blocks that begin with # {name}"
    return str(found[0])


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start() as running:
        yield running


@pytest.fixture
def written(tmp_path: Path, server: EmbeddedServer) -> Callable[[str], Path]:
    """Writes a recipe into the test's folder. Only the address of the server is another one."""

    def write(name: str, **replaced: str) -> Path:
        text = recipe(name).replace(ADDRESS, server.url)
        for old, new in replaced.items():
            text, count = re.subn(rf"^{old}\b.* = .*$", new, text, flags=re.MULTILINE)
            assert count == 1, old
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write
