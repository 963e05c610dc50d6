"""Real graphs that fork, copy, interrupt and go on from old checkpoints."""

from __future__ import annotations

from typing import Any

from exercise import Count, counting_graph
from langgraph.types import Command, interrupt
from shapes import at, id_of

from langgraph_redis_state import RedisSaver


def after(graph: Any, config: Any, *nodes: str) -> Any:
    """The config of the checkpoint that waits for these nodes, oldest first if several do."""
    return next(found for found in graph.get_state_history(config) if found.next == nodes).config


def test_update_state_on_an_old_checkpoint_forks_from_there(saver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    thread = at("t", None)
    assert graph.invoke({"n": 0, "log": []}, thread) == {"n": 3, "log": ["a", "b", "c"]}
    before_b = after(graph, thread, "b")
    fork = graph.update_state(before_b, {"n": 100, "log": ["by hand"]}, as_node="a")
    assert graph.get_state(fork).values == {"n": 100, "log": ["a", "by hand"]}
    assert graph.invoke(None, fork) == {"n": 102, "log": ["a", "by hand", "b", "c"]}
    assert graph.get_state(before_b).values == {"n": 1, "log": ["a"]}
    assert graph.get_state(thread).values == {"n": 102, "log": ["a", "by hand", "b", "c"]}


def test_copying_an_old_checkpoint_keeps_its_state_and_runs_on_from_it(saver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    thread = at("t", None)
    graph.invoke({"n": 0, "log": []}, thread)
    for nodes, values in {("c",): {"n": 2, "log": ["a", "b"]}, ("b",): {"n": 1, "log": ["a"]}}.items():
        copy = graph.update_state(after(graph, thread, *nodes), None, as_node="__copy__")
        found = graph.get_state(copy)
        assert (found.values, found.next, found.metadata["source"]) == (values, nodes, "fork")
        assert graph.get_state(thread).config["configurable"]["checkpoint_id"] == id_of(copy)
        assert graph.invoke(None, copy)["log"] == ["a", "b", "c"]


async def test_forks_of_forks_keep_every_branch(asaver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=asaver)
    thread = at("t", None)
    await graph.ainvoke({"n": 0, "log": []}, thread)
    history = [found async for found in graph.aget_state_history(thread)]
    config = next(found.config for found in history if found.next == ("b",))
    branches, expected = [config], ["a"]
    for n in range(5):
        copy = await graph.aupdate_state(config, None, as_node="__copy__")
        config = await graph.aupdate_state(copy, {"n": n, "log": [f"fork {n}"]}, as_node="a")
        expected = [*expected, f"fork {n}"]
        branches.append(config)
        assert (await graph.aget_state(copy)).values["log"] == expected[:-1]
        assert (await graph.aget_state(config)).values == {"n": n, "log": expected}
    for n, branch in enumerate(branches):
        assert (await graph.aget_state(branch)).values["log"] == expected[: n + 1]
        assert (await graph.ainvoke(None, branch))["log"] == [*expected[: n + 1], "b", "c"]


def test_an_interrupt_survives_pruning_and_another_process_answers_it(url: str, prefix: str) -> None:
    def build(saver: Any) -> Any:
        def ask(state: Count) -> dict[str, Any]:
            return {"log": [f"{interrupt('how many?')}"]}

        builder = counting_graph()
        builder.add_node("ask", ask)
        builder.add_edge("c", "ask")
        return builder.compile(checkpointer=saver)

    with RedisSaver(url, prefix=prefix) as one:
        paused = build(one).invoke({"n": 0, "log": []}, at("t", None))
        assert [asked.value for asked in paused["__interrupt__"]] == ["how many?"]
        one.prune(["t"])
    with RedisSaver(url, prefix=prefix) as two:
        graph = build(two)
        assert [asked.value for asked in graph.get_state(at("t", None)).interrupts] == ["how many?"]
        assert graph.invoke(Command(resume=3), at("t", None))["log"] == ["a", "b", "c", "3"]
