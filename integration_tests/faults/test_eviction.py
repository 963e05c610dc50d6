"""A server that forgets: one of a thread's two keys is evicted, or many are, for real."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from calls import BIG, Open, every_method
from conftest import TOPOLOGIES_OF
from figures import figure
from langgraph.checkpoint.serde.types import INTERRUPT
from servers import Server, single
from shapes import at, id_of, ids, listed, plain, put

from langgraph_redis_state.errors import CheckpointLostError
from langgraph_redis_state.storage.keys import ThreadKeys


async def test_an_evicted_index_is_rebuilt_from_the_hash(shared: Server, open_on: Open, prefix: str) -> None:
    saver, other = await open_on(shared.url, ttl=100), await open_on(shared.url, ttl=100)
    made = []
    for n in range(3):
        config = await put(saver, made[-1] if made else at("t"), {"x": [*BIG, n]}, run_id=f"r{n}")
        await saver.aput_writes(config, [("x", n), (INTERRUPT, "?")], "task")
        await put(saver, at("t", f"child:{n}"), {"x": n}, parents={"": id_of(config)})
        made.append(config)
    hash_key, index = ThreadKeys(prefix, b"t").all[:2]
    members = shared.admin.zrange(index, 0, -1)
    expected = [plain(found) for found in await listed(saver, at("t", None))]
    for reader in (saver, other):
        for read, answer in (
            (lambda reader=reader: reader.aget_tuple(at("t")), expected[1]),
            (lambda reader=reader: reader.aget_tuple(at("t", "child:1")), expected[2]),
            (lambda reader=reader: reader.aget_tuple(made[0]), expected[5]),
        ):
            assert shared.admin.delete(index)
            assert plain(await read()) == answer
            assert shared.admin.zrange(index, 0, -1) == members
            assert abs(shared.admin.pttl(index) - shared.admin.pttl(hash_key)) < 50
        assert shared.admin.delete(index)
        assert [plain(found) for found in await listed(reader, at("t", None))] == expected
        assert shared.admin.delete(index)
        assert [plain(found) for found in await listed(reader, None)] == expected
        assert shared.admin.delete(index)
        history = await reader.aget_delta_channel_history(config=made[2], channels=["x"])
        assert history["x"] == {"writes": [("task", "x", 1)], "seed": [*BIG, 1]}
    assert shared.admin.delete(index)
    await saver.acopy_thread("t", "copy")
    assert len(await listed(other, at("copy", None))) == 6  # reads the hash alone, and leaves the index as it is
    await saver.aput_writes(made[2], [("y", 1)], "another task")
    assert shared.admin.delete(index)
    child = await put(saver, made[2], {"x": 1})
    assert shared.admin.delete(index)
    await saver.adelete_for_runs(["r0"])
    assert await ids(other, at("t")) == [id_of(child), id_of(made[2]), id_of(made[1])]
    assert shared.admin.delete(index)
    await saver.aprune(["t"])
    assert await ids(other, at("t")) == [id_of(child)]
    assert shared.admin.delete(index)
    await saver.adelete_thread("t")
    assert await listed(other, at("t", None)) == []


async def test_an_evicted_hash_is_said_until_the_thread_is_deleted_or_begun_anew(
    shared: Server, open_on: Open, prefix: str
) -> None:
    saver = await open_on(shared.url)
    config = await put(saver, at("t"), {"x": BIG}, run_id="r")
    await saver.aput_writes(config, [("x", 1)], "task")
    hash_key, index = ThreadKeys(prefix, b"t").all[:2]
    assert shared.admin.delete(hash_key)
    for reader in (saver, await open_on(shared.url)):
        methods = every_method(reader)
        for name in ("get_tuple", "list", "list(None)", "get_delta_channel_history", "prune", "copy_thread"):
            with pytest.raises(CheckpointLostError, match="'t'"):
                await methods[name]()
        with pytest.raises(CheckpointLostError, match="'t'"):
            await reader.aput_writes(config, [("x", 2)], "task")
        with pytest.raises(CheckpointLostError, match="'t'"):
            await put(reader, config, {"x": [*BIG, 1]})
    assert not shared.admin.exists(hash_key)
    new = await put(saver, at("t"), {"x": "a new run"})
    assert await ids(saver, at("t")) == [id_of(new)]
    assert shared.admin.delete(hash_key)
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(at("t")) is None
    assert not shared.admin.exists(index)


async def test_a_server_that_evicts_for_real_never_makes_a_saver_answer_wrong(open_on: Open, prefix: str) -> None:
    with single(TOPOLOGIES_OF, "--save", "", "--maxmemory", "24mb", "--maxmemory-policy", "allkeys-random") as (server, _):
        saver = await open_on(server.url)
        expected: dict[str, list[Any]] = {}
        lost = gone = whole = 0
        for n in range(60):
            thread, made = f"thread {n}", []
            with contextlib.suppress(CheckpointLostError):  # evicted between two puts
                for step in range(3):
                    made.append(await put(saver, made[-1] if made else at(thread), {"x": os.urandom(250_000), "step": step}))
            expected[thread] = [id_of(config) for config in made]
        assert server.admin.info("stats")["evicted_keys"] > 50
        for thread, made in expected.items():
            keys = ThreadKeys(prefix, thread.encode()).all[:2]
            before = server.admin.exists(*keys)
            try:
                found = await ids(saver, at(thread))
            except CheckpointLostError:
                lost += 1
                continue
            if found:
                whole += 1
                # puts that the eviction of both keys separated from the first ones began a thread of their own
                assert found == made[::-1][: len(found)]
            else:
                gone += 1
                assert not made or before < 2
        figure("eviction for real", threads=60, whole=whole, gone_with_both_keys=gone, lost_a_key_and_said_so=lost, wrong=0)
        assert gone + lost > 0
        assert whole > 0
