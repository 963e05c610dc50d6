"""Retention: how many bytes a history takes, which checkpoints stay, and what they must keep."""

from __future__ import annotations

import operator
import random
import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any

import pytest
from chats import assert_tidy, chain, put
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from shapes import at, id_of, metadata, new_id, plain
from soak import in_turn, rare, times
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.operations.retention import is_due

T = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def roots(saver: RedisSaver, thread: str = "t") -> list[str]:
    return [version.checkpoint_id for version in saver.history(thread)]


def settled(saver: RedisSaver) -> list[str]:
    """Roots after one more put: pending writes, which LangGraph stores beside a put, may leave a removal to the next one."""
    newest = saver.get_tuple(T)
    put(saver, newest.checkpoint["channel_values"], id_of(newest.config))
    return roots(saver)


# --- how much ---------------------------------------------------------------------------------------------------------


def chat(saver: Any, last: int | None = None) -> Any:
    """A conversation of messages that hardly compress; `last`: how many of them a reducer keeps."""
    words = random.Random(0)

    def answer(state: Any) -> Any:
        text = " ".join(f"{words.getrandbits(30):x}" for _ in range(25))
        return {"messages": [AIMessage(text, id=f"{words.getrandbits(60):x}")]}

    window = TypedDict("Window", {"messages": Annotated[list[Any], lambda old, new: [*old, *new][-last:]]})  # noqa: UP013
    built = StateGraph(window if last else MessagesState).add_node("answer", answer).add_edge(START, "answer")
    return built.compile(checkpointer=saver)


def talk(graph: Any, saver: RedisSaver, turns: int) -> list[int]:
    """Stored bytes after each turn of two messages."""
    sizes = []
    for n in range(turns):
        graph.invoke({"messages": [HumanMessage(f"message {n}", id=f"h{n}")]}, T)
        sizes.append(saver.stats("t").stored_bytes)
    return sizes


@pytest.mark.longer
def test_a_chat_with_a_window_stays_flat(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=20) as saver:
        sizes = talk(chat(saver, last=20), saver, times(75, 250))
        assert max(sizes[30:]) < 1.3 * max(sizes[15:30])
        assert max(sizes[-10:]) < 1.3 * max(sizes[30:60])
        assert 20 <= len(settled(saver)) <= 25
        assert_tidy(raw, prefix)


@pytest.mark.longer
def test_a_growing_chat_costs_its_messages_and_not_their_history(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=20) as saver:
        sizes = talk(chat(saver), saver, times(45, 250))
        newest = saver.get_tuple(T)
        alone = {**newest.checkpoint, "id": new_id()}
        saver.put(at("alone"), alone, metadata(), alone["channel_versions"])
        assert sizes[-1] < saver.stats("alone").stored_bytes + 30_000  # 20 records, and their last chunks
        assert sizes[-1] < 2.1 * sizes[len(sizes) // 2]
        assert 20 <= len(settled(saver)) <= 25
        assert_tidy(raw, prefix)


@pytest.mark.longer
def test_without_retention_a_chat_grows_with_its_messages_and_not_with_their_square(saver: RedisSaver) -> None:
    sizes = talk(chat(saver), saver, times(60, 125))
    assert sizes[-1] < 2.5 * sizes[len(sizes) // 2]  # 4 would be its square
    assert saver.stats("t").ratio > 10


def test_no_put_pays_for_retention_alone(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=40) as saver:
        last = None
        before = raw.info("commandstats").get("cmdstat_hdel", {}).get("calls", 0)
        for n in range(200):
            last = put(saver, {"n": n}, last)
            assert len(roots(saver)) <= 50
        clean_ups = raw.info("commandstats")["cmdstat_hdel"]["calls"] - before
        assert 10 <= clean_ups <= 20


def fan_out(saver: Any, wide: int) -> Any:
    """plan -> `wide` calls of a subgraph of two steps at once"""

    class Part(TypedDict):
        n: int
        log: list[str]

    window = TypedDict("Window", {"log": Annotated[list[str], lambda old, new: [*old, *new][-40:]]})  # noqa: UP013
    sub = StateGraph(Part).add_node("work", lambda part: {"log": [f"{part['n']} " + "x" * 40]})
    sub.add_edge(START, "work")
    built = StateGraph(window).add_node("plan", lambda _: {}).add_node("sub", sub.compile()).add_edge(START, "plan")
    built.add_conditional_edges("plan", lambda _: [Send("sub", {"n": n, "log": []}) for n in range(wide)])
    return built.compile(checkpointer=saver)


@pytest.mark.longer
def test_calls_of_subgraphs_go_with_the_step_that_called_them(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=5) as saver:
        wide = times(6, 20)
        graph = fan_out(saver, wide)
        sizes, counts = [], []
        for n in range(times(9, 30)):
            graph.invoke({"log": [f"{n}"]}, T)
            counts.append(saver.stats("t").checkpoints)
            sizes.append(saver.stats("t").stored_bytes)
        # the calls of some invokes: a clean-up that meets other writes of the run is left to the next put
        assert max(counts) < 5 * (3 + wide * 3)
        assert max(sizes) < 5 * min(sizes[3:])
        spaces = {each.config["configurable"]["checkpoint_ns"] for each in saver.list(at("t", None))}
        assert len(spaces) <= 1 + wide * 5
        assert_tidy(raw, prefix)


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_newest_checkpoints_stay_and_can_be_read(url: str, prefix: str, raw: Any, limit: int) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        made: list[str] = []
        for n in range(30):
            made.append(put(saver, {"n": n, "big": ["x" * 100] * 50}, made[-1] if made else None))
            found = roots(saver)
            assert found == made[::-1][: len(found)]
            assert min(n + 1, limit) <= len(found) <= limit + max(1, limit // 4)
            assert saver.get_tuple(at("t")).checkpoint["channel_values"]["n"] == n
        assert_tidy(raw, prefix)
        if limit == 1:
            assert len(found) == 1  # shallow


async def test_max_versions_one_runs_a_graph_and_resumes_it(url: str, prefix: str, raw: Any) -> None:
    async with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("ask", lambda _: {"log": [interrupt("?")]})
        graph = built.add_edge(START, "a").add_edge("a", "ask").compile(checkpointer=saver)
        for n in range(5):
            await graph.ainvoke({"log": [f"in {n}"]}, T)
            result = await graph.ainvoke(Command(resume=f"yes {n}"), T)
        assert result["log"] == [each for n in range(5) for each in (f"in {n}", "a", f"yes {n}")]
        assert len(settled(saver)) == 1
        assert_tidy(raw, prefix)


@pytest.mark.parametrize("limit", [None, 1_000])
def test_old_checkpoints_go_by_age_and_the_newest_stays(url: str, prefix: str, raw: Any, limit: int | None) -> None:
    with RedisSaver(url, prefix=prefix, max_age=timedelta(seconds=1), max_versions=limit) as saver:
        old = chain(saver, 7)
        assert len(roots(saver)) == 7
        time.sleep(1.05)  # their age is the condition
        young: list[str] = []
        while set(roots(saver)) & set(old):
            young.append(put(saver, {}, young[-1] if young else old[-1]))
            assert len(young) <= 9
        assert roots(saver) == young[::-1]
        assert_tidy(raw, prefix)


def test_looking_for_old_checkpoints_costs_a_share_of_the_writes_however_long_the_thread() -> None:
    due = [roots for roots in range(1, 100_000) if is_due(roots, None, 60_000)]
    assert due[:4] == [8, 16, 24, 32]
    assert sum(due) < 10 * 100_000  # headers read, each time all of them: less than ten for each put
    assert all(after - before <= max(8, before / 4) for before, after in pairwise(due))


def test_an_interrupt_that_waits_and_a_tag_stay_whatever_comes_after(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=2) as saver:
        runs: Counter[str] = Counter()

        def ask(state: State) -> Any:
            runs["ask"] += 1
            return {"log": [interrupt("?")]}

        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("ask", ask)
        graph = built.add_edge(START, "a").add_edge("a", "ask").compile(checkpointer=saver)
        graph.invoke({"log": ["in"]}, T)
        waiting = saver.get_tuple(T)
        side = put(saver, {}, id_of(waiting.parent_config))  # another branch, which runs on
        for _ in range(20):
            side = put(saver, {}, side)
        assert plain(saver.get_tuple(waiting.config)) == plain(waiting)
        saver.rollback("t", id_of(waiting.config), mode="truncate")
        assert graph.invoke(Command(resume="yes"), T)["log"] == ["in", "a", "yes"]
        for _ in range(5):
            graph.invoke({"log": ["more"]}, T)
            graph.invoke(Command(resume="yes"), T)
        assert id_of(waiting.config) not in roots(saver)  # once answered it goes like any other


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("as_subgraph", [False, True])
def test_a_chain_of_three_tools_that_ask_runs_each_once(url: str, prefix: str, limit: int, as_subgraph: bool) -> None:
    runs: Counter[str] = Counter()

    def tool(name: str) -> Any:
        def run(state: State) -> Any:
            answer = interrupt(f"{name}?")
            runs[name] += 1
            return {"log": [f"{name}={answer}"]}

        return run

    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        tools = StateGraph(State).add_sequence([(name, tool(name)) for name in "abc"]).add_edge(START, "a")
        if as_subgraph:
            plan = lambda _: runs.update(["plan"]) or {"log": ["plan"]}  # noqa: E731
            built = StateGraph(State).add_node("plan", plan).add_node("tools", tools.compile())
            graph = built.add_edge(START, "plan").add_edge("plan", "tools").compile(checkpointer=saver)
        else:
            graph = tools.compile(checkpointer=saver)
        result = graph.invoke({"log": ["in"]}, T)
        for name in "abc":
            assert [each.value for each in result["__interrupt__"]] == [f"{name}?"]
            saver.prune(["t"], keep_last=limit)
            result = graph.invoke(Command(resume=f"ok {name}"), T)
        assert result["log"][-3:] == ["a=ok a", "b=ok b", "c=ok c"]
        assert set(runs.values()) == {1}


def test_parallel_tools_that_ask_survive_retention_between_the_answers(url: str, prefix: str) -> None:
    runs: Counter[str] = Counter()

    def tool(name: str) -> Any:
        def run(state: State) -> Any:
            answer = interrupt(f"{name}?") if name != "d" else ""
            runs[name] += 1
            return {"log": [f"{name}={answer}"]}

        return run

    with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        built = StateGraph(State)
        for name in "abcd":
            built.add_node(name, tool(name)).add_edge(START, name)
        graph = built.compile(checkpointer=saver)
        result = graph.invoke({"log": ["in"]}, T)
        while waiting := result.get("__interrupt__"):
            saver.prune(["t"], keep_last=1)
            result = graph.invoke(Command(resume={waiting[0].id: f"ok {waiting[0].value}"}), T)
        assert result["log"] == ["in", "a=ok a?", "b=ok b?", "c=ok c?", "d="]
        assert runs == {"a": 1, "b": 1, "c": 1, "d": 1}


def joined(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


def delta_chat(saver: Any, every: int, ask: bool) -> Any:
    log = Annotated[list, DeltaChannel(joined, snapshot_frequency=every)]
    state = TypedDict("Delta", {"log": log, "n": int})  # noqa: UP013

    def a(state: Any) -> Any:
        return {"log": [f"a saw {len(state['log'])}"], "n": len(state["log"])}

    def b(state: Any) -> Any:
        return {"log": [interrupt("?") if ask else "b", f"b saw {len(state['log'])}"]}

    return StateGraph(state).add_sequence([a, b]).add_edge(START, "a").compile(checkpointer=saver)


@pytest.mark.parametrize("limit", [1, rare(2)])
@pytest.mark.parametrize(("every", "ask"), in_turn([3, 100, 1], [False, True]))
def test_delta_channels_are_rebuilt_right_whatever_was_dropped(
    url: str, prefix: str, memory: InMemorySaver, limit: int, every: int, ask: bool
) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        graph, reference = delta_chat(saver, every, ask), delta_chat(memory, every, ask)
        for n in range(8):
            results = []
            for each in (graph, reference):
                result = each.invoke({"log": [f"in {n}"]}, T)
                if ask:
                    each.get_state(T)
                    result = each.invoke(Command(resume=f"yes {n}"), T)
                results.append(result["log"])
            assert results[0] == results[1]
            assert graph.get_state(T).values == reference.get_state(T).values
            if n == 4:
                saver.prune(["t"], keep_last=1)
                assert graph.get_state(T).values == reference.get_state(T).values
        expected = {state.metadata["step"]: state.values for state in reference.get_state_history(T)}
        for state in graph.get_state_history(T):  # none of those that are kept for others is broken
            assert state.values == expected[state.metadata["step"]]
        if every < 100:
            assert len(roots(saver)) < 24
