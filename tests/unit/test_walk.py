"""The two walks through the code in docs/architecture.md name files and functions that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import langgraph_redis_state

PACKAGE = Path(langgraph_redis_state.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
WALKS = {verb: re.search(rf"## The way of a {verb}\n(.*?)\n## ", PAGE, re.DOTALL) for verb in ("put", "get")}


@pytest.mark.parametrize("verb", WALKS)
def test_a_walk_goes_through_five_files_and_each_function_is_where_it_says(verb: str) -> None:
    found = WALKS[verb]
    assert found is not None
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^$|\Z)", found[1], re.DOTALL | re.MULTILINE)
    assert len(steps) == 5
    for step in steps:
        here = (PACKAGE / step.split("`")[1]).read_text()
        for name, elsewhere in re.findall(r"`(\w+)\(\)`(?: \(in `([\w/.]+)`\))?", step):
            text = (PACKAGE / elsewhere).read_text() if elsewhere else here
            assert re.search(rf"\bdef {name}\(", text), f"{name} in {step[:40]}"
