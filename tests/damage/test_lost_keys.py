"""A thread of which the server lost one key or parts: rebuilt, or lost and never empty."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import at, listed, plain, put

from langgraph_redis_state.errors import CheckpointLostError


async def test_a_thread_whose_data_vanished_under_its_index_is_lost_and_not_new(either: Any, prefix: str, raw: Any) -> None:
    await put(either, at("t"), {"x": 1})
    assert raw.delete(*raw.scan_iter(match=f"{prefix}:{{*}}:t:t", count=10_000)) == 1
    with pytest.raises(CheckpointLostError, match="t"):
        await either.aget_tuple(at("t"))
    with pytest.raises(CheckpointLostError):
        await listed(either, at("t"))
    await put(either, at("t"), {"x": "a new run"})
    assert [t.checkpoint["channel_values"] for t in await listed(either, at("t"))] == [{"x": "a new run"}]


async def test_a_thread_whose_index_vanished_is_found_again(either: Any, prefix: str, raw: Any) -> None:
    made = [await put(either, at("t", ns), {"x": ns}) for ns in ("", "child:1", "")]
    await either.aput_writes(made[2], [("x", 1)], "task")
    expected = [plain(found) for found in await listed(either, at("t", None))]
    assert raw.delete(*raw.scan_iter(match=f"{prefix}:{{*}}:i:t", count=10_000)) == 1
    assert plain(await either.aget_tuple(at("t"))) == expected[0]
    assert [plain(found) for found in await listed(either, at("t", None))] == expected
