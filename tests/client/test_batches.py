"""Calls of many tasks that leave together: each gets its own answer, whatever becomes of the others and of the connection."""

from __future__ import annotations

import asyncio
import random
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from shapes import at, id_of, put
from soak import rare

from langgraph_redis_state import RedisSaver, Replicas
from langgraph_redis_state.address import Address
from langgraph_redis_state.client.batching import PACKET_CALLS
from langgraph_redis_state.effects import Call
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    DurabilityError,
    SaverClosedError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadDeletedError,
)
from langgraph_redis_state.scripts.commands import GET

TASKS = 64
BIG = 300_000
"""Bytes of a state that goes by itself."""


@pytest.fixture
async def named(url: str, prefix: str) -> AsyncIterator[RedisSaver]:
    """A saver whose connections the server can tell from those of other tests."""
    async with RedisSaver(url, prefix=prefix, redis_options={"client_name": prefix}) as opened:
        yield opened


@pytest.fixture
def own() -> Iterator[EmbeddedServer]:
    """A server of the test's own, which it may hurt."""
    with EmbeddedServer.start() as running:
        yield running


def connections(url: str, name: str) -> list[str]:
    """The ids of the clients of that name."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [each["id"] for each in client.client_list() if each["name"] == name]


def value(thread: str, step: int, size: int = 200) -> dict[str, Any]:
    """A state that tells whose it is."""
    return {"whose": f"{thread} {step} " * (size // 8), "step": step}


async def step_of(saver: RedisSaver, thread: str) -> int:
    """The step that a thread is at, 0 when it does not exist. What is there must be its own."""
    found = await saver.aget_tuple(at(thread))
    if found is None:
        return 0
    values = found.checkpoint["channel_values"]
    step = values["step"]
    assert values == value(thread, step, len(values["whose"]) // len(f"{thread} {step} ") * 8)
    assert found.metadata["step"] == step
    for task, channel, written in found.pending_writes or []:
        assert (task, channel, written) == ("task", "whose", f"{thread} {step}")
    return step


async def steps(saver: RedisSaver, thread: str, count: int, size: int = 200) -> None:
    """What a run of a graph does: a checkpoint, its pending writes, now and then a look at the latest."""
    config = at(thread)
    for step in range(1, count + 1):
        config = await put(saver, config, value(thread, step, size), step=step)
        await saver.aput_writes(config, [("whose", f"{thread} {step}")], "task")
        if step % 3 == 0:
            assert await step_of(saver, thread) == step


async def test_tasks_share_packets_and_so_connections(named: RedisSaver, url: str, prefix: str) -> None:
    await steps(named, "the first", 3)  # the server does not know the scripts yet, nor the saver the layout
    await asyncio.gather(*(steps(named, f"t{number}", 4) for number in range(TASKS)))
    assert 1 <= len(connections(url, prefix)) <= 12  # each by itself would have taken all 50
    assert [await step_of(named, f"t{number}") for number in range(TASKS)] == [4] * TASKS


async def test_large_states_among_small_ones(asaver: RedisSaver) -> None:
    sizes = [BIG if number % 8 == 0 else 200 for number in range(TASKS)]
    await asyncio.gather(*(steps(asaver, f"t{number}", 4, size) for number, size in enumerate(sizes)))
    assert await asyncio.gather(*(step_of(asaver, f"t{number}") for number in range(TASKS))) == [4] * TASKS


@pytest.mark.parametrize("seed", [0, rare(1), rare(2), rare(3)])
async def test_tasks_cancelled_at_any_moment_leave_others_alone(named: RedisSaver, url: str, prefix: str, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged = dict.fromkeys((f"t{number}" for number in range(TASKS)), 0)

    async def run(thread: str) -> None:
        config = at(thread)
        for step in range(1, 8):
            config = await put(named, config, value(thread, step, BIG if step == 5 else 200), step=step)
            acknowledged[thread] = step
            await named.aput_writes(config, [("whose", f"{thread} {step}")], "task")
            assert await step_of(named, thread) == step

    tasks = {thread: asyncio.create_task(run(thread)) for thread in acknowledged}
    doomed = chance.sample(sorted(tasks), TASKS // 2)
    for thread in doomed:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        tasks[thread].cancel()
    done = await asyncio.gather(*tasks.values(), return_exceptions=True)
    for thread, outcome in zip(tasks, done, strict=True):
        assert outcome is None or (thread in doomed and isinstance(outcome, asyncio.CancelledError))
        assert (outcome is None) == (acknowledged[thread] == 7 and not isinstance(outcome, BaseException))
    assert sum(outcome is None for outcome in done) >= TASKS // 2
    # what was cancelled was written or was not; what was acknowledged is there; nobody got what was another's
    for thread, step in acknowledged.items():
        assert await step_of(named, thread) in (step, step + 1)
    opened = connections(url, prefix)
    await asyncio.gather(*(step_of(named, thread) for thread in acknowledged))
    assert set(opened) <= set(connections(url, prefix))  # and nobody's connection was closed


async def test_all_of_a_packet_cancelled_before_it_is_sent(asaver: RedisSaver) -> None:
    await steps(asaver, "t", 1)
    for turns in range(6):
        calls = [asyncio.create_task(step_of(asaver, "t")) for _ in range(TASKS)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        assert all(
            outcome == 1 or isinstance(outcome, asyncio.CancelledError)
            for outcome in await asyncio.gather(*calls, return_exceptions=True)
        )
        assert await asyncio.gather(*(step_of(asaver, "t") for _ in range(TASKS))) == [1] * TASKS


@pytest.mark.parametrize("given_up", [range(TASKS), range(0, TASKS, 3)], ids=["all", "a third"])
async def test_a_call_given_up_before_it_was_sent_is_not_sent_later(url: str, prefix: str, given_up: range) -> None:
    """As when a deletion is given up after some seconds without a connection, and then the thread is used on."""
    async with RedisSaver(url, prefix=prefix, redis_options={"max_connections": 1, "timeout": 60}) as saver:
        await asyncio.gather(*(steps(saver, f"t{number}", 1) for number in range(TASKS)))
        await saver.adelete_thread("another")  # the server knows the script
        client = saver._connection.async_client()
        batches = saver._connection.batches(client)
        assert batches is not None
        async with client.pubsub() as holding:
            await holding.subscribe(prefix)  # the only connection
            calls = [asyncio.create_task(saver.adelete_thread(f"t{number}")) for number in range(TASKS)]
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(batches._packets) >= TASKS // PACKET_CALLS - 1  # they wait for the connection
            for number in given_up:
                calls[number].cancel()
            outcomes = [asyncio.CancelledError if number in given_up else None for number in range(TASKS)]
            await asyncio.wait([calls[number] for number in given_up])
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [outcome and type(outcome) for outcome in done] == outcomes
        left = [await step_of(saver, f"t{number}") for number in range(TASKS)]
        assert left == [number in given_up for number in range(TASKS)]
        assert not batches._packets
        assert batches._under_way == 0


async def test_packets_that_nobody_waits_for_leave_their_connections(named: RedisSaver, url: str, prefix: str) -> None:
    await asyncio.gather(*(steps(named, f"t{number}", 1) for number in range(TASKS)))
    async with redis.asyncio.Redis.from_url(url) as admin:
        await admin.execute_command("CLIENT", "PAUSE", 1000)
        calls = [asyncio.create_task(step_of(named, f"t{number}")) for number in range(TASKS)]
        batches = named._connection.batches(named._connection.async_client())
        assert batches is not None
        await asyncio.sleep(0.1)  # they are sent
        assert batches._packets
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await asyncio.wait(batches._packets or calls, timeout=0.5)  # sooner than the server goes on
        assert not batches._packets
    assert await asyncio.gather(*(step_of(named, f"t{number}") for number in range(TASKS))) == [1] * TASKS


async def test_connections_killed_under_packets(named: RedisSaver, url: str, prefix: str) -> None:
    killed = 0
    work = asyncio.gather(*(steps(named, f"t{number}", 8) for number in range(TASKS)))
    async with redis.asyncio.Redis.from_url(url) as admin:
        while not work.done():
            for each in await asyncio.to_thread(connections, url, prefix):
                killed += await admin.client_kill_filter(_id=each)
            await asyncio.sleep(0.1)  # redis-py tries four times, some of which shall not be killed
    await work
    assert killed
    assert [await step_of(named, f"t{number}") for number in range(TASKS)] == [8] * TASKS


async def test_answers_to_other_calls_are_errors_and_the_next_are_right(asaver: RedisSaver, url: str, prefix: str) -> None:
    threads = [f"t{number}" for number in range(TASKS)]
    await asyncio.gather(*(steps(asaver, thread, 2) for thread in threads))
    older = [found async for found in asaver.alist(at("t0"))][-1]
    target = Address(prefix, "t0", "", id_of(older.config))
    stray = Call(GET, target.keys.all, [target.keys.name, -1, b"", b"", b"", target.checkpoint], "")
    pool = asaver._connection.async_client().connection_pool
    names = ["EVALSHA"] if int(redis.__version__.split(".")[0]) < 6 else []
    lines = [await pool.get_connection(*names) for _ in range(8)]
    async with redis.asyncio.Redis.from_url(url) as admin:
        await admin.execute_command("CLIENT", "PAUSE", 300)
    for line in lines:
        await line.send_command("EVALSHA", stray.script.sha, *stray.arguments)
        await pool.release(line)
    outcomes = await asyncio.gather(*(step_of(asaver, thread) for thread in threads), return_exceptions=True)
    assert all(outcome == 2 or isinstance(outcome, ServerUnavailableError) for outcome in outcomes)
    assert any("the answer to another call" in str(outcome) for outcome in outcomes)
    assert await asyncio.gather(*(step_of(asaver, thread) for thread in threads)) == [2] * TASKS


async def test_an_error_is_that_of_one_call(asaver: RedisSaver, url: str, prefix: str) -> None:
    threads = [f"t{number}" for number in range(TASKS)]
    configs = dict(
        zip(threads, await asyncio.gather(*(put(asaver, at(each), value(each, 1), step=1) for each in threads)), strict=True)
    )
    await asaver.adelete_thread("t3")
    with redis.Redis.from_url(url) as admin:
        (damaged,) = admin.scan_iter(f"{prefix}:*:t:t7")
        admin.delete(damaged)
        admin.set(damaged, "something else")
    outcomes = await asyncio.gather(
        *(put(asaver, configs[each], value(each, 2), step=2) for each in threads), return_exceptions=True
    )
    for thread, outcome in zip(threads, outcomes, strict=True):
        if thread == "t3":
            assert isinstance(outcome, ThreadDeletedError)
        elif thread == "t7":
            assert isinstance(outcome, CheckpointCorruptError)
            assert "'t7'" in str(outcome)
        else:
            assert not isinstance(outcome, BaseException), outcome
            assert await step_of(asaver, thread) == 2


async def test_a_call_that_cannot_be_sent_is_an_error_of_its_own(asaver: RedisSaver, prefix: str) -> None:
    await asyncio.gather(*(steps(asaver, f"t{number}", 1) for number in range(TASKS)))
    target = Address(prefix, "t0", "", None)
    client = asaver._connection.async_client()
    batches = asaver._connection.batches(client)
    assert batches is not None
    unsendable = Call(GET, target.keys.all, [target.keys.name, True], "")  # hiredis packs no booleans, nor does redis-py
    *outcomes, refused = await asyncio.gather(
        *(step_of(asaver, f"t{number}") for number in range(TASKS)),
        batches.reply(client, unsendable),
        return_exceptions=True,
    )
    assert isinstance(refused, TypeError | redis.DataError)
    assert outcomes == [1] * TASKS
    assert batches._under_way == 0


async def test_scripts_that_the_server_forgets(own: EmbeddedServer) -> None:
    forgotten = 0
    async with RedisSaver(own.url) as saver, redis.asyncio.Redis.from_url(own.url) as admin:
        work = asyncio.gather(*(steps(saver, f"t{number}", 8) for number in range(TASKS)))
        while not work.done():
            forgotten += await admin.script_flush()
            await asyncio.sleep(0.02)
        await work
        assert [await step_of(saver, f"t{number}") for number in range(TASKS)] == [8] * TASKS
    assert forgotten > 1


async def test_a_full_server_refuses_writes_and_answers_reads_beside_them(own: EmbeddedServer) -> None:
    threads = [f"t{number}" for number in range(TASKS)]
    async with RedisSaver(own.url) as saver, redis.asyncio.Redis.from_url(own.url) as admin:
        await asyncio.gather(*(steps(saver, thread, 1) for thread in threads))
        await admin.config_set("maxmemory", 1)
        writes = [put(saver, at(thread), value(thread, 2), step=2) for thread in threads]
        reads = [step_of(saver, thread) for thread in threads]
        outcomes = await asyncio.gather(*writes, *reads, return_exceptions=True)
        await admin.config_set("maxmemory", 0)
        for outcome in outcomes[:TASKS]:
            assert isinstance(outcome, ServerRefusedError)
            assert "memory is full" in str(outcome)
        assert outcomes[TASKS:] == [1] * TASKS


async def test_a_server_that_went_away_is_an_error_of_each_call(own: EmbeddedServer) -> None:
    options = {"retry": None, "socket_timeout": 5}
    async with RedisSaver(own.url, redis_options=options) as saver:
        await asyncio.gather(*(steps(saver, f"t{number}", 1) for number in range(TASKS)))
        own.close()
        outcomes = await asyncio.gather(*(step_of(saver, f"t{number}") for number in range(TASKS)), return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, ServerUnavailableError)
            assert f"thread 't{number}'" in str(outcome)
            cause = outcome.__cause__
            callers = sum(frame.name == "arun" for frame in traceback.extract_tb(cause and cause.__traceback__))
            assert callers == 1  # what failed for many is told to each without the frames of the others


async def test_closing_while_calls_are_under_way_answers_each_call(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    client = saver._connection.async_client()
    work = [asyncio.create_task(steps(saver, f"t{number}", 12)) for number in range(TASKS)]
    while not await step_of(saver, "t0"):
        pass
    await saver.aclose()
    outcomes = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 60)
    assert all(outcome is None or isinstance(outcome, SaverClosedError | ServerUnavailableError) for outcome in outcomes)
    assert any(outcome is not None for outcome in outcomes)
    await client.aclose()  # what redis-py opened anew for calls that were under way


def test_event_loops_in_threads_share_a_saver(url: str, prefix: str) -> None:
    outcomes: dict[int, Any] = {}

    with RedisSaver(url, prefix=prefix) as saver:

        async def work(loop: int) -> list[int]:
            threads = [f"loop {loop} thread {number}" for number in range(TASKS // 2)]
            await asyncio.gather(*(steps(saver, thread, 6) for thread in threads))
            return await asyncio.gather(*(step_of(saver, thread) for thread in threads))

        def run(loop: int) -> None:
            outcomes[loop] = asyncio.run(work(loop))

        runners = [threading.Thread(target=run, args=(loop,)) for loop in range(4)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
    assert outcomes == {loop: [6] * (TASKS // 2) for loop in range(4)}


def test_a_loop_that_is_stopped_leaves_no_call_waiting(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        started: list[asyncio.Task[None]] = []

        async def main() -> None:
            started.extend(asyncio.create_task(steps(saver, f"t{number}", 30)) for number in range(TASKS))
            while not await step_of(saver, "t0"):
                pass

        asyncio.run(main())
        # `asyncio.wait_for`, which redis-py sends with, may swallow a cancellation before Python 3.12: such a task goes on
        assert all(task.cancelled() or task.exception() is None for task in started)
        assert sum(task.cancelled() for task in started) > TASKS // 2
        for number in range(TASKS):
            found = saver.get_tuple(at(f"t{number}"))
            assert found is None or found.checkpoint["channel_values"]["whose"].startswith(f"t{number} ")


def test_loops_that_were_closed_are_let_go(url: str, prefix: str) -> None:
    """Also those that were closed under calls, which refer to them."""
    loops = [asyncio.new_event_loop() for _ in range(3)]
    with RedisSaver(url, prefix=prefix) as saver:
        for step, loop in enumerate(loops):
            loop.run_until_complete(steps(saver, f"t{step}", 1))
            assert list(saver._connection._built_async) == [loop]
            loop.close()


@pytest.mark.parametrize("package", ["redis", "valkey"])
async def test_a_given_client_gets_each_call_by_itself(url: str, prefix: str, package: str) -> None:
    async with pytest.importorskip(f"{package}.asyncio").from_url(url) as client:
        saver = RedisSaver(async_client=client, prefix=prefix)
        await asyncio.gather(*(steps(saver, f"t{number}", 4) for number in range(TASKS)))
        assert saver._connection.batches(client) is None
        assert await asyncio.gather(*(step_of(saver, f"t{number}") for number in range(TASKS))) == [4] * TASKS


async def test_resp3(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, redis_options={"protocol": 3}) as saver:
        await asyncio.gather(*(steps(saver, f"t{number}", 4) for number in range(TASKS)))
        assert await asyncio.gather(*(step_of(saver, f"t{number}") for number in range(TASKS))) == [4] * TASKS


async def test_durability_is_asked_for_by_each_write(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, durability=Replicas(1, timeout=0.01)) as saver:
        outcomes = await asyncio.gather(
            *(put(saver, at(f"t{number}"), value(f"t{number}", 1), step=1) for number in range(TASKS)), return_exceptions=True
        )
        assert all(isinstance(outcome, DurabilityError) for outcome in outcomes)  # there is no replica
        assert await asyncio.gather(*(step_of(saver, f"t{number}") for number in range(TASKS))) == [1] * TASKS
