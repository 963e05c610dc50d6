"""`rollback` to before, at and after interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import Runs, State, beside, delta, line
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from shapes import at, id_of, plain
from soak import rare

from langgraph_redis_state import RedisSaver

MODES = ("fork", "truncate")
T = {"configurable": {"thread_id": "t"}}


def state_of(graph: Any, thread: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread}})


def head(saver: RedisSaver, thread: str = "t") -> str:
    found = saver.get_tuple(at(thread))
    assert found is not None
    return id_of(found.config)


def asked(result: dict[str, Any]) -> list[Any]:
    """The questions a run ended with."""
    return [each.value for each in result.get("__interrupt__", ())]


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
@pytest.mark.parametrize("durability", ["sync", rare("async"), "exit"])
@pytest.mark.parametrize("every", [2, rare(100)])
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
