"""Real graphs whose thread is pruned, copied or deleted, or that serve several event loops."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from playing import DURABILITIES, THREAD
from scenarios import Log, deltas, nested, steps
from shapes import at, id_of, ids
from soak import rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadDeletedError

# --- pruned, copied, deleted under a graph ----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", rare("exit")])
def test_a_graph_with_delta_channels_goes_on_after_every_pruning(
    saver: RedisSaver, memory: InMemorySaver, durability: str
) -> None:
    for n in range(14):
        given = {"often": [f"{n}"], "messages": [HumanMessage(f"turn {n}", id=f"h{n}")]}
        results = [deltas(one).invoke(given, THREAD, durability=durability) for one in (saver, memory)]
        assert results[0] == results[1]
        state = deltas(saver).get_state(THREAD)
        saver.prune(["t"])
        assert deltas(saver).get_state(THREAD).values == state.values
        if n % 3 == 0:
            for one in (saver, memory):
                deltas(one).update_state(THREAD, {"seldom": [f"by hand {n}"]}, as_node="two")
            saver.prune(["t"], strategy="keep_latest")
            assert deltas(saver).get_state(THREAD).values["seldom"] == deltas(memory).get_state(THREAD).values["seldom"]
    assert len(list(saver.list(THREAD))) < len(list(memory.list(THREAD)))


def test_a_pruned_thread_shows_what_can_be_rebuilt_and_nothing_else(saver: RedisSaver) -> None:
    graph = deltas(saver)
    for n in range(11):
        graph.invoke({"often": [f"{n}"], "messages": [HumanMessage(f"turn {n}", id=f"h{n}")]}, THREAD)
    before = {id_of(found.config): found.values for found in graph.get_state_history(THREAD)}
    saver.prune(["t"])
    assert [id_of(found.config) for found in saver.list(THREAD)] == [max(before)]
    assert {id_of(found.config): found.values for found in graph.get_state_history(THREAD)} == {
        max(before): before[max(before)]
    }


@pytest.mark.parametrize("own", [None, True])
async def test_an_interrupt_inside_a_subgraph_is_answered_after_pruning(asaver: RedisSaver, own: bool | None) -> None:
    graph = nested(own)(asaver)
    await graph.ainvoke({"n": 0, "log": []}, THREAD)
    await graph.ainvoke(Command(resume="x"), THREAD)
    await graph.ainvoke({"n": 1, "log": ["again"]}, THREAD)
    before = await graph.aget_state(THREAD)
    await asaver.aprune(["t"])
    after = await graph.aget_state(THREAD)
    assert (after.values, after.next, after.interrupts) == (before.values, before.next, before.interrupts)
    result = await graph.ainvoke(Command(resume="answer"), THREAD)
    assert result["log"][-2:] == ["asked answer", "after"]


def test_a_copied_thread_is_resumed_apart_from_its_source(saver: RedisSaver) -> None:
    graph = nested(None)(saver)
    copy = {"configurable": {"thread_id": "copy"}}
    graph.invoke({"n": 0, "log": []}, THREAD)
    saver.copy_thread("t", "copy")
    assert graph.invoke(Command(resume="copied"), copy)["log"][-2:] == ["asked copied", "after"]
    assert graph.get_state(THREAD).next == ("inner",)
    assert graph.invoke(Command(resume="source"), THREAD)["log"][-2:] == ["asked source", "after"]
    assert graph.get_state(copy).values["log"][-2:] == ["asked copied", "after"]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("own", [None, True])
def test_a_deleted_thread_is_new_for_the_next_run(saver: RedisSaver, own: bool | None, durability: str) -> None:
    graph = nested(own)(saver)
    logs = []
    for n in range(3):
        graph.invoke({"n": n, "log": [f"{n}"]}, THREAD, durability=durability)
        logs.append(graph.invoke(Command(resume="yes"), THREAD, durability=durability)["log"])
        saver.delete_thread("t")
        assert graph.get_state(THREAD).values == {}
        assert list(graph.get_state_history(THREAD)) == []
    assert [log[0] for log in logs] == ["0", "1", "2"]
    assert len({len(log) for log in logs}) == 1


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_run_that_goes_on_after_its_thread_was_deleted_does_not_bring_it_back(saver: RedisSaver, durability: str) -> None:
    inside, deleted = threading.Event(), threading.Event()

    def wait(state: Log) -> dict[str, Any]:
        inside.set()
        assert deleted.wait(30)
        return {"log": ["late"]}

    builder = StateGraph(Log)
    builder.add_node("first", lambda state: {"log": ["first"]})
    builder.add_node("wait", wait)
    builder.add_node("last", lambda state: {"log": ["last"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "wait")
    builder.add_edge("wait", "last")
    graph = builder.compile(checkpointer=saver)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            graph.invoke({"n": 0, "log": []}, THREAD, durability=durability)
        except BaseException as failure:  # noqa: BLE001 - looked at in the test's own thread
            failures.append(failure)

    running = threading.Thread(target=run)
    running.start()
    assert inside.wait(30)
    while not any(found.next == ("wait",) for found in graph.get_state_history(THREAD)):
        pass  # with "async" the checkpoint this step began from may still be on its way
    began = time.monotonic()
    while time.monotonic() - began < 0.003:
        pass  # what a deletion refuses that is younger than a millisecond has its own test
    saver.delete_thread("t")
    deleted.set()
    running.join(30)
    assert [type(failure) for failure in failures] == [ThreadDeletedError]
    assert graph.get_state(THREAD).values == {}
    assert list(saver.list(None)) == []


# --- loops, threads, processes ----------------------------------------------------------------------------------------


APPLICATION = """
import os
from typing import Annotated
import operator
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from langgraph_redis_state import RedisSaver

class State(TypedDict):
    log: Annotated[list, operator.add]

def ask(state):
    return {"log": ["sync " + interrupt("?")]}

async def aask(state):
    return {"log": ["async " + interrupt("?")]}

from langgraph._internal._runnable import RunnableCallable

builder = StateGraph(State)
builder.add_node("ask", RunnableCallable(ask, aask))
builder.add_edge(START, "ask")
saver = RedisSaver(os.environ["APPLICATION_REDIS"], prefix=os.environ["APPLICATION_PREFIX"])
graph = builder.compile(checkpointer=saver)
"""


@pytest.fixture
def application(url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that builds its graph when it is imported, as applications do."""
    monkeypatch.setenv("APPLICATION_REDIS", url)
    monkeypatch.setenv("APPLICATION_PREFIX", prefix)
    path = tmp_path / "application_under_test.py"
    path.write_text(APPLICATION)
    spec = importlib.util.spec_from_file_location("application_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    module.saver.close()


def test_a_graph_built_at_import_time_serves_two_event_loops(application: Any) -> None:
    graph = application.graph
    paused = asyncio.run(graph.ainvoke({"log": []}, THREAD))
    assert [asked.value for asked in paused["__interrupt__"]] == ["?"]
    assert asyncio.run(graph.ainvoke(Command(resume="yes"), THREAD)) == {"log": ["async yes"]}


def test_a_graph_built_at_import_time_is_paused_sync_and_resumed_async_and_back(application: Any) -> None:
    graph = application.graph
    graph.invoke({"log": []}, THREAD)
    assert asyncio.run(graph.ainvoke(Command(resume="1"), THREAD)) == {"log": ["async 1"]}
    asyncio.run(graph.ainvoke({"log": []}, THREAD))
    assert graph.invoke(Command(resume="2"), THREAD) == {"log": ["async 1", "sync 2"]}

    async def both() -> Any:
        await graph.ainvoke({"log": []}, THREAD)
        return await asyncio.to_thread(graph.invoke, Command(resume="3"), THREAD)

    assert asyncio.run(both()) == {"log": ["async 1", "sync 2", "sync 3"]}


def test_a_graph_built_at_import_time_serves_many_threads_and_loops_at_once(application: Any) -> None:
    graph, results = application.graph, {}
    start = threading.Barrier(8)

    def body(n: int) -> None:
        own = at(f"thread {n}", None)
        start.wait()
        with suppress(BaseException):  # a result that is missing is the failure
            for _ in range(4):
                if n % 2:
                    asyncio.run(graph.ainvoke({"log": []}, own))
                    results[n] = asyncio.run(graph.ainvoke(Command(resume=f"{n}"), own))
                else:
                    graph.invoke({"log": []}, own)
                    results[n] = graph.invoke(Command(resume=f"{n}"), own)

    threads = [threading.Thread(target=body, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: {"log": [f"{'async' if n % 2 else 'sync'} {n}"] * 4} for n in range(8)}


async def test_many_runs_of_one_loop_on_threads_of_their_own(asaver: RedisSaver) -> None:
    graph = steps(asaver)
    results = await asyncio.gather(*(graph.ainvoke({"n": n}, at(f"t{n}", None)) for n in range(30)))
    assert [result["n"] for result in results] == [n + 3 for n in range(30)]
    assert {len(await ids(asaver, at(f"t{n}"))) for n in range(30)} == {5}


def test_a_saver_given_where_the_graph_is_called_works_as_one_given_to_compile(saver: RedisSaver) -> None:
    assert isinstance(saver, BaseCheckpointSaver)
    graph = steps(saver).with_config(configurable={"thread_id": "t"})
    assert graph.invoke({"n": 0})["n"] == 3
    assert len(list(saver.list(THREAD))) == 5
