"""Many writers at once, few connections, a slow network."""

from __future__ import annotations

import asyncio
import gc
import operator
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from figures import figure
from langgraph.graph import END, START, StateGraph
from proxy import Proxies
from servers import HOST, Server
from shapes import SyncSurface, at, checkpoint, id_of, ids, listed, metadata
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver

WRITERS = 50
PUTS = 8


async def all_at_once(surface: str, works: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """The results. As tasks of this loop, or each in a thread of its own."""
    if surface == "async":
        return await asyncio.gather(*(work() for work in works))
    begin = threading.Barrier(len(works))

    def alone(work: Callable[[], Awaitable[Any]]) -> Any:
        begin.wait()
        return asyncio.run(work())

    with ThreadPoolExecutor(len(works)) as threads:
        return [done.result() for done in [threads.submit(alone, work) for work in works]]


@pytest.mark.parametrize("threads", ["one thread", "many threads"])
@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_fifty_writers_at_once_leave_the_history_of_a_model(
    shared: Server, prefix: str, surface: str, threads: str
) -> None:
    model: dict[str, dict[str, Any]] = {}
    async with RedisSaver(shared.url, prefix=prefix) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)

        async def write(number: int) -> None:
            thread = "t" if threads == "one thread" else f"t{number}"
            config: Any = at(thread)
            for step in range(PUTS):
                made = checkpoint(
                    {"who": number, "list": [f"{number} {n} " * 20 for n in range(step * 5)], "same": "s" * 3_000}
                )
                new = {"who": 1, "list": 1, "same": 1} if step == 0 else {"who": 1, "list": 1}
                parent = config["configurable"].get("checkpoint_id")
                config = await saver.aput(config, made, metadata(step=step, who=number), new)
                # everybody writes to the same checkpoint too, under a task of their own, and repeats it
                for task in (f"task {number}", f"task {number}", f"again {number}"):
                    await saver.aput_writes(config, [("x", [number, step]), ("y", task)], task)
                told = {"parent": parent, "values": made["channel_values"], "step": step}
                model.setdefault(thread, {})[made["id"]] = told

        begun = time.monotonic()
        await all_at_once(surface, [lambda number=number: write(number) for number in range(WRITERS)])
        took = time.monotonic() - begun
        for thread, expected in model.items():
            found = await listed(saver, at(thread, None))
            assert [id_of(each.config) for each in found] == sorted(expected, reverse=True)
            assert id_of((await saver.aget_tuple(at(thread))).config) == max(expected)
            for each in found:
                told = expected[id_of(each.config)]
                parent = each.parent_config and id_of(each.parent_config)
                assert (parent, each.checkpoint["channel_values"], each.metadata["step"]) == tuple(told.values())
                number = each.metadata["who"]
                names = sorted([f"task {number}", f"again {number}"])
                assert each.pending_writes == [
                    write for name in names for write in ((name, "x", [number, told["step"]]), (name, "y", name))
                ]
            numbers = sorted(version.number for version in opened.history(thread))
            assert numbers == list(range(1, len(expected) + 1))
    stored = sum(map(len, model.values()))
    assert stored == WRITERS * PUTS
    figure(
        f"writers on {threads}, {surface}",
        writers=WRITERS,
        checkpoints=stored,
        writes=4 * stored,
        missing=0,
        twice=0,
        took_s=round(took, 2),
    )


async def test_fifty_writers_of_one_checkpoint_leave_each_write_once(shared: Server, prefix: str) -> None:
    async with RedisSaver(shared.url, prefix=prefix) as saver:
        made = checkpoint({"x": 0})
        config = await saver.aput(at("t"), made, metadata(), made["channel_versions"])

        async def write(number: int) -> None:
            for _ in range(2):
                await saver.aput_writes(config, [("x", number), ("y", [number] * 600)], f"task {number:02}")

        await asyncio.gather(*(write(number) for number in range(WRITERS)))
        await all_at_once("sync", [lambda number=number: _sync_write(saver, config, number) for number in range(WRITERS)])
        found = await saver.aget_tuple(config)
        names = [f"again {n:02}" for n in range(WRITERS)] + [f"task {n:02}" for n in range(WRITERS)]
        assert found.pending_writes == [
            write for name in names for write in ((name, "x", int(name[-2:])), (name, "y", [int(name[-2:])] * 600))
        ]


async def _sync_write(saver: RedisSaver, config: Any, number: int) -> None:
    saver.put_writes(config, [("x", number), ("y", [number] * 600)], f"again {number:02}")


# --- real graphs ------------------------------------------------------------------------------------------------------


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    left: int


def counting(saver: Any) -> Any:
    def step(state: State) -> State:
        return {"log": [f"{state['left']} " + "words " * 30], "left": state["left"] - 1}

    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if state["left"] else END, ["step", END])
    return graph.compile(checkpointer=saver)


RUNS = 200
CONNECTIONS = 5


@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_two_hundred_graphs_run_at_once_over_five_connections(shared: Server, prefix: str, surface: str) -> None:
    steps = 4
    options = {"max_connections": CONNECTIONS, "timeout": 60}
    async with RedisSaver(shared.url, prefix=prefix, redis_options=options) as saver:
        graph = counting(saver)

        async def run(number: int) -> Any:
            given, config = {"log": [], "left": steps}, {"configurable": {"thread_id": f"run {number}"}}
            return await graph.ainvoke(given, config) if surface == "async" else graph.invoke(given, config)

        begun = time.monotonic()
        results = await all_at_once(surface, [lambda number=number: run(number) for number in range(RUNS)])
        took = time.monotonic() - begun
        assert [len(result["log"]) for result in results] == [steps] * RUNS
        for number in range(0, RUNS, 20):
            assert len(await ids(saver, at(f"run {number}"))) == steps + 2
        figure(
            f"graphs over {CONNECTIONS} connections, {surface}",
            runs=RUNS,
            completed=len(results),
            errors=0,
            took_s=round(took, 2),
        )


LATENCY = 0.05
"""Seconds each way: 100 ms for a round trip."""


async def test_memory_stays_bounded_over_two_thousand_steps_with_a_hundred_milliseconds_of_latency(
    shared: Server, prefix: str
) -> None:
    port = shared.admin.connection_pool.connection_kwargs["port"]
    width, length = 50, 10
    after: dict[int, float] = {}
    peak: dict[int, float] = {}
    with Proxies() as proxies:
        slow = proxies.open((HOST, port), latency=LATENCY)
        async with RedisSaver(slow.url, prefix=prefix, cache_bytes=0, redis_options={"max_connections": 4 * width}) as saver:
            begun = time.monotonic()
            await saver.aping()
            assert time.monotonic() - begun > 2 * LATENCY
            graph = counting(saver)
            begun = time.monotonic()
            tracemalloc.start()
            try:
                for steps in (500, 1000, 1500, 2000):
                    tracemalloc.reset_peak()
                    runs = (
                        graph.ainvoke({"log": [], "left": length}, {"configurable": {"thread_id": f"{steps} {n}"}})
                        for n in range(width)
                    )
                    results = await asyncio.gather(*runs)
                    assert all(len(result["log"]) == length for result in results)
                    del results
                    gc.collect()
                    now, highest = tracemalloc.get_traced_memory()
                    after[steps], peak[steps] = round(now / 1e6, 2), round(highest / 1e6, 2)
            finally:
                tracemalloc.stop()
            took = time.monotonic() - begun
    figure(
        "memory over 2,000 steps with 100 ms latency",
        steps=2000,
        after_500_mb=after[500],
        after_1000_mb=after[1000],
        after_1500_mb=after[1500],
        after_2000_mb=after[2000],
        peak_of_the_first_500_mb=peak[500],
        peak_of_the_last_500_mb=peak[2000],
        took_s=round(took, 1),
    )
    assert after[2000] - after[500] < 2
    assert peak[2000] < peak[500] * 1.25 + 2
