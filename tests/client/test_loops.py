"""One saver for event loops, threads and tasks, and after it was closed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
import redis
import redis.asyncio
from shapes import SyncSurface, at, checkpoint, ids, metadata, plain, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import SaverClosedError


def test_one_saver_serves_several_event_loops_one_after_the_other(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)

    async def use(n: int) -> int:
        await put(saver, at("t"), {"x": n})
        return (await saver.aget_tuple(at("t"))).checkpoint["channel_values"]["x"]

    assert [asyncio.run(use(n)) for n in range(3)] == [0, 1, 2]
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"x": 2}
    saver.close()


def test_one_saver_serves_threads_with_and_without_loops_at_the_same_time(url: str, prefix: str) -> None:
    failures: list[BaseException] = []
    with RedisSaver(url, prefix=prefix) as saver:
        start = threading.Barrier(6)

        async def use(surface: Any, thread: str) -> None:
            config = at(thread)
            for n in range(25):
                config = await put(surface, config, {"x": [thread, n]})
                await surface.aput_writes(config, [("x", n)], "task")
                found = await surface.aget_tuple(at(thread))
                assert found.checkpoint["channel_values"] == {"x": [thread, n]}
            assert len(await ids(surface, at(thread))) == 25

        def body(n: int) -> None:
            try:
                start.wait()
                asyncio.run(use(saver if n % 2 else SyncSurface(saver), f"thread {n}"))
            except BaseException as failure:  # noqa: BLE001 - handed to the test's own thread
                failures.append(failure)

        threads = [threading.Thread(target=body, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(list(saver.list(None))) == 150


async def test_many_tasks_of_one_loop_share_a_saver(asaver: RedisSaver) -> None:
    async def use(n: int) -> None:
        for step in range(3):
            await put(asaver, at(f"t{n}"), {"x": [n, step]})

    await asyncio.gather(*(use(n) for n in range(40)))
    assert {len(await ids(asaver, at(f"t{n}"))) for n in range(40)} == {3}


async def test_sync_and_async_methods_of_one_saver_see_the_same(saver: RedisSaver) -> None:
    config = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    await saver.aput_writes(config, [("x", 2)], "task")
    assert plain(saver.get_tuple(config)) == plain(await saver.aget_tuple(config))
    assert (await saver.aget_tuple(config)).pending_writes == [("task", "x", 2)]
    await saver.aclose()


def test_a_saver_is_made_without_a_loop_and_without_a_server() -> None:
    RedisSaver("redis://127.0.0.1:1/0").close()


def test_a_closed_saver_says_so(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    saver.put(at("t"), checkpoint(), metadata(), {})
    saver.close()
    saver.close()
    for call in (
        lambda: saver.get_tuple(at("t")),
        lambda: saver.put(at("t"), checkpoint(), metadata(), {}),
        lambda: list(saver.list(None)),
        saver.ping,
        lambda: asyncio.run(saver.aget_tuple(at("t"))),
    ):
        with pytest.raises(SaverClosedError, match="closed"):
            call()


def test_an_injected_async_client_is_refused_in_another_loop(url: str, prefix: str) -> None:
    async def make() -> tuple[RedisSaver, Any]:
        client = redis.asyncio.Redis.from_url(url)
        saver = RedisSaver(async_client=client, prefix=prefix)
        await put(saver, at("t"), {"x": 1})
        assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 1}
        await client.aclose()
        return saver, client

    saver, _ = asyncio.run(make())
    with pytest.raises(SaverClosedError, match="loop"):
        asyncio.run(saver.aget_tuple(at("t")))


def test_several_threads_of_a_new_process_begin_at_once() -> None:
    code = """
    import threading
    from concurrent.futures import ThreadPoolExecutor
    from langgraph_redis_state.client.library import redis_module

    names = [".connection", ".asyncio.connection", ".asyncio", ".retry", ".cluster", ".asyncio.cluster"]
    together = threading.Barrier(len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: together.wait() and None or redis_module(name), names))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
