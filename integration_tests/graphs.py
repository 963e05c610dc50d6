"""A real graph, played step by step, and what each step gave: what InMemorySaver gave is what any saver must give.

It has messages, a subgraph that interrupts, a fan-out with Send, and a DeltaChannel, and is resumed, edited, copied, and
forked from its past.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict


def appended(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(text for write in writes for text in write)]


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    topics: list[str]
    notes: Annotated[list[str], operator.add]
    journal: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=3)]
    approved: bool


class Topic(TypedDict):
    topic: str


def plan(state: State) -> State:
    number = len(state["messages"])
    topics = state["messages"][-1].text.split()
    return {"messages": [AIMessage("planned " * 200, id=f"plan-{number}")], "topics": topics, "journal": ["plan"]}


def research(task: Topic) -> State:
    return {"notes": [f"about {task['topic']}: " + "words and words " * 40], "journal": [f"research {task['topic']}"]}


def ask(state: State) -> State:
    answer = interrupt({"question": "publish?", "notes": len(state["notes"])})
    number = len(state["messages"])
    return {"messages": [HumanMessage(str(answer), id=f"answer-{number}")], "approved": answer == "yes", "journal": ["ask"]}


def weigh(state: State) -> State:
    return {"journal": [f"weigh {len(state['notes'])}"]}


def publish(state: State) -> State:
    text = "published" if state["approved"] else "kept"
    return {"messages": [AIMessage(text, id=f"publish-{len(state['messages'])}")], "journal": ["publish"]}


def graph_on(saver: BaseCheckpointSaver[Any]) -> Any:
    review = StateGraph(State)
    review.add_node("weigh", weigh)
    review.add_node("ask", ask)
    review.add_edge(START, "weigh")
    review.add_edge("weigh", "ask")
    review.add_edge("ask", END)

    builder = StateGraph(State)
    builder.add_node("plan", plan)
    builder.add_node("research", research)
    builder.add_node("review", review.compile())
    builder.add_node("publish", publish)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", lambda state: [Send("research", {"topic": t}) for t in state["topics"]], ["research"])
    builder.add_edge("research", "review")
    builder.add_edge("review", "publish")
    builder.add_edge("publish", END)
    return builder.compile(checkpointer=saver)


class Stage:
    """A graph on a saver, by its sync or its async methods."""

    def __init__(self, saver: BaseCheckpointSaver[Any], surface: str) -> None:
        self._graph = graph_on(saver)
        self._sync = surface == "sync"

    async def invoke(self, given: Any, config: Any) -> Any:
        return self._graph.invoke(given, config) if self._sync else await self._graph.ainvoke(given, config)

    async def state(self, config: Any) -> Any:
        if self._sync:
            return self._graph.get_state(config, subgraphs=True)
        return await self._graph.aget_state(config, subgraphs=True)

    async def history(self, config: Any) -> list[Any]:
        if self._sync:
            return list(self._graph.get_state_history(config))
        return [found async for found in self._graph.aget_state_history(config)]

    async def update(self, config: Any, values: Any, as_node: str) -> Any:
        if self._sync:
            return self._graph.update_state(config, values, as_node=as_node)
        return await self._graph.aupdate_state(config, values, as_node=as_node)


def told(state: Any) -> Any:
    """What two savers must agree on: all but ids made from the clock and what is made from those."""
    return {
        "values": state.values,
        "next": state.next,
        "source": state.metadata["source"],
        "step": state.metadata["step"],
        "writes": sorted(state.metadata),
        "has parent": state.parent_config is not None,
        "interrupts": [asked.value for asked in state.interrupts],
        "tasks": [
            {
                "name": task.name,
                "error": task.error,
                "interrupts": [asked.value for asked in task.interrupts],
                "result": task.result,
                "state": told(task.state) if hasattr(task.state, "values") and hasattr(task.state, "tasks") else None,
            }
            for task in state.tasks
        ],
    }


async def play(first: BaseCheckpointSaver[Any], second: BaseCheckpointSaver[Any], surface: str, thread: str) -> list[Any]:
    """Plays on two savers of the same storage in turn, as two processes would; what each step gave."""
    one, two = Stage(first, surface), Stage(second, surface)
    config = {"configurable": {"thread_id": thread}}
    steps: list[Any] = []

    def given(result: dict[str, Any]) -> None:
        asked = result.pop("__interrupt__", ())
        steps.append({**result, "asked": [one.value for one in asked]})

    async def look(stage: Stage) -> None:
        steps.append(told(await stage.state(config)))
        steps.append([told(found) for found in await stage.history(config)])

    given(await one.invoke({"messages": [HumanMessage("rivers bridges ferries", id="h1")]}, config))
    await look(two)
    given(await two.invoke(Command(resume="yes"), config))
    await look(one)
    given(await one.invoke({"messages": [HumanMessage("boats", id="h2")]}, config))
    given(await one.invoke(Command(resume="no"), config))
    await look(two)

    before_review = [found for found in await two.history(config) if found.next == ("review",)][-1]
    steps.append(told(await one.state(before_review.config)))
    fork = await two.update(before_review.config, {"notes": ["a note by hand"]}, "research")
    given(await one.invoke(None, fork))
    await look(two)
    given(await two.invoke(Command(resume="yes"), config))
    await look(one)

    planned = next(found for found in await one.history(config) if "research" in found.next)
    copy = await one.update(planned.config, None, "__copy__")
    steps.append(told(await two.state(copy)))
    given(await two.invoke(None, copy))
    given(await one.invoke(Command(resume="maybe"), config))
    await look(two)
    return steps
