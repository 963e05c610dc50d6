"""The random histories of test_differential.py once more, by callers that change everything they gave or got at once, on savers
of different options: the tuples must still be those of LangGraph's own saver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from typing import Any

import pytest
from histories import PROFILE, Histories
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from shapes import spoil

from langgraph_redis_state import RedisSaver


def handed(result: Any) -> Any:
    """A copy of what a method gave, which is then spoiled."""
    copy = deepcopy(result)
    spoil(result)
    return copy


class Spoiling(RedisSaver):
    """A saver whose caller spoils what it gave when the call is over, and what it got when it has looked at it."""

    def put(self, *given: Any) -> Any:
        copies = deepcopy(given)
        result = handed(super().put(*copies))
        spoil(copies)
        return result

    async def aput(self, *given: Any) -> Any:
        copies = deepcopy(given)
        result = handed(await super().aput(*copies))
        spoil(copies)
        return result

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        copies = deepcopy((config, writes))
        super().put_writes(*copies, task_id, task_path)
        spoil(copies)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        copies = deepcopy((config, writes))
        await super().aput_writes(*copies, task_id, task_path)
        spoil(copies)

    def get_tuple(self, config: Any) -> Any:
        return handed(super().get_tuple(deepcopy(config)))

    async def aget_tuple(self, config: Any) -> Any:
        return handed(await super().aget_tuple(deepcopy(config)))

    def list(self, config: Any, **options: Any) -> Iterator[Any]:
        copies = deepcopy((config, options))
        listing = super().list(copies[0], **copies[1])
        spoil(copies)
        return map(handed, listing)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[Any]:
        copies = deepcopy((config, options))
        listing = super().alist(copies[0], **copies[1])
        spoil(copies)
        async for found in listing:
            yield handed(found)


class Callers(Histories):
    """One thread, two savers: one with a TTL and a small cache, the other with none of both and another compression."""

    def __init__(self) -> None:
        super().__init__()
        for each in (self.one, self.other):
            each.close()
        self.one = Spoiling(self.url, prefix=self.prefix, ttl=3600, cache_bytes=100_000)
        self.other = Spoiling(self.url, prefix=self.prefix, compression="zlib", cache_bytes=0, max_versions=10_000)
        self.awaited = Spoiling(self.url, prefix=f"{self.prefix}-a", index_metadata=["user"])


@pytest.mark.longer
def test_histories_are_equal_though_callers_change_what_they_gave_and_got(url: str) -> None:
    fewer = settings(PROFILE, max_examples=max(2, PROFILE.max_examples // 4))
    run_state_machine_as_test(type("Callers", (Callers,), {"url": url}), settings=fewer)
