"""An exception between sending and receiving (a signal handler, the time limit of a task queue) leaves a connection with a
reply that belongs to nobody. Whatever is called next on it is right, or a `ServerUnavailableError`; never the reply to
something else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
import redis
from shapes import SyncSurface, at, id_of, put
from soak import every, in_turn, rare

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence
from langgraph_redis_state.errors import CheckpointCorruptError, ServerUnavailableError

NAMES = ["EVALSHA"] if int(redis.__version__.split(".")[0]) < 6 else []


class Interrupted(BaseException):
    """What a handler raises."""


def plain(found: Any) -> Any:
    """What a call gave, without what differs each time."""
    return found if isinstance(found, bool | int | None) else repr(found)


def sync_reads(saver: RedisSaver, first: str, second: str) -> dict[str, Callable[[], Any]]:
    return {
        "ping": saver.ping,
        "list_threads": lambda: list(saver.list_threads()),
        "find_threads": lambda: list(saver.find_threads(user="ann")),
        "stats": lambda: saver.stats().checkpoints,
        "stats of one": lambda: saver.stats("t").checkpoints,
        "verify": lambda: list(saver.verify()),
        "verify one": lambda: list(saver.verify("t")),
        "repair": lambda: list(saver.repair()),
        "delete_for_runs": lambda: saver.delete_for_runs(["unknown"]),
        "prune": lambda: saver.prune(["t"], keep_last=100),
        "diff": lambda: len(saver.diff("t", first, second)),
        "tags": lambda: saver.tags("t"),
        "history": lambda: len(list(saver.history("t"))),
        "list": lambda: len(list(saver.list(None))),
        "get_tuple": lambda: saver.get_tuple(at("t")).checkpoint["channel_values"],
    }


def async_reads(saver: RedisSaver, first: str, second: str) -> dict[str, Callable[[], Any]]:
    async def drained(found: AsyncIterator[Any]) -> list[Any]:
        return [each async for each in found]

    async def pairs() -> Any:
        return (await saver.aget_tuple(at("t"))).checkpoint["channel_values"]

    async def stats(*thread: str) -> Any:
        return (await saver.astats(*thread)).checkpoints

    return {
        "ping": saver.aping,
        "list_threads": lambda: drained(saver.alist_threads()),
        "find_threads": lambda: drained(saver.afind_threads(user="ann")),
        "stats": stats,
        "stats of one": lambda: stats("t"),
        "verify": lambda: drained(saver.averify()),
        "verify one": lambda: drained(saver.averify("t")),
        "repair": lambda: drained(saver.arepair()),
        "delete_for_runs": lambda: saver.adelete_for_runs(["unknown"]),
        "prune": lambda: saver.aprune(["t"], keep_last=100),
        "diff": lambda: saver.adiff("t", first, second),
        "tags": lambda: saver.atags("t"),
        "get_tuple": pairs,
    }


VERBS = sorted(sync_reads(MagicMock(), "", ""))
AWAITED = sorted(async_reads(MagicMock(), "", ""))
STRAY = {
    "array": ("TIME",),
    "nothing": ("GET", "nothing"),
    "an error of another type": ("EVAL", "return redis.error_reply('WRONGTYPE Operation against a key')", "0"),
    "PONG": ("PING",),
}


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as opened:
        yield opened


@pytest.fixture
async def asaver(url: str, prefix: str) -> AsyncIterator[RedisSaver]:
    async with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as opened:
        yield opened


@pytest.fixture
async def thread(saver: RedisSaver) -> tuple[str, str]:
    older = await put(SyncSurface(saver), at("t"), {"x": "older"}, user="ann")
    newer = await put(SyncSurface(saver), older, {"x": "newer"}, user="ann")
    saver.tag("t", "name", id_of(older))
    return id_of(older), id_of(newer)


def pause(raw: redis.Redis) -> None:
    """Stops the server from answering for a moment, so that what comes next is sent before the stray reply is there."""
    raw.execute_command("CLIENT", "PAUSE", 40)


@pytest.mark.parametrize(("verb", "stray"), in_turn(VERBS, STRAY))
def test_a_call_does_not_take_a_reply_that_nobody_waits_for(
    saver: RedisSaver, thread: tuple[str, str], raw: redis.Redis, verb: str, stray: str
) -> None:
    read = sync_reads(saver, *thread)[verb]
    right = plain(read())
    pool = saver.client.connection_pool
    connection = pool.get_connection(*NAMES)
    pause(raw)
    connection.send_command(*STRAY[stray])
    pool.release(connection)
    for _ in range(3):
        try:
            assert plain(read()) == right
        except ServerUnavailableError:
            continue
    assert plain(read()) == right


@pytest.mark.parametrize(("verb", "stray"), in_turn(AWAITED, STRAY))
async def test_the_same_awaited(asaver: RedisSaver, thread: tuple[str, str], raw: redis.Redis, verb: str, stray: str) -> None:
    reads = async_reads(asaver, *thread)
    right = plain(await reads[verb]())
    pool = asaver._connection.async_client().connection_pool
    connection = await pool.get_connection(*NAMES)
    pause(raw)
    await connection.send_command(*STRAY[stray])
    await pool.release(connection)
    for _ in range(3):
        try:
            assert plain(await reads[verb]()) == right
        except ServerUnavailableError:
            continue
    assert plain(await reads[verb]()) == right


@pytest.mark.parametrize("verb", every(3, VERBS))
@pytest.mark.parametrize("after", [1, rare(3)])
def test_a_handler_that_raises_between_sending_and_receiving_spoils_no_later_call(
    saver: RedisSaver, thread: tuple[str, str], raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, verb: str, after: int
) -> None:
    reads = sync_reads(saver, *thread)
    right = {name: plain(read()) for name, read in reads.items()}
    connection = saver.client.connection_pool.get_connection(*NAMES)
    saver.client.connection_pool.release(connection)
    kind = type(connection)
    receive, received = kind.read_response, 0

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal received
        received += 1
        if received == after:
            pause(raw)
            raise Interrupted
        return receive(self, *arguments, **options)

    def until_interrupted() -> None:
        while True:
            reads[verb]()

    with monkeypatch.context() as patched:
        patched.setattr(kind, "read_response", interrupted)
        with pytest.raises(Interrupted):
            until_interrupted()
    for name, read in reads.items():
        try:
            assert plain(read()) == right[name]
        except ServerUnavailableError:
            assert plain(read()) == right[name]


def test_an_error_that_answers_another_call_is_not_told_as_this_ones(
    saver: RedisSaver, thread: tuple[str, str], raw: redis.Redis
) -> None:
    connection = saver.client.connection_pool.get_connection(*NAMES)
    pause(raw)
    connection.send_command(*STRAY["an error of another type"])
    saver.client.connection_pool.release(connection)
    try:
        saver.get_tuple(at("t"))
    except CheckpointCorruptError:
        pytest.fail("somebody else's damage")
    except ServerUnavailableError:
        pass


@pytest.mark.parametrize("stray", STRAY)
def test_states_take_no_reply_that_nobody_waits_for(url: str, prefix: str, raw: redis.Redis, stray: str) -> None:
    with RedisStatePersistence(url, prefix=prefix) as states, AgentCheckpointer(url, namespace=prefix) as agents:
        states.save_with_metadata({"x": 1}, "s")
        agents.save_state("a", {"name": "x"})
        for api, read in (
            (states, states.get_stats),
            (states, states.list_states),
            (states, lambda: states.exists("s")),
            (states, lambda: states.load_with_metadata("s")),
            (states, lambda: states.list_versions("s")),
            (agents, lambda: agents.load_state("a")),
        ):
            read()
            pool = api._connection.client().connection_pool
            connection = pool.get_connection(*NAMES)
            pause(raw)
            connection.send_command(*STRAY[stray])
            pool.release(connection)
            with contextlib.suppress(ServerUnavailableError):
                read()
            assert read()
