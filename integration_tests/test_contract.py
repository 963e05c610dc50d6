"""What a saver must do, on every server there is: see `conftest.TARGETS`."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from conformance import check
from conftest import CLUSTER_RIGHTS, DURABILITY_RIGHTS, IMAGES, LOOKING_RIGHTS, RIGHTS, TOPOLOGIES_OF, Servers
from exercise import scenario
from graphs import play
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import INTERRUPT
from servers import Server, clients
from shapes import SyncSurface, assert_same, at, checkpoint, expiries, id_of, ids, listed, metadata, plain, put

import langgraph_redis_state
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import all_commands
from langgraph_redis_state.errors import ServerRefusedError
from langgraph_redis_state.operations import removal_plan
from langgraph_redis_state.storage.keys import ThreadKeys, layout_key

ROOT = Path(__file__).parents[1]
BIG = [f"{n}: " + "some words that differ " * 8 for n in range(1_500)]
"""About 300 KB in 1,500 elements: several chunks."""

KEYS = {"encryption_key": bytes(range(32)), "name_key": bytes(range(32, 64)), "freshness": True}

Make = Callable[..., RedisSaver]
Surface = Callable[[RedisSaver], Any]
both_surfaces = pytest.mark.parametrize("surface", [SyncSurface, lambda saver: saver], ids=["sync", "async"])


# --- LangGraph's contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", list(Capability), ids=lambda capability: capability.value)
async def test_async_methods_pass_every_conformance_test_of(capability: Capability, asaver: RedisSaver) -> None:
    await check(capability, asaver, lambda saver: saver)


@pytest.mark.parametrize("capability", list(Capability), ids=lambda capability: capability.value)
async def test_sync_methods_pass_every_conformance_test_of(capability: Capability, saver: RedisSaver) -> None:
    await check(capability, saver, SyncSurface)


@pytest.mark.parametrize("surface", ["sync", "async"])
@pytest.mark.parametrize("keys", [{}, KEYS], ids=["plain", "under keys"])
async def test_a_real_graph_does_step_by_step_what_it_does_in_memory(make: Make, surface: str, keys: dict[str, Any]) -> None:
    memory = InMemorySaver()
    expected = await play(memory, memory, surface, "t")
    first, second = make(**keys), make(**keys)
    found = await play(first, second, surface, "t")
    for n, (step, other) in enumerate(zip(expected, found, strict=True)):
        assert_same({"step": n, "gave": step}, {"step": n, "gave": other})
    assert list(first.verify("t")) == []
    for saver in (first, second):
        await saver.aclose()


# --- deleting, copying, pruning ---------------------------------------------------------------------------------------


async def test_every_method_once(either: Any) -> None:
    await scenario(either)


async def grown(saver: BaseCheckpointSaver[Any], thread: str) -> list[dict[str, Any]]:
    """A thread with four root checkpoints of four runs, their writes, and a subgraph's checkpoint for each."""
    config, made = at(thread), []
    for n in range(4):
        config = await put(saver, config, {"x": [*BIG, n], "small": n}, run_id=f"{thread} {n}", step=n)
        await saver.aput_writes(config, [("x", [*BIG, "w"]), (INTERRUPT, "?")], "task", "~path")
        await put(saver, at(thread, f"child:{n}"), {"x": BIG}, parents={"": id_of(config)}, run_id=f"{thread} {n}")
        made.append(config)
    return made


async def test_a_copy_is_complete_and_independent_of_its_source(either: Any) -> None:
    await grown(either, "source")
    source = [plain(found) for found in await listed(either, at("source", None))]
    assert len(source) == 8
    await either.acopy_thread("source", "target")

    def moved(told: Any) -> Any:
        return told | {name: told[name] and ("target", *told[name][1:]) for name in ("config", "parent")}

    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]
    await either.adelete_thread("source")
    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]


async def test_pruning_and_deleting_runs_leave_the_rest_whole(either: Any) -> None:
    for thread in ("a", "b", "c"):
        await grown(either, thread)
    untouched = [plain(found) for found in await listed(either, at("c", None))]
    await either.aprune(["a"])
    kept = await listed(either, at("a", None))
    assert sorted(found.config["configurable"]["checkpoint_ns"] for found in kept) == ["", *(f"child:{n}" for n in range(4))]
    assert (await either.aget_tuple(at("a"))).checkpoint["channel_values"] == {"x": [*BIG, 3], "small": 3}
    await either.adelete_for_runs(["b 1", "b 3", "nobody's"])
    assert [found.metadata["run_id"] for found in await listed(either, at("b"))] == ["b 2", "b 0"]
    assert (await either.aget_tuple(at("b"))).checkpoint["channel_values"] == {"x": [*BIG, 2], "small": 2}
    await either.aprune(["b"], strategy="delete")
    assert await listed(either, at("b", None)) == []
    assert [plain(found) for found in await listed(either, at("c", None))] == untouched


async def test_damage_is_found_and_mended(saver: RedisSaver, asaver: RedisSaver, target: Server, prefix: str) -> None:
    """Of one thread with the rights that everything needs; of all threads, wherever they are, with SCAN besides."""

    async def verified(thread: str | None = None) -> list[tuple[str, str | None]]:
        found = [*saver.verify(thread)]
        assert [each async for each in asaver.averify(thread)] == found
        return [(each.kind, each.thread_id) for each in found]

    threads = [f"thread {n}" for n in range(12)]
    for thread in threads:
        await grown(asaver, thread)
    keys = {thread: ThreadKeys(prefix, thread.encode()) for thread in threads}
    assert [await verified(thread) for thread in threads] == [[]] * 12
    for thread in threads[:4]:
        target.admin.delete(keys[thread].all[1])
        assert await verified(thread) == [("index", thread)]
    for thread in threads[4:8]:
        record = next(name for name in target.admin.hkeys(keys[thread].hash) if name[:1] == b"C")
        target.admin.hset(keys[thread].hash, record, b"damaged")
        assert await verified(thread) == [("damaged", thread)]
    assert (
        [each.kind for each in saver.repair(threads[0])]
        == [each.kind async for each in asaver.arepair(threads[1])]
        == ["index"]
    )
    assert not [*saver.repair(threads[4])]
    dropped = [*saver.repair(threads[4], drop_unreadable=True)]
    assert dropped[0].kind == "damaged"
    for thread in (threads[0], threads[1], threads[4]):
        assert await verified(thread) == []
    if "acl" in target.name:
        with pytest.raises(ServerRefusedError):
            await verified()
        return
    wrong = [("index", thread) for thread in threads[2:4]] + [("damaged", thread) for thread in threads[5:8]]
    assert sorted(await verified()) == sorted(wrong)
    assert sorted(each.thread_id for each in saver.repair()) == threads[2:4]
    assert {each.thread_id async for each in asaver.arepair(drop_unreadable=True)} == set(threads[5:8])
    assert await verified() == []


async def test_deleting_a_thread_leaves_no_key_but_its_tombstone(either: Any, target: Server, prefix: str) -> None:
    await grown(either, "t")
    await either.acopy_thread("t", "copy")
    for thread in ("t", "copy"):
        await either.adelete_thread(thread)
    tombstones = [ThreadKeys(prefix, thread.encode()).all[6] for thread in ("t", "copy")]
    assert target.keys(prefix) == sorted([layout_key(prefix), *tombstones])
    assert all(590_000 < target.admin.pttl(key) <= 600_000 for key in tombstones)


async def test_threads_of_all_slots_are_found_and_removed(either: Any, target: Server, prefix: str) -> None:
    threads = [f"thread {n}" for n in range(60)]
    for thread in threads:
        await put(either, at(thread), {"x": thread}, run_id="one run")
    found = await listed(either, None)
    assert {t.config["configurable"]["thread_id"]: t.checkpoint["channel_values"]["x"] for t in found} == dict(
        zip(threads, threads, strict=True)
    )
    if target.is_cluster:
        assert all(any(node.scan_iter(match=f"{prefix}:*:t:*", count=10_000)) for node in target.primaries)
    await either.adelete_for_runs(["one run"])
    assert await listed(either, None) == []
    assert target.keys(prefix) == [layout_key(prefix)]


async def test_tasks_that_write_at_once_lose_nothing(asaver: RedisSaver) -> None:
    async def use(thread: str) -> None:
        config = at(thread)
        for n in range(5):
            config = await put(asaver, config, {"x": [thread, n, *BIG[:100]]})
            await asyncio.gather(*(asaver.aput_writes(config, [("x", [n, task])], f"task {task}") for task in range(5)))

    await asyncio.gather(*(use(f"thread {n}") for n in range(10)))
    for thread in (f"thread {n}" for n in range(10)):
        found = await listed(asaver, at(thread))
        assert [t.checkpoint["channel_values"]["x"][:2] for t in found] == [[thread, n] for n in (4, 3, 2, 1, 0)]
        assert [t.pending_writes for t in found] == [
            [(f"task {task}", "x", [n, task]) for task in range(5)] for n in (4, 3, 2, 1, 0)
        ]


async def test_the_first_use_of_a_saver_may_be_by_many_tasks_at_once(target: Server, prefix: str) -> None:
    async def use(fresh: RedisSaver, thread: str) -> None:
        config = await put(fresh, at(thread), {"x": [thread, *BIG[:100]]})
        await asyncio.gather(*(fresh.aput_writes(config, [("x", thread)], f"task {n}") for n in range(5)))
        found = await fresh.aget_tuple(at(thread))
        assert found.checkpoint["channel_values"] == {"x": [thread, *BIG[:100]]}
        assert found.pending_writes == [(f"task {n}", "x", thread) for n in range(5)]

    for n in range(8):
        async with RedisSaver(target.url_for(prefix), prefix=prefix, redis_options=target.options) as fresh:
            await asyncio.gather(*(use(fresh, f"{n} {thread}") for thread in range(10)))


def test_a_new_connection_is_usable_at_once(target: Server, prefix: str) -> None:
    url = target.url_for(prefix)
    for _ in range(10):
        with RedisSaver(url, prefix=prefix, redis_options=target.options) as fresh:
            assert fresh.ping()


# --- time to live -----------------------------------------------------------------------------------------------------


@both_surfaces
async def test_both_keys_of_a_thread_expire_at_the_same_instant(
    make: Make, target: Server, prefix: str, surface: Surface
) -> None:
    opened = make(ttl=100)
    saver = surface(opened)
    keys = ThreadKeys(prefix, b"t").all[:2]

    def left() -> int:
        of_hash, of_index, now = expiries(target.admin, *keys)
        assert of_hash == of_index
        return of_hash - now

    config = await put(saver, at("t"), {"x": BIG})
    assert 90_000 < left() <= 100_000
    for renew in (
        lambda: saver.aput_writes(config, [("x", 1)], "task"),
        lambda: put(saver, config, {"x": 1}),
        lambda: put(saver, at("t", "child:1"), {"x": 1}),
        lambda: saver.aget_tuple(config),
        lambda: listed(saver, at("t")),
    ):
        for key in keys:
            target.admin.pexpire(key, 50_000)
        await renew()
        assert 90_000 < left() <= 100_000
    await opened.aclose()


@both_surfaces
async def test_a_thread_expires_whole_and_is_then_simply_not_there(
    make: Make, target: Server, prefix: str, surface: Surface
) -> None:
    opened = make(ttl=0.4, refresh_ttl_on_read=False)
    saver = surface(opened)
    await saver.aput_writes(await put(saver, at("t"), {"x": BIG}, run_id="r"), [("x", 1)], "task")
    expected = plain(await saver.aget_tuple(at("t")))
    deadline = time.monotonic() + 10
    while (found := await saver.aget_tuple(at("t"))) is not None:
        assert plain(found) == expected
        assert time.monotonic() < deadline
    assert await listed(saver, None) == []
    assert not target.admin.exists(*ThreadKeys(prefix, b"t").all[:2])
    await put(saver, at("t"), {"x": "again"})
    assert [t.checkpoint["channel_values"] for t in await listed(saver, at("t"))] == [{"x": "again"}]
    await opened.aclose()


# --- how it gets there ------------------------------------------------------------------------------------------------


async def test_a_large_state_goes_through_staging_and_leaves_nothing_there(either: Any, target: Server, prefix: str) -> None:
    large = {"random": os.urandom(6_000_000), "text": "a line that repeats\n" * 100_000}
    before = target.calls().get("evalsha", 0) + target.calls().get("eval", 0)
    config = await put(either, at("t"), large)
    sent = target.calls().get("evalsha", 0) + target.calls().get("eval", 0) - before
    assert sent >= 4  # three parts of about 2 MB, then what makes them a checkpoint
    await either.aput_writes(config, [("x", large["random"][::-1])], "task")
    found = await either.aget_tuple(at("t"))
    assert found.checkpoint["channel_values"] == large
    assert found.pending_writes == [("task", "x", large["random"][::-1])]
    child = await either.aput(config, checkpoint({**large, "n": 1}), metadata(), {"n": 1})
    assert (await either.aget_tuple(child)).checkpoint["channel_values"] == {**large, "n": 1}
    assert not [key for key in target.keys(prefix) if b"}:u:" in key]
    assert target.admin.hlen(ThreadKeys(prefix, b"t").hash) < 60  # the second checkpoint took the chunks of the first
    await either.adelete_thread("t")


async def test_a_removal_may_make_the_thread_anew(
    either: Any, target: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = at("t")
    for n in range(12):
        config = await put(either, config, {"x": [*BIG, n], "n": n}, run_id=f"r{n % 4}")
        await either.aput_writes(config, [("x", [*BIG[::-1], n])], "task")
    expected = [plain(found) for found in await listed(either, at("t")) if found.metadata["run_id"] in ("r2", "r3")]
    monkeypatch.setattr(removal_plan, "REMADE", -1000)
    await either.adelete_for_runs(["r0", "r1"])
    assert [plain(found) for found in await listed(either, at("t"))] == expected
    assert len(expected) == 6
    assert not [key for key in target.keys(prefix) if b"}:u:" in key]
    await put(either, config, {"x": BIG, "n": 12})
    assert len(await ids(either, at("t"))) == 7


async def test_a_server_that_forgets_the_scripts_at_any_moment_changes_nothing(either: Any, target: Server) -> None:
    def forget() -> None:
        target.flush_scripts()

    config = at("t")
    for n in range(3):
        forget()
        config = await put(either, config, {"x": [*BIG, n]}, run_id=f"r{n}")
        forget()
        await either.aput_writes(config, [("x", n)], "task")
        forget()
        assert (await either.aget_tuple(at("t"))).pending_writes == [("task", "x", n)]
    forget()
    assert len(await ids(either, at("t"))) == 3
    forget()
    assert len(await ids(either, at("t"), filter={"run_id": "r1"})) == 1
    forget()
    assert (await either.aget_delta_channel_history(config=config, channels=["x"]))["x"]["seed"] == [*BIG, 1]
    forget()
    await either.acopy_thread("t", "copy")
    forget()
    await either.adelete_for_runs(["r0"])
    forget()
    await either.aprune(["copy"])
    assert [len(await ids(either, at(thread))) for thread in ("t", "copy")] == [2, 1]
    forget()
    await either.adelete_thread("t")
    assert await either.aget_tuple(at("t")) is None


async def test_each_operation_is_one_round_trip(either: Any, target: Server, prefix: str) -> None:
    await put(either, at("t"))  # the server learns the scripts
    await either.adelete_thread("t")
    for n in range(130):  # two pages of a list
        config = await put(either, at("t"), {"x": n}, step=n)
    await either.aput_writes(config, [("x", 1)], "task")
    await listed(either, at("t"), limit=1)
    await either.aget_tuple(config)
    fresh = {}

    async def child() -> None:
        fresh["config"] = await put(either, config, {"x": BIG})

    for operation, trips in (
        (child, 1),
        (lambda: either.aput_writes(fresh["config"], [("x", BIG), ("y", 2), (INTERRUPT, "?")], "task"), 1),
        (lambda: either.aget_tuple(fresh["config"]), 1),
        (lambda: either.aget_tuple(at("t")), 1),
        (lambda: either.aget_tuple(at("t", "nowhere")), 1),
        (lambda: listed(either, at("t"), limit=100), 1),
        (lambda: listed(either, at("t")), 2),
        (lambda: listed(either, at("t"), filter={"step": 1}, limit=1), 3),  # two pages of headers, and the one found
        (lambda: either.adelete_thread("t"), 1),
    ):
        before = target.calls()
        with target.watched(prefix) as commands:
            await operation()
        after = target.calls()
        assert commands == ["EVALSHA"] * trips
        assert after["evalsha"] - before["evalsha"] == trips
        assert after.get("eval", 0) == before.get("eval", 0)


async def test_clients_that_the_user_made_do_as_well_and_stay_open(target: Server, prefix: str) -> None:
    async with clients(target, prefix) as (client, async_client):
        saver = RedisSaver(client=client, async_client=async_client, prefix=prefix)
        await scenario(SyncSurface(saver))
        await saver.adelete_thread("copy")
        await scenario(saver)
        await saver.aclose()
        assert client.ping()
        assert await async_client.ping()


# --- rights -----------------------------------------------------------------------------------------------------------


def constants(tree: ast.Module, given: ast.expr) -> set[str]:
    """What an argument is: a constant, or the first of each tuple that a loop goes through."""
    if isinstance(given, ast.Constant):
        return {given.value}
    assert isinstance(given, ast.Name)
    loops = [
        node.iter
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and ast.unparse(node.target.elts[0]) == given.id
    ]
    found = {row.elts[0].value for loop in loops if isinstance(loop, ast.Tuple) for row in loop.elts}  # type: ignore[attr-defined]
    assert found, given.id
    return found


def test_the_rights_name_the_commands_that_the_package_sends_and_no_others() -> None:
    package = Path(langgraph_redis_state.__file__).parent
    sent = {"EVALSHA", "EVAL", "PING", *all_commands()}  # PING stands around what carries no token
    for module in package.rglob("*.py"):
        tree = ast.parse(module.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Scan":
                sent.add("SCAN")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "portion":
                sent |= constants(tree, node.args[0])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Read":
                commands = [
                    part.elts[0] for part in ast.walk(node.args[0]) if isinstance(part, ast.Tuple) and len(part.elts) > 1
                ]
                named = [name.value for name in commands if isinstance(name, ast.Constant)]
                sent |= {name.decode() if isinstance(name, bytes) else name for name in named}
    # stats() says what the server's memory is when it may; verify() and repair() of all threads look for what no index knows
    optional = {"INFO", "SCAN"}
    assert {right.removeprefix("+").upper() for right in RIGHTS.split() if right.startswith("+")} == sent - optional


@pytest.mark.parametrize("image", IMAGES)
def test_a_user_with_these_rights_may_do_nothing_else(servers: Servers, image: str, prefix: str) -> None:
    client = redis.Redis.from_url(servers.target(f"acl-{image}-resp2").url_for(prefix), protocol=2)
    for command in (
        *(("INFO",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SCAN", "0"), ("FLUSHALL",), ("MODULE", "LIST")),
        *(("CLIENT", "SETINFO", "lib-name", "x"), ("CLIENT", "LIST"), ("DEL", f"{prefix}:layout"), ("SCRIPT", "FLUSH")),
        *(("GET", "layout"), ("SET", f"{prefix}x:layout", "1"), ("EVAL", "return redis.call('GET', KEYS[1])", "1", "other")),
        *(("EVAL", "return redis.call('INFO')", "0"), ("CLUSTER", "SLOTS"), ("COMMAND",), ("MONITOR",)),
    ):
        with pytest.raises(redis.RedisError, match=r"(?i)no ?perm|permission|can't run|can't access|unknown subcommand"):
            client.execute_command(*command)
    client.close()


def test_the_documentation_quotes_these_rights() -> None:
    guide = (ROOT / "docs" / "security.md").read_text("utf-8")
    quoted = re.findall(r"^```\n(resetchannels .*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert [rights.split() for rights in quoted] == [RIGHTS.split(), LOOKING_RIGHTS.split()]
    for more in (*CLUSTER_RIGHTS.split(), *(right for rights in DURABILITY_RIGHTS.values() for right in rights.split())):
        assert more in re.split(r"[`\s]+", guide), more


def test_the_readme_names_the_servers_that_are_tested() -> None:
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert set(re.findall(r"`((?:redis|valkey/valkey):[\d.]+)`", readme)) == set(IMAGES)
    assert f"Sentinel, Cluster and TLS on `{TOPOLOGIES_OF}`" in readme
