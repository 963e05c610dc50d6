"""Disturbances between any two operations: answers stay right, or an error says what happened.

Each pair of operations once, with each disturbance between them; then 150 operations at random with any between them.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from calls import BIG, Open
from figures import figure
from local import LocalServer, local
from servers import Server
from shapes import SyncSurface, at, checkpoint, id_of, ids, listed, metadata, new_id, plain, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointerError,
    ServerUnavailableError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from langgraph_redis_state.storage.keys import layout_key

# --- each pair of operations ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with local(tmp_path_factory.mktemp("s")) as server:
        yield server


DISTURBANCES: dict[str, Callable[[LocalServer], Any]] = {
    "SCRIPT FLUSH": lambda server: server.admin.script_flush(),
    "CLIENT KILL": lambda server: server.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    "server restart": lambda server: server.restart(),
    "FLUSHALL": lambda server: server.admin.flushall(),
}
undisturbed: dict[tuple[str, str, str], Any] = {}
"""What each pair gives and leaves, by surface."""
IDS = [new_id() for _ in range(4)]


async def prepare(saver: Any) -> None:
    await put(saver, at("t"), {"x": BIG[:100], "same": BIG[:50]}, id=IDS[0], run_id="r")
    second = checkpoint({"x": BIG[:101], "same": BIG[:50]}, id=IDS[1])
    await saver.aput(at("t", "", IDS[0]), second, metadata(step=1), {"x": 1})
    await saver.aput_writes(at("t", "", IDS[1]), [("x", BIG[:60]), ("y", 1)], "task")
    await put(saver, at("t", "child:1"), {"x": 1}, id=IDS[1], parents={"": IDS[1]})
    await saver.aget_tuple(at("t"))


def operations(saver: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
    third = checkpoint({"x": BIG[:102], "same": BIG[:50]}, id=IDS[2])

    async def everything(config: Any) -> Any:
        return sorted(map(repr, map(plain, await listed(saver, config))))

    async def latest() -> Any:
        return plain(await saver.aget_tuple(at("t")))

    return {
        "put": lambda: saver.aput(at("t", "", IDS[1]), third, metadata(step=2), {"x": 1}),
        "put_writes": lambda: saver.aput_writes(at("t", "", IDS[1]), [("x", BIG[:70]), ("z", 2)], "another task"),
        "get_tuple": latest,
        "list": lambda: everything(at("t", None)),
        "list(None)": lambda: everything(None),
        "list the copy": lambda: everything(at("u", None)),
        "delete_thread": lambda: saver.adelete_thread("t"),
        "delete_for_runs": lambda: saver.adelete_for_runs(["r"]),
        "copy_thread": lambda: saver.acopy_thread("t", "u"),
        "prune": lambda: saver.aprune(["t"]),
        "get_delta_channel_history": lambda: saver.aget_delta_channel_history(config=at("t", "", IDS[1]), channels=["x"]),
    }


async def outcome(saver: Any, name: str) -> Any:
    """What an operation gave, or the name of its error."""
    try:
        return await operations(saver)[name]()
    except CheckpointerError as error:
        return type(error).__name__


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_a_disturbance_between_any_two_operations_changes_no_answer(
    private: LocalServer, prefix: str, surface: str, disturbance: str
) -> None:
    """What the second operation gives and leaves is what it gives without the disturbance, and after FLUSHALL what it gives
    a saver that never knew anything else."""
    serial = itertools.count()

    async def given(names: list[str], disturbed_after: int | None, *, prepared: bool = True) -> Any:
        own = f"{prefix}-{next(serial)}"
        async with RedisSaver(private.url, prefix=own) as opened, RedisSaver(private.url, prefix=own) as other:
            saver: Any = opened if surface == "async" else SyncSurface(opened)
            if prepared:
                await prepare(saver)
            gave = None
            for number, name in enumerate(names):
                gave = await outcome(saver, name)
                if number == disturbed_after:
                    DISTURBANCES[disturbance](private)
            left = [await outcome(saver, "list"), await outcome(saver, "list the copy"), await outcome(saver, "get_tuple")]
            assert left == [await outcome(other, name) for name in ("list", "list the copy", "get_tuple")]
            return gave, left

    errors = 0
    pairs = list(itertools.product(operations(None), repeat=2))
    for first, second in pairs:
        disturbed = await given([first, second], 0)
        if disturbance == "FLUSHALL":
            expected = await given([second], None, prepared=False)
        else:
            if (surface, first, second) not in undisturbed:
                undisturbed[surface, first, second] = await given([first, second], None)
            expected = undisturbed[surface, first, second]
        assert disturbed == expected, (first, second)
        errors += isinstance(disturbed[0], str)
    figure(
        f"between any two operations: {disturbance}",
        surface=surface,
        pairs=len(pairs),
        as_without_it=len(pairs),
        of_these_typed_errors=errors,
        wrong=0,
    )


async def test_a_saver_that_lives_on_after_flushall_writes_the_layout_again(private: LocalServer, prefix: str) -> None:
    async with RedisSaver(private.url, prefix=prefix) as saver:
        config = await put(saver, at("t"), {"x": 1})
        private.admin.flushall()
        config = await put(saver, config, {"x": 2})  # what it builds on is gone
        assert not private.admin.exists(layout_key(prefix))
        await put(saver, config, {"x": 3})
        assert private.admin.get(layout_key(prefix)) == b"1 1"


# --- many operations at random ----------------------------------------------------------------------------------------


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
    figure("between anything: connections cut all the time", steps=200, errors=len(unknown), lost=0, twice=0)
    stored = await ids(saver, at("t"))
    assert set(acknowledged) <= set(stored) <= {*acknowledged, *unknown}
    assert len(stored) == len(set(stored))
    assert len(unknown) < 50
