"""The graphs that are run whole: an answer in a chat, and (b) a plan with 20 `Send`s to a subgraph."""

import operator
from collections.abc import Sequence
from typing import Annotated, Any

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from .workloads import Prose, message


def chat_graph() -> Any:
    prose = Prose(31)

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [message(prose, 1)]}

    return StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")


def _extend(lines: list[str], batches: Sequence[list[str]]) -> list[str]:
    return [*lines, *(line for batch in batches for line in batch)]


class Log(TypedDict):
    log: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=1000)]


def delta_graph() -> Any:
    """Keeps what each run was given in a DeltaChannel: a checkpoint has only what came with it."""
    return StateGraph(Log).add_node("done", lambda state: {}).add_edge(START, "done")


class Task(TypedDict):
    title: str
    draft: str
    findings: list[str]


class Whole(TypedDict):
    topic: str
    plan: list[str]
    findings: Annotated[list[str], operator.add]
    summary: str
    round: int
    profile: dict[str, str]
    budget: int
    language: str
    sources: list[str]
    scores: dict[str, float]


def fan_out_graph() -> Any:
    """A planner, 20 tasks for a subgraph of two nodes, a summary: ten channels."""
    prose = Prose(37)

    def research(task: Task) -> dict[str, Any]:
        return {"draft": prose.words(30)}

    def review(task: Task) -> dict[str, Any]:
        return {"findings": [f"{task['title']}: {task['draft']}"]}

    def plan(state: Whole) -> dict[str, Any]:
        return {"plan": [prose.words(5) for _ in range(20)], "round": (state.get("round") or 0) + 1}

    def summarize(state: Whole) -> dict[str, Any]:
        return {"summary": prose.words(40), "sources": [prose.uuid() for _ in range(5)]}

    worker = StateGraph(Task).add_node("research", research).add_node("review", review)
    worker.add_edge(START, "research").add_edge("research", "review")
    whole = StateGraph(Whole).add_node("plan", plan).add_node("work", worker.compile()).add_node("summarize", summarize)
    whole.add_edge(START, "plan")
    whole.add_conditional_edges("plan", lambda state: [Send("work", {"title": title}) for title in state["plan"]], ["work"])
    return whole.add_edge("work", "summarize")
