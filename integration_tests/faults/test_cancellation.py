"""Calls that are cancelled."""

from __future__ import annotations

import asyncio
import contextlib

from calls import BIG
from servers import Server
from shapes import at, checkpoint, metadata, put

from langgraph_redis_state import RedisSaver


async def test_a_cancelled_call_leaves_the_connection_usable(shared: Server, prefix: str) -> None:
    async with RedisSaver(shared.url, prefix=prefix) as saver:
        before = {"x": BIG}
        config = await put(saver, at("t"), before)
        for n in range(60):
            made = checkpoint({"x": [*BIG, n]})
            task = asyncio.create_task(saver.aput(config, made, metadata(step=n), {"x": 1}))
            for _ in range(n % 12):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            found = await saver.aget_tuple(at("t", "", made["id"]))
            assert found is None or found.checkpoint["channel_values"] == {"x": [*BIG, n]}
            assert (await saver.aget_tuple(config)).checkpoint["channel_values"] == before
