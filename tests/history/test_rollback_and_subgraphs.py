"""`rollback` of graphs with subgraphs."""

from __future__ import annotations

import operator
import random
from collections import Counter
from typing import Annotated, Any

import pytest
from conversations import Runs, State, delta, everything, line, remembering
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from shapes import at, id_of
from soak import in_turn, rare, times
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.effects import Call
from langgraph_redis_state.errors import ThreadTooLargeError
from langgraph_redis_state.history.rollback import fork_to
from langgraph_redis_state.storage.keys import ThreadKeys

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


@pytest.mark.parametrize(("mode", "answered", "again"), in_turn(MODES, [False, True], [False, True], rounds=2))
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


@pytest.mark.parametrize(("mode", "answered", "again"), in_turn(MODES, [False, True], [False, True], rounds=2))
@pytest.mark.parametrize("turns_before", [rare(0), 1])
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


@pytest.mark.longer
@pytest.mark.parametrize(
    ("seed", "delta"),
    [(seed, delta) if seed == delta else rare(seed, delta) for seed in range(6) for delta in (False, True)],
)
def test_a_subgraph_with_a_memory_remembers_what_its_parent_knew_whatever_was_rolled_back_and_pruned(
    saver: RedisSaver, seed: int, delta: bool
) -> None:
    dice = random.Random(seed)
    graph = remembering(saver, delta)
    expected: list[str] = []
    for n in range(times(15, 25, 25)):
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


@pytest.mark.longer
@pytest.mark.parametrize("max_versions", [rare(1), 4, rare(10)])
def test_retention_keeps_what_a_rollback_to_any_kept_checkpoint_needs_and_no_more(
    url: str, prefix: str, max_versions: int
) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=max_versions) as saver:
        graph = remembering(saver)
        sizes = []
        for n in range(times(16, 30, 30)):
            graph.invoke({"turn": str(n)}, T)
            sizes.append(sum(1 for _ in saver.list(at("t", None))))
        assert max(sizes) <= 3 * max_versions + 9  # 64 without; a clean-up that met another writer waits for its next turn
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


DEPTHS = [(own, answers) for own in (None, True) for answers in (0, 1, 2)]


@pytest.mark.parametrize(("own", "answers"), [each if each in [(None, 2), (True, 0)] else rare(*each) for each in DEPTHS])
@pytest.mark.parametrize("turns_before", [rare(0), 2])
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
