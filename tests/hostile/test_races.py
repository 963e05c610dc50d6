"""Races and cancellation: nothing is lost or mixed up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from audit import audit, keys_of, put
from forks import forked
from langgraph.checkpoint.serde.types import RESUME, _DeltaSnapshot
from shapes import at, checkpoint, id_of, metadata, new_id, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.effects import Compute
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    ThreadBusyError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from langgraph_redis_state.operations import uploading
from langgraph_redis_state.operations.copying import copy_thread
from langgraph_redis_state.operations.delta_channels import get_delta_channel_history
from langgraph_redis_state.storage.keys import ThreadKeys


def stepwise(saver: RedisSaver, operation: Any) -> Iterator[Any]:
    """Runs an operation, stopping before each effect: what happens elsewhere in between is up to the caller."""
    reply: Any = None
    while True:
        try:
            effect = operation.send(reply)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, Compute):
            reply = effect.work()
            continue
        yield effect
        reply = run(_only(effect), saver._connection)


def _only(effect: Any) -> Any:
    """An operation of one effect."""
    return (yield effect)


# --- chains that never end, ancestors that vanish ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_chain_of_parents_that_closes_on_itself_ends(saver: RedisSaver, length: int) -> None:
    ids = [new_id() for _ in range(length)]
    for n, id in enumerate(ids):
        put(saver, at("t", "", ids[n - 1]), {"n": n}, id=id)
        saver.put_writes(at("t", "", id), [("log", n)], "task")
    walk = stepwise(saver, get_delta_channel_history(saver._engine, saver.serde, at("t", "", ids[-1]), ["absent"]))
    with contextlib.suppress(CheckpointCorruptError):
        for effects, _ in enumerate(walk):
            assert effects < 20, "a walk without end"
    saver.prune(["t"])
    assert id_of(saver.get_tuple(at("t")).config) == max(ids)


def test_an_ancestor_that_goes_away_during_the_walk_is_lost(saver: RedisSaver) -> None:
    config = put(saver, at("t"), {"log": _DeltaSnapshot([0])})
    for n in range(1, 250):
        saver.put_writes(config, [("log", [n])], "task")
        config = put(saver, config, {}, versions={"log": n + 1}, counters_since_delta_snapshot={"log": (n, n)})
    walk = get_delta_channel_history(saver._engine, saver.serde, config, ["log"])
    steps = stepwise(saver, walk)
    next(steps)
    next(steps)
    newer = [found.config for found in saver.list(at("t"), limit=50)]
    saver.delete_thread("t")
    with pytest.raises(CheckpointLostError):
        list(steps)
    assert len(newer) == 50


# --- races ------------------------------------------------------------------------------------------------------------


def test_writers_pruners_copiers_and_deleters_at_once_leave_a_sound_thread(
    saver: RedisSaver, raw: Any, url: str, prefix: str
) -> None:
    saver.get_tuple(at("t"))
    errors: list[BaseException] = []
    stop = threading.Event()
    shared = [words(n, 200) for n in range(30)]

    def write(number: int) -> None:
        with RedisSaver(url, prefix=prefix) as mine:
            config: Any = at("t")
            for n in range(40):
                try:
                    config = put(mine, config, {"shared": shared[: 26 + n % 4], "own": words((number, n), 200), "n": n})
                    mine.put_writes(config, [("w", words((number, n, 1), 250)), (RESUME, n)], f"task {number}")
                    found = mine.get_tuple(config)
                    if found is not None:
                        assert found.checkpoint["channel_values"]["own"] == words((number, n), 200)
                        assert found.checkpoint["channel_values"]["shared"] == shared[: 26 + n % 4]
                except ThreadDeletedError:
                    config = at("t")

    def disturb(number: int) -> None:
        with RedisSaver(url, prefix=prefix) as mine:
            n = 0
            while not stop.is_set():
                n += 1
                with contextlib.suppress(ThreadBusyError, ThreadNotFoundError, ThreadExistsError):
                    if number == 0:
                        mine.prune(["t"])
                    elif number == 1:
                        mine.copy_thread("t", f"copy {n}")
                    elif n % 10 == 0:
                        mine.delete_thread("t")
                    else:
                        list(mine.list(at("t", None)))

    def guarded(work: Any, number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    writers = [threading.Thread(target=guarded, args=(write, n)) for n in range(3)]
    others = [threading.Thread(target=guarded, args=(disturb, n)) for n in range(3)]
    for thread in writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    assert errors == []
    put(saver, at("t"), {"n": "last"})
    audit(raw, prefix, "t")
    saver.copy_thread("t", "copy at last")  # those before may all have met a writer, or a thread that held but writes
    copies = [name[2:] for name in keys_of(raw, prefix) if name.startswith("t:copy")]
    assert "copy at last" in copies
    for copy in copies:
        audit(raw, prefix, copy)
        found = list(saver.list(at(copy, None)))  # each is verified
        assert found or copy != "copy at last"
    for key in raw.scan_iter(match=f"{prefix}:*:u:*", count=10_000):
        assert raw.pttl(key) > 0  # staging of copies that did not come about
    saver.prune(["t"])
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"n": "last"}
    put(saver, at("t"), {"n": "later"})
    saver.prune(["t"])
    audit(raw, prefix, "t", clean=True)


GROW_IMPORTS = """
from audit import put
from shapes import at, words
from langgraph_redis_state import RedisSaver
"""
GROW = """
with RedisSaver(sys.argv[1], prefix=sys.argv[2]) as saver:
    config = at("t")
    for n in range(30):
        config = put(saver, config, {"who": number, "n": n, "text": words((number, n), 150)})
        saver.put_writes(config, [("w", n)], f"task {number}")
"""


def test_processes_that_write_one_thread_lose_nothing(saver: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    subprocess.run(forked(2, GROW_IMPORTS, GROW, url, prefix), timeout=60, check=True)
    found = list(saver.list(at("t")))
    assert len(found) == 60
    for number in range(2):
        mine = [each for each in found if each.checkpoint["channel_values"]["who"] == number]
        assert [each.checkpoint["channel_values"]["n"] for each in mine] == list(range(30))[::-1]
        assert all(each.pending_writes[0][2] == each.checkpoint["channel_values"]["n"] for each in mine)
    audit(raw, prefix, "t", clean=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_parents_saver(saver: RedisSaver) -> None:
    config = put(saver, at("t"), {"big": words(1, 500), "n": 0})
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            put(saver, config, {"big": words(1, 500), "n": 1}, ["n"])
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": words(1, 500), "n": 1}


def test_a_thread_made_anew_during_a_copy_does_not_get_into_it(url: str, raw: Any, prefix: str) -> None:
    """Deleted and made again in the same shape, its counts are the same as before."""
    with RedisSaver(url, prefix=prefix, compression="none") as saver:

        def make(mark: str) -> None:
            config: Any = at("t")
            for _ in range(600):
                config = put(saver, config, {"mark": mark})

        make("old")
        copying = stepwise(saver, copy_thread(saver._engine, "t", "copy"))
        reads = 0
        for effect in copying:
            if "HMGET" in str(effect):
                reads += 1
                if reads == 2:
                    saver.delete_thread("t")
                    raw.delete(ThreadKeys(prefix, b"t").all[6])
                    make("new")
        assert reads >= 2
        copied = list(saver.list(at("copy")))
        assert len({found.checkpoint["channel_values"]["mark"] for found in copied}) == 1
        assert len(copied) == 600
        audit(raw, prefix, "copy", clean=True)


async def test_a_put_cancelled_anywhere_is_there_or_not_and_the_saver_goes_on(
    asaver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", 500_000)
    big = random.Random(5).randbytes(700_000)  # goes through staging
    for values in ({"n": 1, "text": words(1, 400)}, {"big": big}):
        config: Any = at("t")
        done = False
        delay = 0
        while not done:
            made = checkpoint(values)
            task = asyncio.ensure_future(asaver.aput(config, made, metadata(), made["channel_versions"]))
            for _ in range(delay):
                await asyncio.sleep(0)
                if task.done():
                    break
            task.cancel()
            done = False
            with contextlib.suppress(asyncio.CancelledError):
                await task
                done = True
            found = await asaver.aget_tuple(at("t", "", made["id"]))
            if done:
                assert found is not None
            if found is not None:
                assert found.checkpoint["channel_values"] == values
            assert await asaver.aget_tuple(at("none")) is None
            delay += 1 if delay < 20 else 7 + delay // 50
            assert delay < 100_000  # passes of the loop, of which a worker thread leaves time for many
        audit(raw, prefix, "t")


async def test_many_cancelled_reads_do_not_mix_up_replies(asaver: RedisSaver) -> None:
    for n in range(10):
        made = checkpoint({"n": n})
        await asaver.aput(at(f"t{n}"), made, metadata(), {"n": 1})
    chosen = random.Random(3)

    async def read(n: int) -> None:
        found = await asaver.aget_tuple(at(f"t{n}"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": n}

    for _ in range(60):
        tasks = [asyncio.ensure_future(read(n)) for n in range(10)]
        for _ in range(chosen.randrange(12)):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert results[1::2] == [None] * 5


async def test_a_value_taken_over_is_what_it_was_even_if_the_server_lost_it(asaver: RedisSaver, raw: Any, prefix: str) -> None:
    big = [words(n, 100) for n in range(20)]
    made = checkpoint({"big": big})
    config = await asaver.aput(at("t"), made, metadata(), {"big": 1})
    raw.delete(*ThreadKeys(prefix, b"t").all[:2])
    child = checkpoint({"big": big})
    task = asyncio.ensure_future(asaver.aput(config, child, metadata(), {}))
    await asyncio.sleep(0)
    before = list(big)
    big.append("changed while aput was under way")
    with contextlib.suppress(CheckpointerError):
        await task
        assert (await asaver.aget_tuple(at("t"))).checkpoint["channel_values"]["big"] == before
