"""Metadata: what is stored with a checkpoint, and what a filter chooses."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from shapes import assert_same, at, checkpoint, ids, metadata
from soak import mostly, times


async def test_metadata_takes_in_what_the_config_carries(either: Any, memory: InMemorySaver) -> None:
    made = checkpoint({"x": 1})
    config = {
        "configurable": {
            **at("t")["configurable"],
            "run_id": "from configurable",
            "user": "u1",
            "age": 7,
            "share": 0.5,
            "yes": True,
            "nothing": None,
            "nested": {"left": "out"},
            "__hidden": "x",
            "langgraph_step": 3,
            "nul": "a\0b",
        },
        "metadata": {"run_id": "from metadata", "user": "not this", "assistant": "a1", "step": 99, "list": [1]},
        "tags": ["x"],
    }
    told = metadata(step=3, text="with \0 in it", deep={"a": [1, {"b": None}]})
    for saver in (either, memory):
        await saver.aput(config, made, told, {"x": 1})
    expected = (await memory.aget_tuple(at("t"))).metadata
    assert (expected["run_id"], expected["step"], expected["user"]) == ("from metadata", 3, "not this")
    assert_same(expected, (await either.aget_tuple(at("t"))).metadata)
    assert await ids(either, at("t"), filter={"assistant": "a1", "age": 7}) == [made["id"]]
    await either.adelete_for_runs(["from metadata"])
    assert await either.aget_tuple(at("t")) is None


RECORDS: list[dict[str, Any]] = [
    {"k": None},
    {"k": 1},
    {"k": True},
    {"k": 1.0},
    {"k": 0},
    {"k": False},
    {"k": ""},
    {"k": "1"},
    {"k": []},
    {"k": {}},
    {"k": {"a": 1}},
    {"k": {"a": 1, "b": {"c": [1, 2]}}},
    {"k": {"b": {"c": [1, 2]}, "a": 1}},
    {"k": {"a": None}},
    {"k": [1, 2]},
    {"k": float("nan")},
    {"K": 1},
    {"k.a": 1},
    {'k"]': 1, "": 2, "é 😀": "ü", "*": "*"},
    {},
]
FILTERS: list[dict[str, Any]] = [
    *({"k": record["k"]} for record in RECORDS if "k" in record),
    *({"k.a": 1}, {"K": 1}, {'k"]': 1}, {"": 2}, {"é 😀": "ü"}, {"*": "*"}, {"*": "anything"}, {"absent": None}),
    *({}, {"k": 1, "K": 1}, {"k": {"a": 1}, "source": "loop"}, {"source": "loop"}, {"source": "input"}, {"step": 0}),
    *({"parents": {}}, {"parents": {"": "x"}}, {"parents": None}, {"k": (1, 2)}, {"k": {"a": True}}),
]


@pytest.mark.longer
@mostly("async")
async def test_filters_choose_what_the_in_memory_saver_chooses(either: Any, memory: InMemorySaver) -> None:
    for record in RECORDS:
        made = checkpoint()
        for saver in (either, memory):
            await saver.aput(at("t"), made, metadata(**record), {})
    for n, chosen in enumerate(FILTERS):
        expected = await ids(memory, at("t"), filter=chosen)
        assert await ids(either, at("t"), filter=chosen) == expected, chosen
        assert await ids(either, at("t"), filter=chosen, limit=1) == expected[:1], chosen
        if n % times(4, 1, 1) == 0:  # looks at each bucket
            assert await ids(either, None, filter=chosen) == expected, chosen
