"""Large numbers: more channels, writes, threads and runs than one script or one page takes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from audit import audit, keys_of
from shapes import at, checkpoint, id_of, ids, listed, metadata, put
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching.parts import ChunkCache


async def test_more_channels_and_writes_than_lua_can_unpack(asaver: RedisSaver) -> None:
    names = [f"channel {n}" for n in range(8_200)]
    values = {name: [n, "x" * 100] for n, name in enumerate(names)}
    config = await put(asaver, at("t"), values)
    await asaver.aput_writes(config, [(name, n) for n, name in enumerate(names)], "task")
    found = await asaver.aget_tuple(config)
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [("task", name, n) for n, name in enumerate(names)]
    child = await asaver.aput(config, checkpoint(values | {"more": 1}), metadata(), {"more": 1})
    await asaver.acopy_thread("t", "copy")
    await asaver.aprune(["t"])
    assert (await asaver.aget_tuple(at("t"))).checkpoint["channel_values"] == values | {"more": 1}
    assert await ids(asaver, at("t")) == [id_of(child)]
    assert len((await asaver.aget_tuple(at("copy", "", id_of(config)))).pending_writes) == 8_200
    await asaver.adelete_thread("copy")
    assert await asaver.aget_tuple(at("copy")) is None


async def test_chunks_of_a_large_value_are_looked_for_off_the_event_loop(
    asaver: RedisSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, have = list[bool](), ChunkCache.have

    def watched(*arguments: Any) -> Any:
        looked.append(threading.current_thread() is threading.main_thread())
        return have(*arguments)

    monkeypatch.setattr(ChunkCache, "have", watched)
    for thread, entries in (("small", 300), ("large", 15_000)):
        value = {f"key {n}": [n, "v" * 60] for n in range(entries)}
        await put(asaver, at(thread), {"x": value})
        found = await asaver.aget_tuple(at(thread))
        assert found.checkpoint["channel_values"] == {"x": value}
    assert looked == [True, False]


@pytest.mark.longer
async def test_more_threads_and_runs_than_a_page(asaver: RedisSaver) -> None:
    count = times(450, 1_100, 1_100)
    for start in range(0, count, 50):
        of_one = (put(asaver, at(f"t{n}"), run_id="one run" if n % 2 else f"run {n}") for n in range(start, start + 50))
        await asyncio.gather(*of_one)
    assert len(await ids(asaver, None)) == count
    await asaver.adelete_for_runs(["one run"])
    assert {t.config["configurable"]["thread_id"] for t in await listed(asaver, None)} == {f"t{n}" for n in range(0, count, 2)}
    await asaver.aprune([f"t{n}" for n in range(count)], strategy="delete")
    assert await ids(asaver, None) == []


@pytest.mark.longer
async def test_thousands_of_checkpoints_are_all_there_whatever_the_page(asaver: RedisSaver, raw: Any, prefix: str) -> None:
    made = [f"{n:05}" for n in range(times(1_100, 12_000, 12_000))]

    async def write(name: str) -> None:
        ns = "" if int(name) % 3 else f"sub:{int(name) % 7}"
        one = checkpoint({"n": name}, id=name)
        await asaver.aput(at("t", ns), one, metadata(), {"n": 1})

    for start in range(0, len(made), 50):
        await asyncio.gather(*(write(name) for name in made[start : start + 50]))
    newest_first = made[::-1]

    async def ids(**options: Any) -> list[str]:
        return [id_of(found.config) async for found in asaver.alist(at("t", None), **options)]

    assert await ids() == newest_first
    assert await ids(limit=1) == newest_first[:1]
    assert await ids(limit=101) == newest_first[:101]
    paged: list[str] = []
    while page := await ids(limit=500, before=at("t", checkpoint_id=paged[-1]) if paged else None):
        paged += page
    assert paged == newest_first
    assert await ids(filter={"step": 0}, limit=2_100) == newest_first[:2_100]
    audit(raw, prefix, "t", clean=True)
    await asaver.adelete_thread("t")
    assert keys_of(raw, prefix) == {"x:t", f"{prefix}:layout"}
