"""Going back: after `rollback` a graph continues from the target as if it had just arrived there.

What is right is asked of LangGraph itself where it can be asked: the same graph on an `InMemorySaver`, travelling in time
by checkpoint id, or running afresh only the turns that stay.
"""

from __future__ import annotations

import operator
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from shapes import at, checkpoint, id_of, metadata, plain
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.effects import Call
from langgraph_redis_state.errors import CheckpointNotFoundError, ThreadBusyError, ThreadTooLargeError
from langgraph_redis_state.history.rollback import fork_to
from langgraph_redis_state.storage.keys import ThreadKeys

MODES = ("fork", "truncate")
T = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def state_of(graph: Any, thread: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread}})


def head(saver: RedisSaver, thread: str = "t") -> str:
    found = saver.get_tuple(at(thread))
    assert found is not None
    return id_of(found.config)


def everything(saver: RedisSaver, thread: str = "t") -> dict[tuple[str, str], Any]:
    return {
        (found.config["configurable"]["checkpoint_ns"], id_of(found.config)): plain(found)
        for found in saver.list(at(thread, None))
    }


def asked(result: dict[str, Any]) -> list[Any]:
    """The questions a run ended with."""
    return [each.value for each in result.get("__interrupt__", ())]


class Runs:
    """Builds nodes that count how often they ran."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def node(self, name: str, act: Callable[[Any], Any] | None = None) -> Any:
        def run(state: Any) -> Any:
            self.of[name] += 1
            return {"log": [name if act is None else act(state)]}

        run.__name__ = name
        return run

    def asking(self, name: str, *questions: str) -> Any:
        return self.node(name, lambda state: f"{name}=" + "+".join(str(interrupt(question)) for question in questions))


def line(*nodes: Any, state: Any = State) -> StateGraph[Any]:
    return StateGraph(state).add_sequence(list(nodes)).add_edge(START, nodes[0].__name__)


# --- a conversation -------------------------------------------------------------------------------------------------


def chat(saver: Any) -> Any:
    def answer(state: MessagesState) -> Any:
        said = state["messages"]
        return {"messages": [AIMessage(f"answer {len(said)} to {said[-1].text}", id=f"a{len(said)}")]}

    return StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)


def say(graph: Any, *texts: str, thread: str = "t") -> list[str]:
    result: Any = {"messages": []}
    for text in texts:
        turn = {"messages": [HumanMessage(text, id=f"h-{text}")]}
        result = graph.invoke(turn, {"configurable": {"thread_id": thread}})
    return [message.text for message in result["messages"]]


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_goes_on_from_the_target_as_if_nothing_had_followed(
    saver: RedisSaver, memory: InMemorySaver, mode: Any
) -> None:
    graph, fresh = chat(saver), chat(memory)
    say(graph, "one", "two")
    saver.tag("t", "second turn")
    say(graph, "three", "four")
    assert saver.rollback("t", "second turn", mode=mode)["configurable"]["checkpoint_id"] == head(saver)
    expected = say(fresh, "one", "two")
    assert [message.text for message in state_of(graph).values["messages"]] == expected
    assert state_of(graph).next == ()
    assert say(graph, "else", "more") == say(fresh, "else", "more")


async def test_async_rollback_does_the_same(asaver: RedisSaver) -> None:
    graph = chat(asaver)
    for text in ("one", "two", "three"):
        await graph.ainvoke({"messages": [HumanMessage(text, id=text)]}, T)
    await asaver.atag("t", "end")
    first = [version.checkpoint_id async for version in asaver.ahistory("t") if version.step == 1]
    await asaver.arollback("t", first[0])
    assert len((await graph.aget_state(T)).values["messages"]) == 2
    await asaver.arollback("t", "end", mode="truncate")
    assert len((await graph.aget_state(T)).values["messages"]) == 6
    await asaver.arollback("t", -3, mode="truncate")
    result = await graph.ainvoke({"messages": [HumanMessage("else", id="else")]}, T)
    assert [message.text for message in result["messages"]][-2:] == ["else", "answer 5 to else"]
    with pytest.raises(CheckpointNotFoundError):
        await asaver.arollback("t", "end")


def test_a_fork_is_a_new_head_beside_all_there_was(saver: RedisSaver) -> None:
    graph = chat(saver)
    say(graph, "one")
    goal = saver.get_tuple(T)
    say(graph, "two")
    saver.tag("t", "later")
    before, newest = everything(saver), head(saver)
    config = saver.rollback("t", id_of(goal.config))
    forked = saver.get_tuple(config)
    assert id_of(config) > newest
    assert head(saver) == id_of(config)
    assert forked.parent_config == goal.parent_config
    assert forked.pending_writes == []
    assert forked.checkpoint["channel_values"] == goal.checkpoint["channel_values"]
    assert forked.checkpoint["channel_versions"] == goal.checkpoint["channel_versions"]
    assert forked.checkpoint["versions_seen"] == goal.checkpoint["versions_seen"]
    assert forked.metadata["forked_from"] == id_of(goal.config)
    assert forked.metadata["source"] == "fork"
    assert "run_id" not in forked.metadata
    after = everything(saver)
    assert after.pop(("", id_of(config)))
    assert after == before
    assert saver.tags("t") == {"later": newest}


def test_a_fork_costs_next_to_nothing_and_belongs_to_no_run(saver: RedisSaver) -> None:
    made = checkpoint({"big": ["some words that differ " * 3 + str(n) for n in range(3_000)]})
    run = {**at("t"), "metadata": {"run_id": "r1"}}
    saver.put(run, made, metadata(), made["channel_versions"])
    size = saver.stats("t").stored_bytes
    assert size > 10_000
    assert saver.get_tuple(T).metadata["run_id"] == "r1"
    config = saver.rollback("t", made["id"])
    assert saver.stats("t").stored_bytes - size < 2_000
    saver.delete_for_runs(["r1"])
    assert list(everything(saver)) == [("", id_of(config))]
    assert saver.get_tuple(T).checkpoint["channel_values"] == made["channel_values"]


def test_a_truncation_takes_back_exactly_what_came_after(saver: RedisSaver) -> None:
    graph = chat(saver)
    say(graph, "one")
    saver.tag("t", "kept")
    goal, before = head(saver), everything(saver)
    say(graph, "two", "three")
    saver.tag("t", "removed")
    config = saver.rollback("t", goal, mode="truncate")
    assert id_of(config) == goal
    assert everything(saver) == before
    assert saver.tags("t") == {"kept": goal}


def test_a_truncation_gives_its_bytes_back(saver: RedisSaver) -> None:
    graph = chat(saver)
    say(graph, "one")
    goal, before = head(saver), saver.stats("t")
    say(graph, *("words " * 2_000 + str(n) for n in range(4)))
    assert saver.stats("t").stored_bytes > before.stored_bytes + 1_000
    saver.rollback("t", goal, mode="truncate")
    assert saver.stats("t") == before


@pytest.mark.parametrize("mode", MODES)
def test_a_target_between_two_nodes_runs_on_with_the_second(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = line(runs.node("a"), runs.node("b"), runs.node("c")).compile(checkpointer=saver)
    graph.invoke({"log": ["in"]}, T)
    between = next(version for version in saver.history("t") if version.next == ("b",))
    saver.rollback("t", between.checkpoint_id, mode=mode)
    assert state_of(graph).next == ("b",)
    assert graph.invoke(None, T) == {"log": ["in", "a", "b", "c"]}
    assert runs.of == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_failed_is_taken_back_and_runs_again(saver: RedisSaver, mode: Any) -> None:
    runs, broken = Runs(), [True]

    def fail(state: Any) -> str:
        if broken:
            raise RuntimeError("not today")
        return "b"

    graph = line(runs.node("a"), runs.node("b", fail)).compile(checkpointer=saver)
    with pytest.raises(RuntimeError, match="not today"):
        graph.invoke({"log": ["in"]}, T)
    saver.rollback("t", head(saver), mode=mode)
    broken.clear()
    assert graph.invoke(None, T) == {"log": ["in", "a", "b"]}
    assert runs.of == {"a": 1, "b": 2}


# --- what `to` may be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_steps_back_follow_the_parents_of_the_newest(saver: RedisSaver, mode: Any) -> None:
    graph = chat(saver)
    say(graph, "one")
    branch_from = saver.get_tuple(T)
    say(graph, "two")
    graph.update_state(branch_from.config, {"messages": [HumanMessage("aside", id="aside")]})
    assert head(saver) > id_of(branch_from.config)
    goal = id_of(saver.get_tuple(T).parent_config)
    assert goal == id_of(branch_from.config)  # not the checkpoint with the next smaller id: that is on another branch
    config = saver.rollback("t", -1, mode=mode)
    assert saver.get_tuple(config).checkpoint["channel_values"] == branch_from.checkpoint["channel_values"]


def test_more_steps_back_than_a_page_are_found(saver: RedisSaver) -> None:
    made: list[str] = []
    for n in range(250):
        each = checkpoint({"n": n})
        saver.put(at("t", "", made[-1] if made else None), each, metadata(step=n), {"n": each["channel_versions"]["n"]})
        made.append(each["id"])
    assert saver.get_tuple(saver.rollback("t", -230)).checkpoint["channel_values"] == {"n": 19}
    assert id_of(saver.rollback("t", -19, mode="truncate")) == made[0]  # the fork's parent is the target's: n == 18
    assert list(everything(saver)) == [("", made[0])]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["no such tag", "1f0a0000-0000-6000-8000-000000000000", -7, ""])
def test_a_target_that_is_not_there_is_an_error_and_changes_nothing(saver: RedisSaver, mode: Any, to: Any) -> None:
    say(chat(saver), "one", "two")
    before = everything(saver)
    with pytest.raises(CheckpointNotFoundError):
        saver.rollback("t", to, mode=mode)
    assert everything(saver) == before
    with pytest.raises(CheckpointNotFoundError):
        saver.rollback("no such thread", to, mode=mode)


def test_what_cannot_be_a_target_or_a_mode_is_refused(saver: RedisSaver) -> None:
    say(chat(saver), "one")
    for mode in ("", "FORK", "reset", None):
        with pytest.raises(ValueError, match=r"fork.*truncate"):
            saver.rollback("t", -1, mode=mode)
    for to in (0, 1, True, None, 1.5):
        with pytest.raises(ValueError, match="t"):
            saver.rollback("t", to)


# --- interrupts -------------------------------------------------------------------------------------------------------


def questioned(saver: Any, runs: Runs) -> Any:
    """a -> ask -> act"""
    return line(runs.node("a"), runs.asking("ask", "sure?"), runs.node("act")).compile(checkpointer=saver)


@pytest.mark.parametrize("mode", MODES)
def test_a_waiting_interrupt_asks_again_and_nothing_before_it_runs_twice(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = questioned(saver, runs)
    assert asked(graph.invoke({"log": ["in"]}, T)) == ["sure?"]
    saver.rollback("t", head(saver), mode=mode)
    assert state_of(graph).next == ("ask",)
    assert asked(graph.invoke(None, T)) == ["sure?"]
    assert graph.invoke(Command(resume="yes"), T) == {"log": ["in", "a", "ask=yes", "act"]}
    assert runs.of == {"a": 1, "ask": 3, "act": 1}


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_that_was_passed_over_with_new_input_asks_again(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = questioned(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    graph.invoke({"log": ["never mind"]}, T)
    saver.rollback("t", waiting, mode=mode)
    assert state_of(graph).values == {"log": ["in", "a"]}
    assert asked(graph.invoke(None, T)) == ["sure?"]
    assert graph.invoke(Command(resume="yes"), T) == {"log": ["in", "a", "ask=yes", "act"]}
    assert runs.of["a"] == 2  # once for each input


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["look", "ask again", "answer"])
def test_an_answered_interrupt_can_be_answered_differently(saver: RedisSaver, mode: Any, first: str) -> None:
    runs = Runs()
    graph = questioned(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    assert graph.invoke(Command(resume="yes"), T)["log"][-2:] == ["ask=yes", "act"]
    saver.rollback("t", waiting, mode=mode)
    state = state_of(graph)
    assert (state.values, state.next) == ({"log": ["in", "a"]}, ("ask",))
    if mode == "truncate":
        assert [each.value for each in state.interrupts] == ["sure?"]
    if first == "ask again":
        assert asked(graph.invoke(None, T)) == ["sure?"]
    assert graph.invoke(Command(resume="no"), T) == {"log": ["in", "a", "ask=no", "act"]}
    assert runs.of["a"] == 1
    assert runs.of["act"] == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("every", [2, 100])
def test_it_does_not_matter_when_langgraph_saves(saver: RedisSaver, mode: Any, durability: Any, every: int) -> None:
    runs = Runs()
    nodes = runs.node("a"), runs.asking("ask", "one?", "two?"), runs.node("act")
    graph = line(*nodes, state=delta(every)).compile(checkpointer=saver)

    def go(value: Any) -> Any:
        return graph.invoke(value, T, durability=durability)

    for answer in ("x", "y"):
        go({"log": [f"in {answer}"]})
        before, waiting = state_of(graph).values["log"], head(saver)
        go(Command(resume="old"))
        go(Command(resume="old"))
        go({"log": ["later"]})
        ran = runs.of["a"]
        saver.rollback("t", waiting, mode=mode)
        assert state_of(graph).values["log"] == before
        assert asked(go(None)) == ["one?"]
        assert asked(go(Command(resume="1"))) == ["two?"]
        assert go(Command(resume="2"))["log"] == [*before, "ask=1+2", "act"]
        assert state_of(graph).values["log"] == [*before, "ask=1+2", "act"]
        assert runs.of["a"] == ran


@pytest.mark.parametrize("mode", MODES)
def test_new_input_after_going_back_to_an_answered_interrupt_begins_a_turn(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = questioned(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    graph.invoke(Command(resume="yes"), T)
    saver.rollback("t", waiting, mode=mode)
    result = graph.invoke({"log": ["else"]}, T)
    assert asked(result) == ["sure?"]
    assert result["log"] == ["in", "a", "else", "a"]


def test_a_rolled_back_interrupt_can_be_rolled_back_again(saver: RedisSaver) -> None:
    runs = Runs()
    graph = questioned(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    for n, mode in enumerate(["truncate", "truncate", "fork", "fork", "truncate"]):
        assert graph.invoke(Command(resume=n), T)["log"] == ["in", "a", f"ask={n}", "act"]
        saver.rollback("t", waiting, mode=mode)
    assert runs.of["a"] == 1


def beside(saver: Any, runs: Runs) -> Any:
    """a and b at once, of which b asks; then end"""
    built = StateGraph(State)
    built.add_node("a", runs.node("a")).add_node("b", runs.asking("b", "sure?")).add_node("end", runs.node("end"))
    built.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "end")
    return built.compile(checkpointer=saver)


@pytest.mark.parametrize("answered", [False, True])
def test_truncation_keeps_the_results_that_were_saved_beside_an_interrupt(saver: RedisSaver, answered: bool) -> None:
    runs = Runs()
    graph = beside(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    before = plain(saver.get_tuple(T))
    if answered:
        graph.invoke(Command(resume="yes"), T)
    saver.rollback("t", waiting, mode="truncate")
    assert plain(saver.get_tuple(T)) == before
    assert [each.value for each in state_of(graph).interrupts] == ["sure?"]
    assert graph.invoke(Command(resume="no"), T) == {"log": ["in", "a", "b=no", "end"]}
    assert runs.of["a"] == 1


def test_a_fork_runs_the_whole_interrupted_step_again(saver: RedisSaver) -> None:
    runs = Runs()
    graph = beside(saver, runs)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    graph.invoke(Command(resume="yes"), T)
    saver.rollback("t", waiting)
    assert asked(graph.invoke(None, T)) == ["sure?"]
    assert graph.invoke(Command(resume="no"), T) == {"log": ["in", "a", "b=no", "end"]}
    assert runs.of["a"] == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answers", [0, 1, 2])
def test_a_chain_of_two_interrupts_in_one_node_is_answered_from_the_start(saver: RedisSaver, mode: Any, answers: int) -> None:
    runs = Runs()
    graph = line(runs.node("a"), runs.asking("ask", "one?", "two?"), runs.node("act")).compile(checkpointer=saver)
    graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    for n in range(answers):
        graph.invoke(Command(resume=f"old {n}"), T)
    saver.rollback("t", waiting, mode=mode)
    assert len(state_of(graph).interrupts) == (1 if mode == "truncate" else 0)
    assert asked(graph.invoke(None, T)) == ["one?"]
    assert asked(graph.invoke(Command(resume="new 0"), T)) == ["two?"]
    assert graph.invoke(Command(resume="new 1"), T) == {"log": ["in", "a", "ask=new 0+new 1", "act"]}
    assert runs.of["a"] == 1


def several(saver: Any, runs: Runs) -> Any:
    """a, b and c at once, of which b and c ask; then end"""
    built = StateGraph(State).add_node("a", runs.node("a")).add_node("end", runs.node("end"))
    built.add_node("b", runs.asking("b", "b?")).add_node("c", runs.asking("c", "c?"))
    for name in "abc":
        built.add_edge(START, name)
    return built.add_edge(["a", "b", "c"], "end").compile(checkpointer=saver)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answered", [[], ["b?"], ["c?"], ["b?", "c?"], ["b? and c?"]], ids=str)
def test_interrupts_of_parallel_nodes_all_wait_again(saver: RedisSaver, mode: Any, answered: list[str]) -> None:
    runs = Runs()
    graph = several(saver, runs)
    result = graph.invoke({"log": ["in"]}, T)
    waiting = head(saver)
    for which in answered:
        graph.invoke(Command(resume={each.id: "old" for each in result["__interrupt__"] if each.value in which}), T)
    saver.rollback("t", waiting, mode=mode)
    if mode == "fork":
        result = graph.invoke(None, T)
    else:
        result = {"__interrupt__": state_of(graph).interrupts}
    assert sorted(asked(result)) == ["b?", "c?"]
    final = graph.invoke(Command(resume={each.id: "new" for each in result["__interrupt__"]}), T)
    assert final == {"log": ["in", "a", "b=new", "c=new", "end"]}
    assert runs.of["a"] == (2 if mode == "fork" else 1)


def test_a_checkpoint_between_two_questions_of_different_steps_is_a_target_too(saver: RedisSaver) -> None:
    runs = Runs()
    graph = line(runs.asking("one", "one?"), runs.node("mid"), runs.asking("two", "two?")).compile(checkpointer=saver)
    graph.invoke({"log": ["in"]}, T)
    first = head(saver)
    graph.invoke(Command(resume="1"), T)
    second = head(saver)
    graph.invoke(Command(resume="2"), T)
    saver.rollback("t", second, mode="truncate")
    assert graph.invoke(Command(resume="II"), T) == {"log": ["in", "one=1", "mid", "two=II"]}
    assert runs.of["mid"] == 1
    saver.rollback("t", first, mode="truncate")
    assert asked(graph.invoke(Command(resume="I"), T)) == ["two?"]
    assert graph.invoke(Command(resume="2"), T) == {"log": ["in", "one=I", "mid", "two=2"]}


@pytest.mark.parametrize("mode", MODES)
def test_a_static_breakpoint_is_a_target_too(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = line(runs.node("a"), runs.node("b"), runs.node("c")).compile(checkpointer=saver, interrupt_before=["b"])
    graph.invoke({"log": ["in"]}, T)
    stopped = head(saver)
    graph.invoke(None, T)
    saver.rollback("t", stopped, mode=mode)
    assert state_of(graph).next == ("b",)
    assert graph.invoke(None, T)["log"][-2:] == ["b", "c"]
    assert runs.of == {"a": 1, "b": 2, "c": 2}


# --- subgraphs --------------------------------------------------------------------------------------------------------


def nested(saver: Any, runs: Runs, own: Any = None) -> Any:
    """before -> sub(s1 -> s2, which asks -> s3) -> after. With own=True the subgraph keeps its state between calls."""

    class Inner(TypedDict):
        log: list[str]
        inner: Annotated[list[str], operator.add]

    def s1(state: Inner) -> Any:
        runs.of["s1"] += 1
        return {"inner": [f"s1 of {state['log'][0]}"]}

    def s2(state: Inner) -> Any:
        runs.of["s2"] += 1
        return {"inner": [f"s2={interrupt('inside?')}"]}

    def s3(state: Inner) -> Any:
        runs.of["s3"] += 1
        return {"log": ["sub: " + ", ".join(state["inner"])]}

    sub = line(s1, s2, s3, state=Inner).compile(checkpointer=own)
    built = StateGraph(State).add_node("before", runs.node("before")).add_node("after", runs.node("after"))
    built.add_node("sub", lambda state: {"log": sub.invoke({"log": state["log"][-2:-1]})["log"]})
    return built.add_edge(START, "before").add_edge("before", "sub").add_edge("sub", "after").compile(checkpointer=saver)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_inside_a_subgraph_is_asked_and_answered_again(
    saver: RedisSaver, mode: Any, answered: bool, again: bool
) -> None:
    runs = Runs()
    graph = nested(saver, runs)
    assert asked(graph.invoke({"log": ["in"]}, T)) == ["inside?"]
    waiting = head(saver)
    if answered:
        assert graph.invoke(Command(resume="old"), T)["log"][-2:] == ["sub: s1 of in, s2=old", "after"]
    saver.rollback("t", waiting, mode=mode)
    if again:
        assert asked(graph.invoke(None, T)) == ["inside?"]
    assert graph.invoke(Command(resume="new"), T)["log"] == ["in", "before", "sub: s1 of in, s2=new", "after"]
    assert runs.of["before"] == 1
    if mode == "truncate":
        assert runs.of["s1"] == 1  # a node of the subgraph before the one that asks


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turns_before", [0, 1])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_subgraph_with_a_memory_of_its_own_goes_back_with_its_parent(
    saver: RedisSaver, mode: Any, turns_before: int, answered: bool, again: bool
) -> None:
    runs = Runs()
    graph = nested(saver, runs, own=True)
    told: list[str] = []
    for _ in range(turns_before):
        graph.invoke({"log": ["zero"]}, T)
        graph.invoke(Command(resume="0"), T)
        told = ["s1 of zero", "s2=0"]
    assert asked(graph.invoke({"log": ["in"]}, T)) == ["inside?"]
    waiting = head(saver)
    if answered:
        graph.invoke(Command(resume="old"), T)
    saver.rollback("t", waiting, mode=mode)
    if again:
        assert asked(graph.invoke(None, T)) == ["inside?"]
    result = graph.invoke(Command(resume="new"), T)["log"]
    assert result[-2:] == ["sub: " + ", ".join([*told, "s1 of in", "s2=new"]), "after"]


@pytest.mark.parametrize("mode", MODES)
def test_a_subgraph_with_a_memory_of_its_own_forgets_the_turns_that_were_taken_back(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = nested(saver, runs, own=True)
    for n in range(3):
        graph.invoke({"log": [f"in {n}"]}, T)
        graph.invoke(Command(resume=n), T)
        if n == 0:
            saver.tag("t", "one turn")
    saver.rollback("t", "one turn", mode=mode)
    graph.invoke({"log": ["in x"]}, T)
    result = graph.invoke(Command(resume="x"), T)["log"]
    assert result[-2] == "sub: s1 of in 0, s2=0, s1 of in x, s2=x"


class Said(TypedDict):
    turn: str
    told: list[str]


def remembering(saver: RedisSaver, delta: bool = False) -> Any:
    """A graph whose subgraph remembers every turn; `told` in its own state says what the subgraph remembered then."""

    def note(state: Any) -> Any:
        return {"memory": [state["turn"]]}

    memory: Any = Annotated[list, DeltaChannel(joined, snapshot_frequency=3)] if delta else Annotated[list, operator.add]
    inner = line(note, state=TypedDict("Inner", {"turn": str, "memory": memory})).compile(checkpointer=True)
    built = StateGraph(Said).add_node("sub", lambda state: {"told": inner.invoke({"turn": state["turn"]})["memory"]})
    return built.add_node("end", lambda state: {}).add_edge(START, "sub").add_edge("sub", "end").compile(checkpointer=saver)


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_subgraph_with_a_memory_remembers_what_its_parent_knew_whatever_was_rolled_back_and_pruned(
    saver: RedisSaver, seed: int, delta: bool
) -> None:
    dice = random.Random(seed)
    graph = remembering(saver, delta)
    expected: list[str] = []
    for n in range(25):
        known = {  # where a turn ended, and what the subgraph remembered there
            id_of(found.config): found.checkpoint["channel_values"]["told"]
            for found in saver.list(at("t"))
            if not any(name.startswith("branch:to") for name in found.checkpoint["channel_values"])
            and "told" in found.checkpoint["channel_values"]
        }
        what = dice.choice(["turn", "turn", "fork", "truncate", "prune", "tag"])
        if what == "tag" and known:
            saver.tag("t", f"tag {n}", dice.choice(sorted(known)))
        elif what == "prune" and known:
            saver.prune(["t"], keep_last=dice.randint(1, 12)) if dice.random() < 0.7 else saver.prune(["t"])
        elif what in MODES and known:
            goal = dice.choice(sorted(known))
            saver.rollback("t", goal, mode=what)
            expected = known[goal]
        result = graph.invoke({"turn": str(n)}, T)["told"]
        expected = [*expected, str(n)]
        assert result == expected, what


def test_a_fork_of_a_fork_and_back_to_the_first_line_brings_the_right_memory(saver: RedisSaver) -> None:
    graph = remembering(saver)
    ends = {}

    def turn(name: str) -> list[str]:
        told: list[str] = graph.invoke({"turn": name}, T)["told"]
        ends["".join(told)] = head(saver)
        return told

    turn("a"), turn("b"), turn("c")
    ends["a again"] = id_of(saver.rollback("t", ends["a"]))
    assert turn("d") == ["a", "d"]
    saver.rollback("t", ends["abc"])
    assert turn("e") == ["a", "b", "c", "e"]
    saver.rollback("t", ends["a again"])
    assert turn("f") == ["a", "f"]
    saver.rollback("t", ends["ad"], mode="truncate")
    assert turn("g") == ["a", "d", "g"]
    saver.rollback("t", ends["a again"], mode="truncate")
    assert turn("h") == ["a", "h"]
    saver.rollback("t", ends["ab"], mode="truncate")
    assert turn("i") == ["a", "b", "i"]


def test_a_fork_to_before_a_subgraph_first_ran_makes_it_forget_everything(saver: RedisSaver) -> None:
    graph = remembering(saver)
    graph.update_state(T, {"told": []}, as_node="end")
    before = head(saver)
    graph.invoke({"turn": "a"}, T)
    saver.rollback("t", before)
    assert graph.invoke({"turn": "b"}, T)["told"] == ["b"]
    assert graph.get_state(T, subgraphs=True).values["told"] == ["b"]


@pytest.mark.parametrize("max_versions", [1, 4, 10])
def test_retention_keeps_what_a_rollback_to_any_kept_checkpoint_needs_and_no_more(
    url: str, prefix: str, max_versions: int
) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=max_versions) as saver:
        graph = remembering(saver)
        sizes = []
        for n in range(30):
            graph.invoke({"turn": str(n)}, T)
            sizes.append(sum(1 for _ in saver.list(at("t", None))))
        assert max(sizes) <= 3 * max_versions + 9  # 120 without; a clean-up that met another writer waits for its next turn
        saver.prune(["t"], keep_last=max_versions)
        kept = [each for each in saver.list(at("t")) if "told" in each.checkpoint["channel_values"]]
        ends = {
            id_of(each.config): each.checkpoint["channel_values"]["told"]
            for each in kept
            if not any(name.startswith("branch:to") for name in each.checkpoint["channel_values"])
        }
        for goal, told in sorted(ends.items(), reverse=True):
            saver.copy_thread("t", f"from {goal}")
            for mode in MODES:
                saver.copy_thread("t", f"{mode} {goal}")
                saver.rollback(f"{mode} {goal}", goal, mode=mode)
                config = {"configurable": {"thread_id": f"{mode} {goal}"}}
                assert graph.invoke({"turn": "x"}, config)["told"] == [*told, "x"]


def test_the_script_of_a_fork_repeated_after_a_lost_reply_changes_nothing(saver: RedisSaver, raw: Any, prefix: str) -> None:
    graph = remembering(saver)
    for name in "abc":
        graph.invoke({"turn": name}, T)
    goal = next(each.checkpoint_id for each in saver.history("t") if not each.next and each.step == 2)
    calls: list[Call] = []
    operation = fork_to(saver._engine, saver.serde, "t", goal)
    config = run(repeating(operation, calls), saver._connection)
    assert [call.script.name for call in calls].count("fork") == 1
    assert id_of(config) == head(saver)

    def stored() -> Any:
        return [raw.hgetall(ThreadKeys(prefix, b"t").hash), raw.zrange(ThreadKeys(prefix, b"t").all[1], 0, -1)]

    before = stored()
    again = next(call for call in calls if call.script.name == "fork")
    assert again.unwrap(raw.evalsha(again.script.sha, *again.arguments)) == [b"ok"]
    assert stored() == before


def repeating(operation: Any, calls: list[Call]) -> Any:
    """The operation, with its calls noted."""
    reply: Any = None
    while True:
        try:
            effect = operation.send(reply)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, Call):
            calls.append(effect)
        reply = yield effect


def test_a_fork_that_would_make_a_thread_too_large_writes_nothing(url: str, prefix: str, saver: RedisSaver) -> None:
    graph = remembering(saver)
    for name in "abc":
        graph.invoke({"turn": name}, T)
    before = everything(saver)
    with RedisSaver(url, prefix=prefix, max_thread_bytes=saver.stats("t").stored_bytes + 10) as small:
        with pytest.raises(ThreadTooLargeError):
            small.rollback("t", -3)
    assert everything(saver) == before


def deep(saver: Any, runs: Runs, own: Any) -> Any:
    """sub(inner(s1 -> s2, which asks) -> s3), all with DeltaChannels; `own`: the inner one keeps its state between calls."""
    inner = line(runs.node("s1"), runs.asking("s2", "one?", "two?"), state=delta(100)).compile(checkpointer=own)

    def call(name: str, graph: Any) -> Any:
        def run(state: Any) -> Any:
            return {"log": [f"{name} of {graph.invoke({'log': ['>']})['log']}"]}

        run.__name__ = name
        return run

    sub = line(call("inner", inner), runs.node("s3"), state=delta(100)).compile()
    return line(runs.node("a"), call("sub", sub), runs.node("b"), state=delta(100)).compile(checkpointer=saver)


@pytest.mark.parametrize("own", [None, True])
@pytest.mark.parametrize("turns_before", [0, 2])
@pytest.mark.parametrize("answers", [0, 1, 2])
def test_truncation_reaches_into_subgraphs_of_subgraphs(
    saver: RedisSaver, memory: InMemorySaver, own: Any, turns_before: int, answers: int
) -> None:
    runs = Runs()
    graph, reference = deep(saver, runs, own), deep(memory, Runs(), own)

    def turn(graph: Any, text: str, *answers: str) -> Any:
        result = graph.invoke({"log": [text]}, T)
        for answer in answers:
            result = graph.invoke(Command(resume=answer), T)
        return result

    for n in range(turns_before):
        turn(graph, f"in {n}", "x", "y")
        turn(reference, f"in {n}", "x", "y")
    turn(graph, "in")
    waiting, before = head(saver), Counter(runs.of)
    for n in range(answers):
        graph.invoke(Command(resume=f"old {n}"), T)
    if answers == 2:
        turn(graph, "later", "old", "old")
    between = Counter(runs.of)
    saver.rollback("t", waiting, mode="truncate")
    assert asked(graph.invoke(None, T)) == ["one?"]
    assert asked(graph.invoke(Command(resume="1"), T)) == ["two?"]
    result = graph.invoke(Command(resume="2"), T)
    assert result["log"] == turn(reference, "in", "1", "2")["log"]
    assert runs.of["a"] == between["a"]
    assert runs.of["s1"] == between["s1"]
    assert before["a"] == turns_before + 1
    assert turn(graph, "on", "3", "4")["log"] == turn(reference, "on", "3", "4")["log"]


def test_a_step_whose_subgraph_failed_is_taken_up_where_it_failed(saver: RedisSaver) -> None:
    runs, broken = Runs(), [True]

    def fail(state: Any) -> str:
        if broken:
            raise RuntimeError("not today")
        return "s2"

    sub = line(runs.node("s1"), runs.node("s2", fail), state=delta(100)).compile(checkpointer=True)
    graph = line(runs.node("a"), runs.node("sub", lambda _: str(sub.invoke({"log": [">"]})["log"]))).compile(checkpointer=saver)
    with pytest.raises(RuntimeError, match="not today"):
        graph.invoke({"log": ["in"]}, T)
    saver.rollback("t", head(saver), mode="truncate")
    broken.clear()
    assert graph.invoke(None, T)["log"] == ["in", "a", "['>', 's1', 's2']"]
    assert runs.of["s1"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_checkpoints_of_subgraphs_go_with_the_steps_they_ran_in(saver: RedisSaver, mode: Any) -> None:
    runs = Runs()
    graph = nested(saver, runs)
    for n in range(2):
        graph.invoke({"log": [f"in {n}"]}, T)
        graph.invoke(Command(resume=n), T)
        if n == 0:
            saver.tag("t", "one turn")
            before = everything(saver)
    saver.rollback("t", "one turn", mode=mode)
    if mode == "truncate":
        assert everything(saver) == before
    else:
        assert before.items() <= everything(saver).items()


def test_truncation_in_a_fan_out_to_subgraphs_keeps_the_finished_ones(saver: RedisSaver) -> None:
    runs = Runs()

    class Part(TypedDict):
        n: int
        log: list[str]

    def work(state: Part) -> Any:
        runs.of[f"work {state['n']}"] += 1
        return {"log": [f"{state['n']}"]}

    def check(state: Part) -> Any:
        runs.of[f"check {state['n']}"] += 1
        return {"log": [f"{state['log'][0]}={interrupt('odd?')}"]} if state["n"] == 1 else {}

    sub = line(work, check, state=Part).compile()
    built = StateGraph(State).add_node("sub", lambda state: {"log": sub.invoke(state)["log"]})
    built.add_conditional_edges(START, lambda state: [Send("sub", {"n": n}) for n in range(4)])
    graph = built.compile(checkpointer=saver)
    assert asked(graph.invoke({"log": ["in"]}, T)) == ["odd?"]
    waiting = head(saver)
    for answer in ("yes", "no", "perhaps"):
        assert graph.invoke(Command(resume=answer), T) == {"log": ["in", "0", f"1={answer}", "2", "3"]}
        saver.rollback("t", waiting, mode="truncate")
        assert [each.value for each in state_of(graph).interrupts] == ["odd?"]
    assert {name: n for name, n in runs.of.items() if name.endswith(("0", "2", "3"))} == {
        f"{name} {n}": 1 for name in ("work", "check") for n in (0, 2, 3)
    }


# --- DeltaChannels ----------------------------------------------------------------------------------------------------


def joined(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


def delta(every: int) -> Any:
    return TypedDict("Delta", {"log": Annotated[list, DeltaChannel(joined, snapshot_frequency=every)]})


def told(saver: Any, every: int) -> Any:
    """Two nodes, each saying how much it saw."""

    def a(state: Any) -> Any:
        return {"log": [f"a saw {len(state['log'])}"]}

    def b(state: Any) -> Any:
        return {"log": [f"b saw {len(state['log'])}", "and so on"]}

    return line(a, b, state=delta(every)).compile(checkpointer=saver)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("follow", ["input", "run on"])
def test_a_delta_channel_goes_back_to_any_step_and_on_from_there(
    saver: RedisSaver, memory: InMemorySaver, mode: Any, every: int, follow: str
) -> None:
    graph, reference = told(saver, every), told(memory, every)
    for each in (graph, reference):
        for turn in ("one", "two", "three"):
            each.invoke({"log": [turn]}, T)
    ours, theirs = list(graph.get_state_history(T)), list(reference.get_state_history(T))
    assert [state.values for state in ours] == [state.values for state in theirs]
    stored = ["log" in found.checkpoint["channel_values"] for found in saver.list(T)]
    assert every == 1 or not all(stored)
    assert every == 100 or any(stored)
    for n, (here, there) in enumerate(zip(ours, theirs, strict=True)):
        thread = {"configurable": {"thread_id": f"copy {n}"}}
        saver.copy_thread("t", f"copy {n}")
        saver.rollback(f"copy {n}", id_of(here.config), mode=mode)
        assert state_of(graph, f"copy {n}").values == here.values, n
        assert state_of(graph, f"copy {n}").next == here.next
        if follow == "input":
            value: Any = {"log": ["else"]}
            expected = [*here.values.get("log", []), "else"]
            expected.append(f"a saw {len(expected)}")
            expected += [f"b saw {len(expected)}", "and so on"]
        elif here.next:
            value, expected = None, reference.invoke(None, there.config)["log"]
        else:
            continue
        assert graph.invoke(value, thread)["log"] == expected, n
        assert state_of(graph, f"copy {n}").values["log"] == expected
        assert graph.invoke({"log": ["more"]}, thread)["log"][: len(expected) + 1] == [*expected, "more"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("every", [2, 100])
@pytest.mark.parametrize("answered", [False, True])
def test_a_delta_channel_is_right_around_an_interrupt(saver: RedisSaver, mode: Any, every: int, answered: bool) -> None:
    runs = Runs()
    graph = line(runs.node("a"), runs.asking("ask", "one?", "two?"), runs.node("act"), state=delta(every)).compile(
        checkpointer=saver
    )
    for n in range(2):
        graph.invoke({"log": [f"in {n}"]}, T)
        if n == 0:
            graph.invoke(Command(resume="x"), T)
            graph.invoke(Command(resume="y"), T)
    before, waiting = state_of(graph).values["log"], head(saver)
    if answered:
        graph.invoke(Command(resume="old"), T)
        graph.invoke(Command(resume="old"), T)
        graph.invoke({"log": ["later"]}, T)
    saver.rollback("t", waiting, mode=mode)
    assert state_of(graph).values["log"] == before
    assert asked(graph.invoke(None, T)) == ["one?"]
    assert asked(graph.invoke(Command(resume="1"), T)) == ["two?"]
    assert graph.invoke(Command(resume="2"), T)["log"] == [*before, "ask=1+2", "act"]
    assert state_of(graph).values["log"] == [*before, "ask=1+2", "act"]


@pytest.mark.parametrize("mode", MODES)
def test_updates_by_hand_on_a_delta_channel_are_taken_back(saver: RedisSaver, mode: Any) -> None:
    graph = told(saver, 100)
    graph.invoke({"log": ["one"]}, T)
    before, goal = state_of(graph).values["log"], head(saver)
    graph.update_state(T, {"log": ["by hand"]}, as_node="b")
    graph.update_state(T, {"log": ["again"]}, as_node="b")
    assert state_of(graph).values["log"] == [*before, "by hand", "again"]
    saver.rollback("t", goal, mode=mode)
    assert state_of(graph).values["log"] == before
    graph.update_state(T, {"log": ["otherwise"]}, as_node="b")
    assert state_of(graph).values["log"] == [*before, "otherwise"]
    assert graph.invoke({"log": ["on"]}, T)["log"][: len(before) + 2] == [*before, "otherwise", "on"]


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("every", [3, 100])
def test_a_fork_is_rebuilt_right_though_retention_goes_on(
    url: str, prefix: str, memory: InMemorySaver, limit: int, every: int
) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        graph, reference = told(saver, every), told(memory, every)
        kept = ["one", "two"]
        for text in kept:
            graph.invoke({"log": [text]}, T)
        saver.tag("t", "here")
        for n in range(4):
            graph.invoke({"log": [f"removed {n}"]}, T)
            saver.rollback("t", "here", mode=MODES[n % 2])
        for text in [*kept, "three", "four"]:
            expected = reference.invoke({"log": [text]}, T)
        for text in ("three", "four"):
            found = graph.invoke({"log": [text]}, T)
        assert found == expected
        assert state_of(graph).values == state_of(reference).values


# --- at the same time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_going_back_while_others_write_is_right_or_refused(url: str, prefix: str, mode: Any) -> None:
    with RedisSaver(url, prefix=prefix) as saver, RedisSaver(url, prefix=prefix) as other:
        first = checkpoint({"n": 0})
        saver.put(at("t"), first, metadata(), first["channel_versions"])
        stop = threading.Event()
        acknowledged: list[str] = []

        def write() -> None:
            while not stop.is_set():
                each = checkpoint({"n": len(acknowledged) + 1})
                other.put(at("t", "", first["id"]), each, metadata(), each["channel_versions"])
                acknowledged.append(each["id"])
                stop.wait(random.random() * 0.01)  # without a pause nothing else comes through

        writer = threading.Thread(target=write)
        writer.start()
        done = 0
        try:
            for _ in range(40):
                try:
                    config = saver.rollback("t", first["id"], mode=mode)
                except ThreadBusyError:
                    continue
                done += 1
                assert saver.get_tuple(config).checkpoint["channel_values"] == {"n": 0}
        finally:
            stop.set()
            writer.join()
        assert done > 10
        found = everything(saver)
        assert ("", first["id"]) in found
        if mode == "fork":
            forks = [each for each in found.values() if each["metadata"]["source"] == "fork"]
            assert len(forks) == done
            assert {("", each) for each in acknowledged} <= set(found)


def test_a_fork_is_above_a_head_from_a_clock_that_runs_ahead(saver: RedisSaver) -> None:
    made = checkpoint({"x": 1})
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    ahead = checkpoint({"x": 2}, id="2f0a0000-0000-6fff-bfff-ffffffffffff")
    saver.put(at("t", "", made["id"]), ahead, metadata(), ahead["channel_versions"])
    for _ in range(3):
        before = head(saver)
        config = saver.rollback("t", made["id"])
        assert id_of(config) > before
        assert saver.get_tuple(T).checkpoint["channel_values"] == {"x": 1}


def test_two_forks_from_one_target_are_two_heads(saver: RedisSaver) -> None:
    say(chat(saver), "one", "two")
    goal = next(version.checkpoint_id for version in saver.history("t") if version.step == 1)
    made = [id_of(saver.rollback("t", goal)) for _ in range(3)]
    assert made == sorted(set(made))
    assert len({saver.get_tuple(at("t", "", each)).parent_config["configurable"]["checkpoint_id"] for each in made}) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_signed_thread_goes_back_and_stays_signed(url: str, prefix: str, mode: Any) -> None:
    with RedisSaver(url, prefix=prefix, integrity_key="secret one of tests") as saver:
        runs = Runs()
        graph = beside(saver, runs)
        graph.invoke({"log": ["in"]}, T)
        waiting = head(saver)
        graph.invoke(Command(resume="yes"), T)
        saver.rollback("t", waiting, mode=mode)
        assert graph.invoke(Command(resume="no"), T)["log"][-2:] == ["b=no", "end"]


def test_going_back_keeps_the_time_a_thread_has_of_its_own(saver: RedisSaver, raw: Any, prefix: str) -> None:
    say(chat(saver), "one", "two")
    keys = ThreadKeys(prefix, b"t").all[:2]
    saver.set_ttl("t", 1_000)
    saver.rollback("t", -2, mode="truncate")
    saver.rollback("t", -1)
    assert all(990_000 < raw.pttl(key) <= 1_000_000 for key in keys)
    saver.persist("t")
    saver.rollback("t", -1)
    assert [raw.pttl(key) for key in keys] == [-1, -1]
