"""hiredis is handed bytes and nothing else: other kinds make it run Python code, where a raising signal handler is fatal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
import redis
from shapes import at, checkpoint, metadata

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence, Replicas
from langgraph_redis_state.client import clients, direct, workarounds
from langgraph_redis_state.errors import DurabilityError


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """All that hiredis packs."""
    seen: list[tuple[Any, ...]] = []
    pack = hiredis.pack_command

    def recorded(command: tuple[Any, ...]) -> bytes:
        seen.append(command)
        return pack(command)

    monkeypatch.setattr(hiredis, "pack_command", recorded)
    for made in (workarounds.packer, clients.packing_fast, workarounds.waiting_pool, direct.direct_client):
        made.cache_clear()
    yield seen
    for made in (workarounds.packer, clients.packing_fast, workarounds.waiting_pool, direct.direct_client):
        made.cache_clear()


def put(saver: RedisSaver, config: Any, value: Any, **more: Any) -> Any:
    made = checkpoint({"n": value})
    config = saver.put(config, made, metadata(**more), made["channel_versions"])
    saver.put_writes(config, [("n", 1)], "task")
    return config


def use_every_verb(saver: RedisSaver, states: RedisStatePersistence, agents: AgentCheckpointer) -> None:
    saver.ping()
    config = put(saver, put(saver, at("t"), list(range(2000)), owner="a", run_id="r"), bytes(6_000_000), owner="a")
    saver.get_tuple(config)
    list(saver.list(at("t"), limit=1, filter={"owner": "a"}))
    list(saver.list(None))
    saver.get_delta_channel_history(config=config, channels=["n"])
    saver.copy_thread("t", "copy")
    list(saver.history("t"))
    saver.tag("t", "tag", -1)
    saver.tags("t")
    saver.diff("t", -1, "tag")
    put(saver, saver.rollback("t", "tag"), 3)
    saver.rollback("t", -1, mode="truncate")
    saver.untag("t", "tag")
    saver.set_ttl("t", 100)
    saver.persist("t")
    list(saver.list_threads())
    list(saver.find_threads(owner="a"))
    saver.stats("t")
    saver.stats()
    list(saver.verify())
    list(saver.repair())
    saver.prune(["t"], keep_last=1)
    saver.delete_for_runs(["r"])
    saver.delete_thread("copy")
    for number in range(3):
        states.save_with_metadata({"n": number}, "s", tags=["x"], ttl_seconds=100)
    states.load_with_metadata("s")
    states.search_by_tags(["x"])
    states.list_states()
    states.list_versions("s")
    states.exists("s", 1)
    states.rollback("s", 2)
    states.touch("s")
    states.delete_version("s", 2)
    states.get_stats()
    states.delete_state("s")
    agents.save_state("a", {"todos": []})
    agents.load_state("a")
    agents.list_threads()
    agents.delete_thread("a")


def assert_all_bytes(packed: list[tuple[Any, ...]]) -> None:
    assert len(packed) > 50
    wrong = {(command[0], type(each)) for command in packed for each in command if type(each) is not bytes}
    assert wrong == set()


def test_every_argument_of_every_call_of_every_verb_is_bytes(url: str, prefix: str, packed: list[tuple[Any, ...]]) -> None:
    url += "&protocol=3" if "?" in url else "?protocol=3"  # so that redis-py sends numbers by itself
    with (
        RedisSaver(url, prefix=prefix, index_metadata=["owner"], max_versions=5, ttl=60) as saver,
        RedisStatePersistence(url, prefix=f"{prefix}s") as states,
        AgentCheckpointer(url, prefix=f"{prefix}a") as agents,
    ):
        with redis.Redis.from_url(url) as other:
            other.script_flush()
        packed.clear()
        use_every_verb(saver, states, agents)
    assert {b"EVAL", b"EVALSHA", b"HELLO", b"ZRANGE", b"HGET", b"SCAN", b"INFO"} <= {command[0] for command in packed}
    assert_all_bytes(packed)


async def test_the_same_awaited_alone_and_in_packets(url: str, prefix: str, packed: list[tuple[Any, ...]]) -> None:
    async with RedisSaver(url, prefix=prefix) as saver:
        made = checkpoint({"n": 1})
        for _ in range(3):
            await asyncio.gather(
                *(saver.aput(at(f"t{n}"), made, metadata(), made["channel_versions"]) for n in range(12)),
            )
        assert len([each async for each in saver.alist_threads()]) == 12
        assert [each async for each in saver.averify()] == []
    assert_all_bytes(packed)


async def test_the_packets_of_a_level_of_durability_are_bytes_too(url: str, prefix: str, packed: list[tuple[Any, ...]]) -> None:
    made = checkpoint({"n": 1})
    for level in (Replicas(1, 0.01), Replicas("all", 0.01)):
        async with RedisSaver(url, prefix=prefix, durability=level) as saver:
            with pytest.raises(DurabilityError):
                saver.put(at("t"), made, metadata(), {"n": 1})
            with pytest.raises(DurabilityError):
                await saver.aput(at("t"), made, metadata(), {"n": 1})
    assert {b"WAIT", b"ROLE"} <= {command[0] for command in packed}
    assert {type(each) for command in packed for each in command} == {bytes}


def test_what_is_neither_bytes_text_nor_a_number_is_refused_before_it_is_sent() -> None:
    from langgraph_redis_state.effects import packable

    assert packable([b"b", "é", 12, -1]) == [b"b", "é".encode(), b"12", b"-1"]
    for wrong in (True, 1.5, None, bytearray(b"x")):
        with pytest.raises(TypeError, match="bytes, text or an integer"):
            packable([wrong])
