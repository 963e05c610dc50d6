"""`rollback` with DeltaChannels, with other writers, and with keys and TTLs."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from conversations import Runs, beside, chat, delta, everything, line, say, told
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from shapes import at, checkpoint, id_of, metadata
from soak import in_turn, rare, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadBusyError
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


# --- DeltaChannels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "follow"), in_turn(MODES, ["input", "run on"]))
@pytest.mark.parametrize("every", [rare(1), 3, rare(100)])
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


@pytest.mark.parametrize(("mode", "every", "answered"), in_turn(MODES, [2, 100], [False, True], rounds=2))
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


@pytest.mark.parametrize(("limit", "every"), in_turn([1, 2], [100, 3]))
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


@pytest.mark.longer
@pytest.mark.parametrize("mode", MODES)
def test_going_back_while_others_write_is_right_or_refused(url: str, prefix: str, mode: Any) -> None:
    with RedisSaver(url, prefix=prefix) as saver, RedisSaver(url, prefix=prefix) as other:
        first = checkpoint({"n": 0})
        saver.put(at("t"), first, metadata(), first["channel_versions"])
        stop = threading.Event()
        acknowledged: list[str] = []
        pause = 0.01  # at most, between two writes: without one nothing else comes through

        def write() -> None:
            while not stop.is_set():
                each = checkpoint({"n": len(acknowledged) + 1})
                other.put(at("t", "", first["id"]), each, metadata(), each["channel_versions"])
                acknowledged.append(each["id"])
                stop.wait(random.random() * pause)

        writer = threading.Thread(target=write)
        writer.start()
        done = 0
        try:
            for _ in range(40):
                if done == times(11, 40, 40):
                    break
                try:
                    config = saver.rollback("t", first["id"], mode=mode)
                except ThreadBusyError:
                    pause *= 2  # the machine is slow
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
