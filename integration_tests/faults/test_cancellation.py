"""A call that is cancelled at any of its awaits leaves the thread as it was before or as it is after, and no connection in
a state that another call would stumble over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from calls import BIG
from figures import figure
from servers import Server
from shapes import at, checkpoint, id_of, listed, metadata, plain

from langgraph_redis_state import RedisSaver


class Cancelled:
    """Awaits a call, and cancels the task when the call suspends for the `number`th time, from 0."""

    def __init__(self, number: int, call: Coroutine[Any, Any, Any]) -> None:
        self._number, self._call = number, call
        self.struck = False

    def __await__(self) -> Generator[Any, Any, Any]:
        suspended, resume = 0, self._call.send
        value: Any = None
        while True:
            try:
                waited_for = resume(value)
            except StopIteration as stop:
                return stop.value
            if suspended == self._number:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                self.struck = True
            suspended += 1
            try:
                value, resume = (yield waited_for), self._call.send
            except BaseException as error:  # noqa: BLE001 - thrown into the call
                value, resume = error, self._call.throw


SIX_MB = "put of 6 MB"


class Round:
    """One thread, one call on it that is cancelled, and what came of it."""

    def __init__(self, direct: RedisSaver, saver: RedisSaver, verb: str, thread: str) -> None:
        self.verb, self._saver, self.thread = verb, saver, thread
        config = at(thread)
        for step in range(3):
            made = checkpoint({"x": BIG[: 50 + step], "same": BIG[:50]})
            config = direct.put(config, made, metadata(step=step), made["channel_versions"] if step == 0 else {"x": 1})
        direct.put_writes(config, [("x", BIG[:20]), ("y", 1)], "earlier")
        self.config = config
        self._values = {"x": [f"{n} {n * 7919:x} " * 12 for n in range(60_000 if verb == SIX_MB else 40)], "same": BIG[:50]}
        self._made = checkpoint(self._values)

    def call(self) -> Coroutine[Any, Any, Any]:
        saver, thread = self._saver, self.thread
        if self.verb in ("put", SIX_MB):
            return saver.aput(self.config, self._made, metadata(step=3), {"x": 1})
        if self.verb == "put_writes":
            return saver.aput_writes(self.config, [("x", self._values["x"]), ("y", 2)], "task")
        if self.verb == "get_tuple":
            return saver.aget_tuple(at(thread))
        if self.verb == "list":
            return listed(saver, at(thread, None))
        if self.verb == "copy_thread":
            return saver.acopy_thread(thread, "copy of " + thread)
        assert self.verb == "prune"
        return saver.aprune([thread])

    async def left(self) -> Any:
        threads = (self.thread, "copy of " + self.thread)
        return [[plain(found) for found in await listed(self._saver, at(thread, None))] for thread in threads]

    def is_after(self, left: Any) -> bool:
        thread, copy = left
        if self.verb in ("put", SIX_MB):
            return len(thread) == 4 and thread[0]["checkpoint"]["channel_values"] == dict(sorted(self._values.items()))
        if self.verb == "put_writes":
            return thread[0]["writes"][2:] == [("task", "x", self._values["x"]), ("task", "y", 2)]
        if self.verb == "copy_thread":
            return len(copy) == 3
        return len(thread) == (1 if self.verb == "prune" else 3)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
@pytest.mark.parametrize("verb", ["put", SIX_MB, "put_writes", "get_tuple", "list", "copy_thread", "prune"])
async def test_a_call_cancelled_at_any_await_leaves_before_or_after_and_the_connections_usable(
    shared: Server, prefix: str, verb: str, connected: bool
) -> None:
    reached = done = 0
    options = {"max_connections": 2, "timeout": 5}
    with RedisSaver(shared.url, prefix=prefix) as direct:
        async with RedisSaver(shared.url, prefix=prefix, redis_options=options) as saver:
            for number in itertools.count():
                one = Round(direct, saver, verb, f"t{number}")
                before = await one.left()
                if not connected:
                    await saver._connection.async_client().connection_pool.disconnect()
                cancelled = Cancelled(number, one.call())

                async def awaited(call: Cancelled = cancelled) -> Any:
                    return await call

                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.create_task(awaited())
                if not cancelled.struck:
                    break
                after = await one.left()
                assert after == before or one.is_after(after)
                reached, done = reached + 1, done + (after != before)
                # more calls at once than connections: one that was lost, or holds a stale reply, would show
                found = await asyncio.gather(*(saver.aget_tuple(one.config) for _ in range(4)))
                assert [plain(each)["config"] for each in found] == [(one.thread, "", id_of(one.config))] * 4
                if after == before:
                    await one.call()
                assert one.is_after(await one.left())
    assert reached >= (1 if connected else 2)
    figure(
        f"cancellation of a {verb}, {'connected' if connected else 'not yet connected'}",
        awaits=reached,
        left_as_before=reached - done,
        left_as_after=done,
        anything_else=0,
    )
