"""A little of every verb, and a graph that counts."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph import END, START, StateGraph
from shapes import at, ids, put
from typing_extensions import TypedDict

BIG = [f"{n}: " + "some words that differ " * 8 for n in range(1_500)]
"""About 300 KB in 1,500 elements: several chunks."""


async def scenario(saver: Any) -> None:
    """A little of everything, whatever the client's settings."""
    config = at("t")
    for n in range(3):
        config = await put(saver, config, {"x": [*BIG, n], "bytes": b"\xff\x00\xfe", "text": "é😀"}, step=n, run_id=f"r{n}")
        await saver.aput_writes(config, [("x", b"\x80"), (INTERRUPT, "?")], "task", "~path")
    await put(saver, at("t", "child:1"), {"x": 1})
    found = await saver.aget_tuple(at("t"))
    assert found.checkpoint["channel_values"] == {"x": [*BIG, 2], "bytes": b"\xff\x00\xfe", "text": "é😀"}
    assert found.pending_writes == [("task", INTERRUPT, "?"), ("task", "x", b"\x80")]
    assert len(await ids(saver, at("t", None), limit=2, filter={"source": "loop"})) == 2
    history = await saver.aget_delta_channel_history(config=config, channels=["x"])
    assert history["x"]["seed"] == [*BIG, 1]
    assert history["x"]["writes"] == [("task", "x", b"\x80")]
    await saver.acopy_thread("t", "copy")
    await saver.adelete_for_runs(["r0"])
    await saver.aprune(["t"])
    assert [len(await ids(saver, at(thread, None))) for thread in ("t", "copy")] == [2, 4 - 1]
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(at("t")) is None
    assert await saver.aget_tuple(at("nobody")) is None


class Count(TypedDict):
    n: int
    log: Annotated[list[str], operator.add]


def counting_graph(ran: list[str] | None = None) -> Any:
    def step(name: str) -> Any:
        def body(state: Count) -> dict[str, Any]:
            if ran is not None:
                ran.append(name)
            return {"n": state["n"] + 1, "log": [name]}

        return body

    builder = StateGraph(Count)
    for name in ("a", "b", "c"):
        builder.add_node(name, step(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    builder.add_edge("c", END)
    return builder
