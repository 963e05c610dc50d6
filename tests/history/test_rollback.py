"""`rollback`: the graph continues from the target as if it had just arrived there."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import Runs, chat, everything, line, say
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from shapes import at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointNotFoundError

MODES = ("fork", "truncate")
T = {"configurable": {"thread_id": "t"}}


def state_of(graph: Any, thread: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread}})


def head(saver: RedisSaver, thread: str = "t") -> str:
    found = saver.get_tuple(at(thread))
    assert found is not None
    return id_of(found.config)


# --- a conversation ---------------------------------------------------------------------------------------------------


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
