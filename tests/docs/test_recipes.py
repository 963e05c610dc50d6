"""The recipe that needs no other package than LangGraph; integration_tests/recipes has the others."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from shapes import SyncSurface, at, put

from langgraph_redis_state import RedisSaver

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@dataclass
class Other:
    """A type that nobody allowed."""

    number: int


@pytest.fixture
def upgrading(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the recipe."""
    found = re.search(r"^```python\n(# upgrading.py\n.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    module = types.ModuleType("upgrading")
    monkeypatch.setitem(sys.modules, "upgrading", module)
    exec(found[1].replace("redis://localhost:6379/0", url).replace('"shop"', repr(prefix)), vars(module))
    module.saver.close()
    return module


async def test_values_are_upgraded_and_redacted_when_they_are_loaded_and_types_are_still_refused(
    url: str, prefix: str, upgrading: Any
) -> None:
    old = {"bill": {"invoice": 7, "euros": 12.34}, "said": [HumanMessage("it is 1234 5678 1234 5678")], "other": Other(1)}
    with RedisSaver(url, prefix=prefix) as before:
        await put(SyncSurface(before), at("t"), old)

    state: Any = TypedDict("State", {"bill": upgrading.Invoice}, total=False)

    def again(state: Any) -> dict[str, Any]:
        return {"bill": upgrading.Invoice(state["bill"].cents + 1)}

    with RedisSaver(url, prefix=prefix, serde=upgrading.Upgrading(allowed_msgpack_modules=None)) as saver:
        allowed = saver.with_allowlist([("upgrading", "Invoice")])
        found = allowed.get_tuple(at("t"))
        assert found is not None
        values = found.checkpoint["channel_values"]
        assert values["bill"] == upgrading.Invoice(1234)
        assert values["said"][0].content == "it is [card number]"
        assert values["other"] == {"number": 1}, "a type that is not allowed is still its plain parts"
        graph = StateGraph(state).add_node(again).add_edge(START, "again").compile(checkpointer=allowed)
        thread: Any = {"configurable": {"thread_id": "new"}}
        graph.invoke({"bill": upgrading.Invoice(5)}, thread)
        assert graph.get_state(thread).values["bill"] == upgrading.Invoice(6), "an allowed type comes back as itself"
    with RedisSaver(url, prefix=prefix, serde=JsonPlusSerializer()) as plain:
        found = plain.get_tuple(at("t"))
        assert found is not None
        assert found.checkpoint["channel_values"]["bill"] == old["bill"], "what is stored did not change"
