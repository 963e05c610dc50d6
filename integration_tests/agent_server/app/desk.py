"""The graph that the agent server serves: it remembers, asks, takes its time, and calls a subgraph, as its input says."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


@dataclass
class Receipt:
    """A type that a strict serializer must be told of."""

    number: int


def extend(had: list[str] | None, got: list[list[str]]) -> list[str]:
    return [*(had or []), *itertools.chain(*got)]


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=1000)]
    receipt: Receipt
    kind: str
    letters: int


class Inner(TypedDict, total=False):
    text: str
    letters: int


def count(state: Inner) -> dict[str, Any]:
    return {"letters": len(state["text"])}


async def note(state: State) -> dict[str, Any]:
    if state["text"] == "slow":
        await asyncio.sleep(3600)
    answer = interrupt("Which one?") if state["text"] == "ask" else state["text"]
    had = state.get("receipt")
    return {
        "log": [answer],
        "receipt": Receipt(had.number + 1 if isinstance(had, Receipt) else 1),
        "kind": type(had).__name__,
    }


counting = StateGraph(Inner).add_node(count).add_edge(START, "count").add_edge("count", END).compile()
graph = (
    StateGraph(State)
    .add_node(note)
    .add_node("counting", counting)
    .add_edge(START, "note")
    .add_edge("note", "counting")
    .add_edge("counting", END)
    .compile()
)
