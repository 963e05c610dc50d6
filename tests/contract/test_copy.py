"""`copy_thread`: complete, independent, and never onto a thread that exists."""

from __future__ import annotations

from typing import Any

import pytest
from exercise import BIG
from langgraph.checkpoint.serde.types import INTERRUPT
from shapes import at, checkpoint, id_of, listed, metadata, plain, put

from langgraph_redis_state.errors import ThreadExistsError, ThreadNotFoundError


async def test_a_copy_is_complete_and_independent_of_its_source(either: Any) -> None:
    config = at("source")
    for n in range(4):
        config = await put(either, config, {"x": [*BIG, n], "small": n}, run_id=f"r{n}", step=n)
        await either.aput_writes(config, [("x", [*BIG, "w"]), (INTERRUPT, "?")], "task", "~path")
        await put(either, at("source", f"child:{n}"), {"x": BIG}, parents={"": id_of(config)})
    source = [plain(found) for found in await listed(either, at("source", None))]
    await either.acopy_thread("source", "target")

    def moved(told: Any) -> Any:
        place = {name: told[name] and ("target", *told[name][1:]) for name in ("config", "parent")}
        return told | place

    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]
    await either.adelete_thread("source")
    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]
    latest = await either.aget_tuple(at("target"))
    child = await either.aput(latest.config, checkpoint({"x": [*BIG, 3], "small": 9}), metadata(), {"small": 2})
    assert (await either.aget_tuple(child)).checkpoint["channel_values"] == {"x": [*BIG, 3], "small": 9}


async def test_copying_refuses_a_missing_source_and_a_taken_target(either: Any) -> None:
    await put(either, at("a"), {"x": "a"})
    await put(either, at("b"), {"x": "b"})
    with pytest.raises(ThreadNotFoundError):
        await either.acopy_thread("nobody", "new")
    with pytest.raises(ThreadExistsError):
        await either.acopy_thread("a", "b")
    assert await either.aget_tuple(at("new")) is None
    assert (await either.aget_tuple(at("b"))).checkpoint["channel_values"] == {"x": "b"}
    await either.adelete_thread("b")
    await either.acopy_thread("a", "b")
    assert (await either.aget_tuple(at("b"))).checkpoint["channel_values"] == {"x": "a"}


async def test_copying_a_thread_onto_itself_is_refused_and_harms_nothing(either: Any) -> None:
    config = await put(either, at("t"), {"x": BIG})
    with pytest.raises((ThreadExistsError, ValueError)):
        await either.acopy_thread("t", "t")
    assert (await either.aget_tuple(config)).checkpoint["channel_values"] == {"x": BIG}
