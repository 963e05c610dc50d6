"""What breaks around a saver, and what it may do then: answer right, or raise a typed error. Never a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import writer
from conftest import IMAGES, RIGHTS, TOPOLOGIES_OF, Servers
from langgraph.checkpoint.serde.types import INTERRUPT
from servers import Box, Server, single, until
from shapes import SyncSurface, at, checkpoint, id_of, ids, listed, metadata, new_id, plain, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointLostError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from langgraph_redis_state.keys import ThreadKeys

BIG = [f"{n}: " + "some words that differ " * 8 for n in range(1_500)]
"""About 300 KB in 1,500 elements: several chunks."""

Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
async def open_on(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Open]:
    """Opens savers of the test's prefix at a URL. The test awaits their methods, which are sync ones every other time."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(url: str, **options: Any) -> Any:
            saver = await stack.enter_async_context(RedisSaver(url, prefix=prefix, **options))
            return saver if request.param == "async" else SyncSurface(saver)

        yield open_one


@pytest.fixture
def own() -> Iterator[tuple[Server, Box]]:
    """A server of the test's own, that keeps on disk what it acknowledged."""
    with single(TOPOLOGIES_OF, "--save", "", "--appendonly", "yes", "--appendfsync", "always") as (server, box):
        yield server, box


def every_method(saver: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "get_tuple": lambda: saver.aget_tuple(at("t")),
        "list": lambda: listed(saver, at("t")),
        "list(None)": lambda: listed(saver, None),
        "put": lambda: put(saver, at("t"), {"x": BIG}),
        "put_writes": lambda: saver.aput_writes(at("t", "", new_id()), [("x", 1)], "task"),
        "delete_thread": lambda: saver.adelete_thread("t"),
        "delete_for_runs": lambda: saver.adelete_for_runs(["r"]),
        "copy_thread": lambda: saver.acopy_thread("t", "u"),
        "prune": lambda: saver.aprune(["t"]),
        "get_delta_channel_history": lambda: saver.aget_delta_channel_history(config=at("t"), channels=["x"]),
    }


# --- a server that goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_went_away_is_said_and_the_same_saver_works_when_it_is_back(
    own: tuple[Server, Box], open_on: Open, how: str
) -> None:
    server, box = own
    saver = await open_on(server.url)
    config = await put(saver, at("t"), {"x": BIG})
    await saver.aput_writes(config, [("x", 1)], "task")
    expected = plain(await saver.aget_tuple(at("t")))
    for name, method in every_method(saver).items():
        if name in ("get_tuple", "put"):
            box.start() if name == "put" else None
            assert plain(await saver.aget_tuple(at("t"))) == expected
            getattr(box, how)()
        with pytest.raises(ServerUnavailableError, match="repeating it is safe"):
            await method()
    box.start()
    assert plain(await saver.aget_tuple(at("t"))) == expected
    child = await put(saver, config, {"x": [*BIG, 1]})
    assert await ids(saver, at("t")) == [id_of(child), id_of(config)]


async def test_a_server_that_comes_back_empty_is_written_to_anew(open_on: Open, prefix: str) -> None:
    with single(TOPOLOGIES_OF) as (server, box):
        saver = await open_on(server.url)
        config = await put(saver, at("t"), {"x": BIG, "same": BIG})
        box.kill()
        box.start()
        assert await saver.aget_tuple(at("t")) is None
        made = checkpoint({"x": [*BIG, 1], "same": BIG})
        child = await saver.aput(config, made, metadata(), {"x": 1})  # "same" is taken over from what is gone
        assert (await saver.aget_tuple(child)).checkpoint["channel_values"] == {"x": [*BIG, 1], "same": BIG}
        del made["channel_values"]["same"]
        box.kill()
        box.start()
        with pytest.raises(CheckpointLostError, match="same"):  # and is given nowhere else
            await saver.aput(config, {**made, "id": new_id()}, metadata(), {"x": 1})
        assert await listed(saver, None) == []


# --- a server that refuses --------------------------------------------------------------------------------------------


async def test_a_replica_is_read_and_refuses_to_be_written(servers: Servers, open_on: Open) -> None:
    watched = servers.sentinel()
    primary = await open_on(watched.server.url)
    config = await put(primary, at("t"), {"x": BIG}, run_id="r")
    await primary.aput_writes(config, [("x", [*BIG, 1])], "task")
    await put(primary, at("t", "child:1"), {"x": 1}, run_id="r")
    written = [plain(found) for found in await listed(primary, at("t", None))]
    for url in watched.replicas:
        watched.server.admin.wait(2, 5_000)
        saver = await open_on(url)
        assert plain(await saver.aget_tuple(at("t"))) == written[1]
        assert [plain(found) for found in await listed(saver, at("t", None))] == written
        assert len(await listed(saver, None)) == 2
        assert (await saver.aget_delta_channel_history(config=config, channels=["x"]))["x"] == {"writes": []}
        for name in ("put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune"):
            if name != "prune":  # finds nothing to remove, so it refuses nothing
                with pytest.raises(ServerRefusedError, match="replica"):
                    await every_method(saver)[name]()
        assert [plain(found) for found in await listed(saver, at("t", None))] == written


async def test_a_replica_is_read_also_when_the_time_to_live_would_be_renewed(
    servers: Servers, open_on: Open, prefix: str
) -> None:
    watched = servers.sentinel()
    primary = await open_on(watched.server.url, ttl=100)
    await put(primary, at("t"), {"x": 1})
    expected = plain(await primary.aget_tuple(at("t")))
    for key in ThreadKeys(prefix, b"t").all[:2]:
        watched.server.admin.pexpire(key, 50_000)
    watched.server.admin.wait(2, 5_000)
    for url in watched.replicas:
        saver = await open_on(url, ttl=100)
        assert plain(await saver.aget_tuple(at("t"))) == expected
        assert [plain(found) for found in await listed(saver, at("t"))] == [expected]


@pytest.mark.parametrize("topology", ["redis:6.2", "redis:8.0", "valkey/valkey:8.1", "sentinel", "cluster"])
async def test_a_wrong_password_is_a_refusal(servers: Servers, open_on: Open, prefix: str, topology: str) -> None:
    server = servers.target(f"{topology}-resp2")
    for node in (*server.primaries, *server.replicas):
        node.execute_command("ACL", "SETUSER", prefix, "on", ">right", "~*", "+@all")
    scheme, _, hosts = server.url.partition("://")
    right = await open_on(f"{scheme}://{prefix}:right@{hosts}")
    await put(right, at("t"), {"x": 1})
    for login in (f"{prefix}:wrong", f"nobody-{prefix}:right", ":wrong"):
        if login == ":wrong" and server.admin.acl_getuser("default")["flags"].count("nopass"):
            continue  # the default user takes any password
        saver = await open_on(f"{scheme}://{login}@{hosts}")
        for name in ("get_tuple", "list(None)", "put"):
            with pytest.raises(ServerRefusedError, match="password") as refused:
                await every_method(saver)[name]()
            assert "wrong" not in str(refused.value).replace("WRONGPASS", "")


@pytest.mark.parametrize("image", IMAGES)
async def test_a_missing_right_is_a_refusal(servers: Servers, open_on: Open, prefix: str, image: str) -> None:
    server = servers.single(image)
    user = ("ACL", "SETUSER", prefix, "reset", "on", ">pass", *RIGHTS.replace("prefix", prefix).split())
    url = server.url.replace("://", f"://{prefix}:pass@")
    server.admin.execute_command(*user)
    saver = await open_on(url)
    config = await put(saver, at("t"), {"x": 1})
    for missing in ("-hset", "-zadd", "-hget", "-time", "-evalsha"):
        server.admin.execute_command(*user, missing)
        with pytest.raises(ServerRefusedError, match="rights"):
            await put(saver, config, {"x": 2})
    server.admin.execute_command(*user, "resetkeys", "~other:*")
    with pytest.raises(ServerRefusedError, match="rights"):
        await put(saver, config, {"x": 2})
    with pytest.raises(ServerRefusedError, match="rights"):
        await saver.aget_tuple(config)
    server.admin.execute_command(*user)
    assert await ids(saver, at("t")) == [id_of(config)]


def contents(server: Server, prefix: str) -> dict[bytes, Any]:
    """All that is stored under a prefix, without times."""
    found: dict[bytes, Any] = {}
    for key in server.keys(prefix):
        kind = server.admin.type(key)
        if kind == b"hash":
            found[key] = server.admin.hgetall(key)
        elif kind == b"zset":
            found[key] = list(server.admin.zrange(key, 0, -1))
        else:
            found[key] = server.admin.get(key)
    return found


@pytest.mark.parametrize("image", IMAGES)
async def test_a_full_server_refuses_to_be_written_and_can_be_emptied(image: str, open_on: Open, prefix: str) -> None:
    with single(image, "--save", "", "--maxmemory-policy", "noeviction") as (server, _):
        saver = await open_on(server.url)
        threads = [f"thread {n}" for n in range(4)]
        for thread in threads:
            config = at(thread)
            for n in range(4):
                config = await put(saver, config, {"x": os.urandom(1_000_000)}, run_id=f"{thread} {n}")
        await saver.aput_writes(config, [("x", 1)], "task")
        before = contents(server, prefix)

        def fill() -> None:
            server.admin.config_set("maxmemory", server.admin.info("memory")["used_memory"] - 500_000)

        fill()
        for write in (
            lambda: put(saver, config, {"x": 1}),
            lambda: put(saver, config, {"x": os.urandom(1_000_000)}),
            lambda: put(saver, config, {"x": os.urandom(6_000_000)}),
            lambda: put(saver, at("new"), {"x": 1}, run_id="new run"),
            lambda: saver.aput_writes(config, [("y", 1)], "another task"),
            lambda: saver.aput_writes(at("new", "", new_id()), [("y", 1)], "another task"),
            lambda: saver.acopy_thread("thread 0", "copy"),
        ):
            with pytest.raises(ServerRefusedError, match="memory is full"):
                await write()
            assert contents(server, prefix) == before
        assert len(await listed(saver, None)) == 16

        await saver.aprune(["thread 0"])
        assert len(await ids(saver, at("thread 0"))) == 1
        fill()
        await saver.adelete_for_runs(["thread 1 0", "thread 1 1"])
        assert len(await ids(saver, at("thread 1"))) == 2
        fill()
        await saver.adelete_thread("thread 2")
        assert await saver.aget_tuple(at("thread 2")) is None
        fill()
        await saver.aprune(["thread 1"], strategy="delete")
        assert await saver.aget_tuple(at("thread 1")) is None

        server.admin.config_set("maxmemory", 0)
        child = await put(saver, config, {"x": BIG})
        assert (await saver.aget_tuple(at("thread 3"))).config == child
        with pytest.raises(ThreadDeletedError):  # the tombstone was written, full as it was
            await put(saver, at("thread 2", "", "0"), {"x": 1})


# --- a server that forgets --------------------------------------------------------------------------------------------


@pytest.fixture
def shared(servers: Servers) -> Server:
    return servers.single(TOPOLOGIES_OF)


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
        print(f"evicted: {whole} threads whole, {gone} gone with both keys, {lost} lost a key and said so")
        assert gone + lost > 0
        assert whole > 0


# --- anything, between any two operations -----------------------------------------------------------------------------


class Model:
    """What a saver must answer, as plain dictionaries."""

    def __init__(self) -> None:
        self.threads: dict[str, dict[str, Any]] = {}

    def latest(self, thread: str) -> Any:
        found = self.threads.get(thread)
        return found[max(found)] if found else None


@pytest.mark.parametrize("seed", range(6))
async def test_disturbances_between_any_two_operations_leave_right_answers_or_typed_errors(
    shared: Server, open_on: Open, prefix: str, seed: int
) -> None:
    chance = random.Random(seed)
    savers = [await open_on(shared.url), await open_on(shared.url)]
    model = Model()
    tombstones: set[str] = set()

    def flush_all() -> None:
        for key in shared.keys(prefix):
            shared.admin.delete(key)
        model.threads.clear()
        tombstones.clear()

    disturbances = {
        "nothing": lambda: None,
        "SCRIPT FLUSH": shared.flush_scripts,
        "CLIENT KILL": lambda: shared.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        "everything is deleted": flush_all,
    }
    configs: dict[str, Any] = {}
    serial = 0
    for _ in range(150):
        disturbances[chance.choice(["nothing", "SCRIPT FLUSH", "CLIENT KILL", "CLIENT KILL", "everything is deleted"])]()
        saver = chance.choice(savers)
        thread = chance.choice("abc")
        verb = chance.choice(["put", "put", "put", "writes", "get", "list", "copy", "prune", "delete", "history"])
        serial += 1
        if verb == "put":
            parent = configs.get(thread) or at(thread)
            values = {"list": [*BIG[:200], serial], "same": BIG[:100]}
            made = checkpoint(values)
            new = {"list": 1} if thread in configs else {"list": 1, "same": 1}
            try:
                configs[thread] = await saver.aput(parent, made, metadata(step=serial), new)
            except ThreadDeletedError:
                assert thread in tombstones
                configs.pop(thread)
                continue
            told = {"values": values, "step": serial, "writes": []}
            model.threads.setdefault(thread, {})[id_of(configs[thread])] = told
        elif verb == "writes" and model.latest(thread):
            at_id = max(model.threads[thread])
            await saver.aput_writes(at(thread, "", at_id), [("x", serial), ("y", BIG[:50])], f"task {serial:06}")
            model.threads[thread][at_id]["writes"] += [
                (f"task {serial:06}", "x", serial),
                (f"task {serial:06}", "y", BIG[:50]),
            ]
        elif verb == "copy":
            target = chance.choice("abc")
            if target == thread:
                continue
            try:
                await saver.acopy_thread(thread, target)
            except ThreadNotFoundError:
                assert not model.threads.get(thread)
            except ThreadExistsError:
                assert model.threads.get(target)
            else:
                assert model.threads.get(thread)
                assert not model.threads.get(target)
                model.threads[target] = {
                    name: {**told, "writes": list(told["writes"])} for name, told in model.threads[thread].items()
                }
                tombstones.discard(target)
        elif verb == "prune":
            await saver.aprune([thread])
            if model.threads.get(thread):
                newest = max(model.threads[thread])
                model.threads[thread] = {newest: model.threads[thread][newest]}
        elif verb == "delete":
            await saver.adelete_thread(thread)
            if model.threads.pop(thread, None):
                tombstones.add(thread)
        elif verb == "history" and model.latest(thread):
            await saver.aget_delta_channel_history(config=at(thread), channels=["list"])

        def shown(found: Any) -> Any:
            values = found.checkpoint["channel_values"]
            return {"values": values, "step": found.metadata["step"], "writes": found.pending_writes}

        reader = chance.choice(savers)
        found = await reader.aget_tuple(at(thread))
        assert (found and shown(found)) == model.latest(thread), (seed, serial, verb)
        told = {id_of(found.config): shown(found) for found in await listed(reader, at(thread))}
        assert told == (model.threads.get(thread) or {}), (seed, serial, verb)


async def test_connections_that_are_cut_all_the_time_lose_and_repeat_nothing(shared: Server, open_on: Open) -> None:
    saver = await open_on(shared.url)
    over = threading.Event()

    def cut() -> None:
        chance = random.Random(4711)
        while not over.wait(chance.random() * 0.02):
            shared.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    cutter = threading.Thread(target=cut)
    cutter.start()
    acknowledged, unknown = [], []
    config = at("t")
    try:
        for n in range(200):
            made = checkpoint({"x": [*BIG[:300], n]})
            try:
                config = await saver.aput(config, made, metadata(step=n), {"x": 1})
                await saver.aput_writes(config, [("x", n), ("y", n)], "task")
                acknowledged.append(made["id"])
                found = await saver.aget_tuple(config)
                assert found.checkpoint["channel_values"] == {"x": [*BIG[:300], n]}
                assert found.pending_writes == [("task", "x", n), ("task", "y", n)]
            except ServerUnavailableError:
                unknown.append(made["id"])
    finally:
        over.set()
        cutter.join()
    print(f"of 200 steps under constant CLIENT KILL {len(unknown)} ended in an error")
    stored = await ids(saver, at("t"))
    assert set(acknowledged) <= set(stored) <= {*acknowledged, *unknown}
    assert len(stored) == len(set(stored))
    assert len(unknown) < 50


# --- a client that dies -----------------------------------------------------------------------------------------------

KILLS = 50


def test_a_client_killed_at_any_moment_leaves_only_whole_checkpoints(shared: Server, prefix: str, tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    command = [sys.executable, writer.__file__, shared.url, prefix, str(acknowledged)]
    chance = random.Random(50)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for number in range(KILLS):
            size = acknowledged.stat().st_size
            parent.stdin.write(f"{number} {'sync' if number % 2 else 'async'}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            until(lambda size=size: acknowledged.stat().st_size > size, "the client does not begin")
            time.sleep(chance.random() * 0.25)  # the random point
            os.kill(child, signal.SIGKILL)
        parent.stdin.close()
        parent.stdout.read()
    assert parent.returncode == 0

    done = [json.loads(line) for line in acknowledged.read_text().splitlines()]
    by_verb = {verb: [told for name, *told in done if name == verb] for verb in ("put", "writes", "copy", "prune")}
    print(f"{KILLS} clients killed after", ", ".join(f"{len(told)} {verb}" for verb, told in by_verb.items()))
    with RedisSaver(shared.url, prefix=prefix) as saver:
        stored: dict[str, dict[str, Any]] = {}
        for found in saver.list(None):
            thread = found.config["configurable"]["thread_id"]
            stored.setdefault(thread, {})[id_of(found.config)] = found
            assert plain(saver.get_tuple(found.config)) == plain(found)
            assert len(found.pending_writes) in (0, writer.WRITES)  # a batch is there or is not
            number, step = int(thread.split()[-1]), found.metadata["step"]
            if thread.startswith("large"):
                assert len(found.checkpoint["channel_values"]["bytes"]) == 5_000_000
            else:
                assert found.checkpoint["channel_values"] == writer.state(number, step % 60)
                assert all(value == writer.state(number, step % 60) for _, _, value in found.pending_writes)
        for thread, checkpoint_id in by_verb["put"]:
            assert checkpoint_id in stored[thread]
        for thread, checkpoint_id in by_verb["writes"]:
            assert len(stored[thread][checkpoint_id].pending_writes) == writer.WRITES
        for (thread,) in by_verb["copy"]:
            assert thread in stored
        for thread, found in stored.items():
            if thread.startswith("copy"):
                steps = int(thread.split()[2])
                pruned = [thread] in by_verb["prune"]
                assert len(found) == (1 if pruned else steps) or (len(found) == 1 and steps % 6 == 0)
    staging = [key for key in shared.keys(prefix) if b"}:u:" in key]
    print(f"{len(staging)} staging keys were left behind; they expire by themselves")
    assert all(0 < shared.admin.pttl(key) <= 600_000 for key in staging)


async def test_a_cancelled_call_leaves_the_connection_usable(shared: Server, prefix: str) -> None:
    async with RedisSaver(shared.url, prefix=prefix) as saver:
        before = {"x": BIG}
        config = await put(saver, at("t"), before)
        for n in range(60):
            made = checkpoint({"x": [*BIG, n]})
            task = asyncio.create_task(saver.aput(config, made, metadata(step=n), {"x": 1}))
            for _ in range(n % 12):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            found = await saver.aget_tuple(at("t", "", made["id"]))
            assert found is None or found.checkpoint["channel_values"] == {"x": [*BIG, n]}
            assert (await saver.aget_tuple(config)).checkpoint["channel_values"] == before
