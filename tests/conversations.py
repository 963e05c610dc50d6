"""Graphs that are rolled back, and how what they did is counted."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from shapes import at, id_of, plain
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def everything(saver: RedisSaver, thread: str = "t") -> dict[tuple[str, str], Any]:
    return {
        (found.config["configurable"]["checkpoint_ns"], id_of(found.config)): plain(found)
        for found in saver.list(at(thread, None))
    }


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


def beside(saver: Any, runs: Runs) -> Any:
    """a and b at once, of which b asks; then end"""
    built = StateGraph(State)
    built.add_node("a", runs.node("a")).add_node("b", runs.asking("b", "sure?")).add_node("end", runs.node("end"))
    built.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "end")
    return built.compile(checkpointer=saver)


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
