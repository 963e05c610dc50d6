"""Levels of durability on a server without replicas: what is refused, what is raised, and that the write is there all the same.

With replicas, and who asks on which connection: `integration_tests/test_durability.py`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from shapes import SyncSurface, at, checkpoint, id_of, ids, metadata, plain, put

import langgraph_redis_state
from langgraph_redis_state import (
    AgentCheckpointer,
    DurabilityError,
    Fsync,
    RedisSaver,
    RedisStatePersistence,
    Replicas,
    ThreadNotFoundError,
)
from langgraph_redis_state.address import Address
from langgraph_redis_state.client import exchange
from langgraph_redis_state.client.confirming import ROUNDS, confirmed
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.client.exchange import Send
from langgraph_redis_state.effects import Call, Script
from langgraph_redis_state.operations.surveying import read_headers
from langgraph_redis_state.scripts import commands, store_commands

ROOMS = [exchange, commands, store_commands]
NOBODY = Replicas(1, timeout=0.05)
"""More than a server without replicas can give."""
SCRIPTS = [each for module in ROOMS for each in vars(module).values() if isinstance(each, Script)]


class Sync(SyncSurface):
    """Also the methods that LangGraph's contract does not have."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name.removeprefix("a"))

        async def call(*args: Any, **options: Any) -> Any:
            return method(*args, **options)

        return call


@pytest.fixture(params=["sync", "async"])
async def pair(request: pytest.FixtureRequest, url: str, prefix: str) -> AsyncIterator[tuple[Any, Any]]:
    """A saver whose writes are never acknowledged, and one that asks for nothing."""
    async with RedisSaver(url, prefix=prefix, durability=NOBODY) as one, RedisSaver(url, prefix=prefix) as other:
        yield (one, other) if request.param == "async" else (Sync(one), Sync(other))


@pytest.fixture
def demanding(pair: tuple[Any, Any]) -> Any:
    return pair[0]


@pytest.fixture
def either(pair: tuple[Any, Any]) -> Any:
    return pair[1]


@pytest.mark.parametrize("level", [NOBODY, Replicas(2, 0.05), Replicas("all", 0.05)], ids=repr)
async def test_a_put_without_its_replicas_is_an_error_that_says_how_many_and_the_checkpoint_is_there(
    url: str, prefix: str, either: Any, level: Replicas
) -> None:
    wanted = level.count if level.count != "all" else 1
    async with RedisSaver(url, prefix=prefix, durability=level) as saver:
        for surface in (SyncSurface(saver), saver):
            made = checkpoint({"x": 1})
            with pytest.raises(DurabilityError) as raised:
                await surface.aput(at("t"), made, metadata(), {"x": 1})
            for part in (
                "put: thread 't'",
                made["id"],
                "exists on the primary",
                f"0 of {wanted} replicas",
                "0.05 s",
                "Repeating",
            ):
                assert part in str(raised.value)
            assert (await either.aget_tuple(at("t"))).checkpoint["id"] == made["id"]


async def test_every_write_is_waited_for_and_no_read_is(demanding: Any, either: Any) -> None:
    for n, write in enumerate(
        (
            lambda t, config: put(demanding, config, {"x": 3}),
            lambda t, config: demanding.aput_writes(config, [("x", 1)], "task"),
            lambda t, config: demanding.atag(t, "name"),
            lambda t, config: demanding.auntag(t, "name"),
            lambda t, config: demanding.aset_ttl(t, 1000),
            lambda t, config: demanding.apersist(t),
            lambda t, config: demanding.acopy_thread(t, f"copy of {t}"),
            lambda t, config: demanding.arollback(t, -1),
            lambda t, config: demanding.arollback(t, -1, mode="truncate"),
            lambda t, config: demanding.adelete_for_runs([f"run of {t}"]),
            lambda t, config: demanding.aprune([t]),
            lambda t, config: demanding.aprune([t], strategy="delete"),
            lambda t, config: demanding.adelete_thread(t),
        )
    ):
        thread = f"t{n}"
        config = await put(either, await put(either, at(thread), {"x": 1}), {"x": 2}, run_id=f"run of {thread}")
        with pytest.raises(DurabilityError, match=thread):
            await write(thread, config)
    assert len(await ids(demanding, at("t0"))) == 3
    assert await demanding.aget_tuple(at("t0")) is not None
    assert await demanding.aget_tuple(at("nobody")) is None
    assert (await demanding.astats("t0")).checkpoints == 3
    assert await demanding.aping()


async def test_what_wrote_nothing_is_not_waited_for(demanding: Any) -> None:
    with pytest.raises(ThreadNotFoundError):
        await demanding.atag("nobody", "name")
    with pytest.raises(ThreadNotFoundError):
        await demanding.aset_ttl("nobody", 10)


async def test_a_repeated_write_writes_again_so_that_a_new_connection_has_something_to_wait_for(
    either: Any, url: str, prefix: str
) -> None:
    """`WAIT` counts from the last write of its own connection, and returns at once where there was none."""
    made = checkpoint({"x": 1})
    config = await either.aput(at("t"), made, metadata(), {"x": 1})
    await either.acopy_thread("t", "gone")
    with redis.Redis.from_url(url) as client:
        for write in (
            lambda: either.aput(at("t"), made, metadata(), {"x": 1}),
            lambda: either.aput_writes(config, [("x", 1)], "task"),
            lambda: either.atag("t", "name"),
            lambda: either.auntag("t", "name"),
            lambda: either.aset_ttl("t", 1000),
            lambda: either.aset_ttl("t", None),
            lambda: either.apersist("t"),
            lambda: either.adelete_thread("gone"),
        ):
            await write()
            before = plain(await either.aget_tuple(at("t")))
            dirty = client.info("persistence")["rdb_changes_since_last_save"]
            await write()
            assert client.info("persistence")["rdb_changes_since_last_save"] > dirty
            assert plain(await either.aget_tuple(at("t"))) == before


@pytest.mark.parametrize("kind", ["tag", "removal"])
def test_scripts_that_find_nothing_to_do_write_all_the_same(kind: str, saver: RedisSaver, url: str) -> None:
    made = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    target = Address(saver._engine.settings.prefix, "t", "", id_of(made))
    survey = run(read_headers(saver._engine, target), saver._connection)
    script, args = {
        "tag": (commands.TAG, [b"Gnone", b""]),
        "removal": (commands.REMOVE, [survey.revision, "drop", *[0] * 7, *[0] * 7]),
    }[kind]
    with redis.Redis.from_url(url) as client:
        dirty = client.info("persistence")["rdb_changes_since_last_save"]
        call = Call(script, target.keys.all, [b"t", *args], "")
        assert call.unwrap(client.eval(script.source, *call.arguments)) in ([b"ok"], [b"ok", 0])
        assert client.info("persistence")["rdb_changes_since_last_save"] > dirty


async def test_a_repeat_after_the_error_finds_the_checkpoint_once(demanding: Any, either: Any) -> None:
    made = checkpoint({"x": 1})
    for _ in range(3):
        with pytest.raises(DurabilityError):
            await demanding.aput(at("t"), made, metadata(), {"x": 1})
    assert await ids(either, at("t")) == [made["id"]]


async def test_a_server_that_forgot_the_scripts_is_told_them_and_waited_for(demanding: Any, either: Any, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.script_flush()
    with pytest.raises(DurabilityError):
        await put(demanding, at("t"))
    assert len(await ids(either, at("t"))) == 1


async def test_a_server_without_waitaof_says_so_and_keeps_the_write(url: str, prefix: str, either: Any) -> None:
    with redis.Redis.from_url(url) as client:
        version = tuple(map(int, client.info("server")["redis_version"].split(".")[:2]))
    advice = "WAITAOF needs Redis 7.2" if version < (7, 2) else "turn on appendonly"
    async with RedisSaver(url, prefix=prefix, durability=Fsync()) as saver:
        for surface in (SyncSurface(saver), saver):
            with pytest.raises(DurabilityError, match=advice) as raised:
                await put(surface, at("t"))
            assert "exists on the primary" in str(raised.value)
    assert len(await ids(either, at("t"))) == 2


async def test_one_packet_on_one_connection_and_nothing_for_reads(url: str, prefix: str) -> None:
    sent: list[str] = []
    async with RedisSaver(url, prefix=prefix, durability=Replicas("all", timeout=0.01)) as saver:
        for surface in (SyncSurface(saver), saver):
            with pytest.raises(DurabilityError):
                await put(surface, at("t"))  # learns layout and scripts
            await surface.aget_tuple(at("t"))
            with redis.Redis.from_url(url) as client, client.monitor() as monitor:
                with pytest.raises(DurabilityError):
                    await put(surface, at("t"))
                await surface.aget_tuple(at("t"))
                client.echo(f"end {prefix}")
                sent.clear()
                while (told := monitor.next_command())["command"] != f"ECHO end {prefix}":
                    if told["client_type"] != "lua" and (prefix in told["command"] or told["command"][:4] in ("ROLE", "WAIT")):
                        sent.append(told["command"].split(" ", 1)[0])
            assert sent == ["EVALSHA", "ROLE", "WAIT", "EVALSHA"]


async def test_many_threads_at_once_each_wait_for_their_own(url: str, prefix: str) -> None:
    errors: list[Exception] = []
    with RedisSaver(url, prefix=prefix, durability=NOBODY) as saver:

        def work(n: int) -> None:
            try:
                saver.put(at(f"t{n}"), checkpoint({"x": n}), metadata(), {"x": 1})
            except DurabilityError as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(re.findall(r"thread '(t\d+)'", " ".join(map(str, errors)))) == sorted(f"t{n}" for n in range(20))
        assert len(list(saver.list_threads())) == 20


# --- what is refused at construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Replicas(0),
        lambda: Replicas(-1),
        lambda: Replicas(True),
        lambda: Replicas(1.5),
        lambda: Replicas("some"),
        lambda: Replicas(None),
        lambda: Replicas(1, timeout=0),
        lambda: Replicas(1, timeout=-1),
        lambda: Replicas(1, timeout=float("inf")),
        lambda: Replicas(1, timeout=float("nan")),
        lambda: Replicas(1, timeout="1"),
        lambda: Replicas(1, timeout=True),
        lambda: Fsync(local=2),
        lambda: Fsync(local=True),
        lambda: Fsync(local=0),
        lambda: Fsync(replicas=-1),
        lambda: Fsync(timeout=0),
        lambda: RedisSaver(durability="all"),
        lambda: RedisSaver(durability=1),
        lambda: RedisSaver(durability=Replicas),
    ],
)
def test_a_level_that_cannot_be_is_refused_with_what_can(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|waits for nothing"):
        make()


def test_a_level_may_not_wait_longer_than_the_client_does(url: str) -> None:
    for options in ({}, {"socket_timeout": 2}):
        with pytest.raises(ValueError, match="less than the client's socket_timeout"):
            RedisSaver(url, durability=Replicas(1, timeout=10), redis_options=options)
    with pytest.raises(ValueError, match="less than the client's socket_timeout"):
        RedisSaver(client=redis.Redis.from_url(url, socket_timeout=1), durability=Fsync())
    with pytest.raises(ValueError, match="less than the client's socket_timeout"):
        RedisSaver(async_client=redis.asyncio.Redis.from_url(url, socket_timeout=1), durability=Fsync())
    RedisSaver(url, durability=Replicas(1, timeout=10), redis_options={"socket_timeout": None}).close()
    RedisSaver(client=redis.Redis.from_url(url, socket_timeout=None), durability=Fsync(timeout=60)).close()


def test_the_state_apis_take_a_level_too(url: str, prefix: str) -> None:
    with RedisStatePersistence(url, prefix=prefix, durability=NOBODY) as states, pytest.raises(DurabilityError):
        states.save_with_metadata({"x": 1}, "state")
    with AgentCheckpointer(url, namespace=prefix, durability=NOBODY) as agents, pytest.raises(DurabilityError):
        agents.save_state("state", {"name": "x"})


# --- the scripts ------------------------------------------------------------------------------------------------------

WRITING = re.compile(
    r"(?:call|in_batches)\('(HSET|HDEL|ZADD|ZREM|SET|UNLINK|RENAME|PERSIST|PEXPIRE|PEXPIREAT)'|\b(?:apply_ttl|rewrite|drop_bucket_entries|tidy_bucket)\("
)
UNTOLD = ("stage", "stage_remaining", "forget_expired", "first_look", "sweep_bucket", "store_touch")


def test_every_script_that_writes_for_its_caller_is_waited_for() -> None:
    """`stage` and `stage_remaining` fill what a later script makes visible, `forget_expired` and `sweep_bucket` forget what
    expired: nobody is told of them, nor of the layout number (`first_look`), nor of a TTL that a read refreshed
    (`store_touch`)."""
    folder = Path(langgraph_redis_state.__file__).parent / "scripts"
    by_name = {script.name: script for script in SCRIPTS}
    assert set(by_name) == {path.stem for path in folder.glob("*.lua")}
    for name, script in by_name.items():
        assert script.writes == (bool(WRITING.search((folder / f"{name}.lua").read_text())) and name not in UNTOLD)


# --- the exchange, without a server -----------------------------------------------------------------------------------


class MovedError(Exception):
    """Named as redis-py names it."""


class Node:
    def __init__(self, name: str) -> None:
        self.name = name


class Cluster:
    """A client that looks for the key on one node after the other."""

    nodes_manager = None

    def __init__(self, *names: str) -> None:
        self.names = [*names]

    def get_node_from_key(self, key: bytes) -> Node:
        return Node(self.names.pop(0) if len(self.names) > 1 else self.names[0])


def writing_to(names: str, level: Any, seen: dict[str, int]) -> Any:
    return confirmed(Cluster(*names.split()), Call(commands.PUT, [b"k"], [], "put", b"token"), level, seen, "here")


def waits(step: Any) -> list[Any]:
    """What a packet has behind the script."""
    assert isinstance(step, Send)
    return list(step.commands[2:-1])


def replied(going: Any, step: Any, *replies: Any) -> Any:
    """Goes on with these replies to a packet."""
    return going.send([step.commands[0][1], *replies, step.commands[-1][1]])


def test_all_is_asked_again_when_more_replicas_are_listed_than_were_asked_for() -> None:
    seen: dict[str, int] = {}
    going = writing_to("node", Replicas("all", 1), seen)
    role = [b"master", 1, [[b"a", b"1", b"1"], [b"b", b"2", b"1"]]]
    first = next(going)
    assert waits(first) == [(b"ROLE",), (b"WAIT", b"1", b"1000")]
    second = replied(going, first, [b"ok", b"token"], role, 1)
    assert waits(second) == [(b"ROLE",), (b"WAIT", b"2", b"1000")]
    with pytest.raises(StopIteration):
        replied(going, second, [b"ok", b"token"], role, 2)
    assert seen == {"node": 2}
    assert waits(next(writing_to("node", Replicas("all", 1), seen)))[-1] == (b"WAIT", b"2", b"1000")
    assert waits(next(writing_to("another", Replicas("all", 1), seen)))[-1] == (b"WAIT", b"1", b"1000")


def test_all_is_fewer_when_a_replica_is_not_connected_any_more_and_never_none() -> None:
    seen = {"node": 2}
    going = writing_to("node", Replicas("all", 1), seen)
    with pytest.raises(StopIteration):
        replied(going, next(going), [b"ok", b"token"], [b"master", 1, [[b"a", b"1", b"1"]]], 1)
    assert seen == {"node": 1}
    going = writing_to("node", Replicas("all", 1), seen)
    with pytest.raises(DurabilityError, match="0 of 1"):
        replied(going, next(going), [b"ok", b"token"], [b"master", 1, []], 0)


def test_a_slot_that_moved_is_found_by_the_client_and_the_packet_is_sent_again() -> None:
    going = writing_to("old new", Replicas(1, 1), {})
    packet = next(going)
    assert packet.node.name == "old"
    alone = replied(going, packet, MovedError("MOVED 1 new:1"), 1)
    assert isinstance(alone, Call)
    assert alone.script is commands.PUT
    again = going.send([b"ok", b"token"])
    assert again.node.name == "new"
    with pytest.raises(StopIteration) as stop:
        replied(going, again, [b"ok", b"newest", b"token"], 1)
    assert stop.value.value == [b"ok", b"newest"]


def test_a_slot_that_keeps_moving_is_an_error_in_the_end() -> None:
    going = writing_to("old", Replicas(1, 1), {})
    packet = next(going)
    moved = MovedError("MOVED 1 new:1")
    for _ in range(ROUNDS - 1):
        assert isinstance(replied(going, packet, moved, 1), Call)
        packet = going.send([b"ok", b"token"])
    with pytest.raises(MovedError):
        replied(going, packet, moved, 1)
