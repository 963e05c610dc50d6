"""Disturbances between any two operations: answers stay right, or an error says what happened."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from calls import BIG, Open
from servers import Server
from shapes import at, checkpoint, id_of, ids, listed, metadata

from langgraph_redis_state.errors import (
    ServerUnavailableError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)


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
