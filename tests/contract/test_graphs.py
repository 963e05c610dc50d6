"""Real graphs on RedisSaver and on InMemorySaver, side by side: same results, same state, same history, step by step."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from playing import DURABILITIES, Play
from scenarios import SCENARIOS
from shapes import assert_same
from soak import rare

from langgraph_redis_state import RedisSaver


def other_process(url: str, prefix: str, opened: list[Any]) -> Callable[[], Any]:
    """A saver with nothing in memory for every move of a script."""

    def open_saver() -> Any:
        opened.append(RedisSaver(url, prefix=prefix))
        return opened[-1]

    return open_saver


@functools.cache
def in_memory(name: str, awaited: bool, durability: str) -> list[tuple[str, Any]]:
    build, script = SCENARIOS[name]
    memory = InMemorySaver()
    return asyncio.run(Play(build, lambda: memory, awaited, durability).perform(script))


WAYS = [("cold", "sync"), *((surface, durability) for surface in ("async", "sync") for durability in DURABILITIES)]
PLAYED = [(name, *way) if way == WAYS[n % len(WAYS)] else rare(name, *way) for n, name in enumerate(SCENARIOS) for way in WAYS]
"""Each scenario in one of the ways in turn; `make soak` plays it in every way."""


@pytest.mark.longer
@pytest.mark.parametrize(("name", "surface", "durability"), PLAYED)
def test_same_results_state_and_history_as_in_memory(url: str, prefix: str, name: str, surface: str, durability: str) -> None:
    build, script = SCENARIOS[name]
    opened = [RedisSaver(url, prefix=prefix)]
    on_redis = other_process(url, prefix, opened) if surface == "cold" else lambda: opened[0]
    play = Play(build, on_redis, surface == "async", durability)

    async def perform() -> list[tuple[str, Any]]:
        try:
            return await play.perform(script)
        finally:
            for saver in opened:
                await saver.aclose()

    found = asyncio.run(perform())
    expected = in_memory(name, surface == "async", durability)
    for n, (told, telling) in enumerate(zip(expected, found, strict=True)):
        assert_same({f"{n}: {told[0]}": told[1]}, {f"{n}: {telling[0]}": telling[1]})
