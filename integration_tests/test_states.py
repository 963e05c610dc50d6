"""The two state APIs on every server there is (`conftest.TARGETS`), sync and async, and what breaks around them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conftest import TOPOLOGIES_OF, Servers
from servers import Server, single
from shapes import state_calls
from states import Surface

from langgraph_redis_state import (
    AgentCheckpointer,
    AgentStateSnapshot,
    CheckpointerError,
    RedisStatePersistence,
    ServerUnavailableError,
    TodoItem,
)
from langgraph_redis_state.storage.keys import ThreadKeys

FIELDS = {f"field {n}": f"{n} some words that differ " * 20 for n in range(40)}
"""About 20 KB; with references enough for pages of them."""

Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
async def open_on(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens an API at a server. The test awaits its methods, which are sync ones every other time."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(api: Any, server: Server, prefix: str, **options: Any) -> Any:
            redis_options = {**server.options, **options.pop("redis_options", {})}
            made = api(server.url_for(prefix), prefix=f"{prefix}:states", redis_options=redis_options, **options)
            return Surface(await stack.enter_async_context(made), request.param == "async")

        yield open_one


def snapshot(n: int) -> AgentStateSnapshot:
    return AgentStateSnapshot(todos=[TodoItem.pending(f"todo {n}")], files={"f": f"{n} " * 2_000}, scratchpad={"n": n})


# --- on every server --------------------------------------------------------------------------------------------------


async def test_states_are_versioned_found_taken_back_and_deleted(target: Server, prefix: str, open_on: Open) -> None:
    states = await open_on(RedisStatePersistence, target, prefix, max_versions=4, default_ttl=100)
    assert await states.ping()
    for n in range(1, 7):
        saved = await states.save_with_metadata({**FIELDS, "n": n}, "s", tags=["all", f"t{n}"])
        assert (saved.version, round(saved.ttl_seconds)) == (n, 100)
    assert [each.version for each in await states.list_versions("s")] == [3, 4, 5, 6]
    state, metadata = await states.load_with_metadata("s")
    assert (state, metadata.version, metadata.tags) == ({**FIELDS, "n": 6}, 6, ["all", "t6"])
    assert (await states.load_with_metadata("s", 4))[0]["n"] == 4
    assert await states.load_with_metadata("s", 1) is None
    assert (await states.rollback("s", 5)).version == 7
    assert (await states.save_with_metadata({"n": "given"}, "s", version="given", ttl_seconds=500)).version == "given"
    assert (await states.save_with_metadata({"n": "again"}, "s", version="given")).version == "given"
    assert await states.delete_version("s", "given")
    assert (await states.rollback("s", 6, truncate=True)).version == 6
    assert [each.version for each in await states.list_versions("s")] == [5, 6]
    assert await states.touch("s", 50)
    other = await open_on(RedisStatePersistence, target, prefix)
    for n in range(20):
        await other.save_with_metadata([n], f"state {n}", tags=["list"])
    assert len(await other.list_states()) == 21
    assert len(await other.search_by_tags(["list"])) == 20
    assert [each.state_id for each in await other.search_by_tags(["all"])] == ["s"]
    assert (await other.save_with_metadata({"n": 8}, "s")).version == 9
    stats = await states.get_stats()
    assert (stats["states"], stats["versions"]) == (21, 23)
    assert target.grant or stats["redis_info"]["used_memory"] > 0
    for n in range(20):
        assert await states.delete_state(f"state {n}")
    assert await states.delete_state("s")
    assert target.keys(f"{prefix}:states") == [f"{prefix}:states:layout".encode()]


async def test_agent_threads_are_kept_listed_and_deleted(target: Server, prefix: str, open_on: Open) -> None:
    agents = await open_on(AgentCheckpointer, target, prefix, ttl=100)
    for n in range(3):
        for thread in ("a", "b"):
            await agents.save_state(thread, snapshot(n))
    assert await agents.list_threads() == ["b", "a"]
    assert await agents.load_state("a") == snapshot(2)
    await agents.delete_thread("a")
    assert await agents.load_state("a") is None
    assert await agents.list_threads() == ["b"]
    await agents.delete_thread("b")
    assert target.keys(f"{prefix}:states") == [f"{prefix}:states:layout".encode()]


async def test_savers_of_one_state_lose_no_version_and_give_none_twice(target: Server, prefix: str, open_on: Open) -> None:
    stores = [await open_on(RedisStatePersistence, target, prefix, max_versions=50) for _ in range(3)]

    async def save(who: int, n: int) -> Any:
        return await stores[who].save_with_metadata({**FIELDS, "who": who, "n": n}, "s")

    if stores[0].is_async:
        saved = await asyncio.gather(*(save(who, n) for who in range(3) for n in range(10)))
    else:
        saved = []

        def run(who: int) -> None:
            saved.extend(stores[who].store.save_with_metadata({**FIELDS, "who": who, "n": n}, "s") for n in range(10))

        threads = [threading.Thread(target=run, args=(who,)) for who in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert sorted(each.version for each in saved) == list(range(1, 31))
    versions = await stores[0].list_versions("s")
    assert [each.version for each in versions] == list(range(1, 31))
    contents = [(await stores[1].load_with_metadata("s", n))[0] for n in range(1, 31)]
    assert {(each["who"], each["n"]) for each in contents} == {(who, n) for who in range(3) for n in range(10)}


async def test_a_flipped_byte_is_an_error(target: Server, prefix: str, open_on: Open) -> None:
    states = await open_on(RedisStatePersistence, target, prefix, cache_bytes=0)
    agents = await open_on(AgentCheckpointer, target, f"{prefix}:a" if not target.grant else prefix, cache_bytes=0)
    await states.save_with_metadata(FIELDS, "s")
    await agents.save_state("t", snapshot(1))
    reads = {"s": lambda: states.load_with_metadata("s"), "t": lambda: agents.load_state("t")}
    for name, read in reads.items():
        owner = states if name == "s" else agents
        keys = ThreadKeys(owner.store._engine.settings.prefix, name.encode())
        before = await read()
        for field, content in target.admin.hgetall(keys.hash).items():
            if field[:1] in (b"C", b"D"):
                at = len(content) // 2
                target.admin.hset(keys.hash, field, content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
                with pytest.raises(CheckpointerError):
                    await read()
                target.admin.hset(keys.hash, field, content)
        after = await read()
        assert (after[0] == before[0]) if name == "s" else (after == before)  # the TTL of states is told, and runs


# --- a server that goes away ------------------------------------------------------------------------------------------


async def test_a_server_that_went_away_is_said_and_the_same_objects_work_when_it_is_back(prefix: str, open_on: Open) -> None:
    with single(TOPOLOGIES_OF, "--save", "", "--appendonly", "yes", "--appendfsync", "always") as (server, box):
        states = await open_on(RedisStatePersistence, server, prefix)
        agents = await open_on(AgentCheckpointer, server, f"{prefix}-agents")
        await states.save_with_metadata(FIELDS, "s", tags=["t"])
        await agents.save_state("t", snapshot(1))
        box.kill()
        for call in (
            *state_calls(states),
            lambda: agents.save_state("t", snapshot(2)),
            lambda: agents.load_state("t"),
            lambda: agents.list_threads(),
            lambda: agents.delete_thread("t"),
        ):
            with pytest.raises(ServerUnavailableError):
                await call()
        box.start()
        assert (await states.load_with_metadata("s"))[0] == FIELDS
        assert (await states.save_with_metadata({"n": 2}, "s")).version == 2
        assert await agents.load_state("t") == snapshot(1)
        await agents.save_state("t", snapshot(2))
        assert await agents.load_state("t") == snapshot(2)


async def test_a_server_that_comes_back_empty_is_saved_to_anew(prefix: str, open_on: Open) -> None:
    with single(TOPOLOGIES_OF) as (server, box):
        states = await open_on(RedisStatePersistence, server, prefix)
        for n in range(3):
            await states.save_with_metadata({**FIELDS, "n": n}, "s")
        box.kill()
        box.start()
        assert await states.load_with_metadata("s") is None
        assert (await states.save_with_metadata({**FIELDS, "n": 3}, "s")).version == 1
        assert (await states.load_with_metadata("s"))[0] == {**FIELDS, "n": 3}


async def test_a_save_is_one_round_trip_in_a_cluster_too(servers: Servers, prefix: str, open_on: Open) -> None:
    server = servers.target("cluster-resp3")
    states = await open_on(RedisStatePersistence, server, prefix, max_versions=3)
    for n in range(6):
        with server.watched(prefix) as sent:
            await states.save_with_metadata({**FIELDS, "n": n}, "s")
    assert sent == ["EVALSHA", "EVALSHA"], "the version, and the one it pushes out"
