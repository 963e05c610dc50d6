"""Real graphs on RedisSaver and on InMemorySaver, side by side: same results, same state, same history, step by step.

A scenario builds a graph and plays a script on it. Every move of the script is written into a transcript, with the
state, the whole history and what the saver holds after it; the transcripts must be equal. What is random by nature (ids, and
what is derived from them) is replaced by the order in which it is first seen.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import operator
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import EmptyInputError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import Command, Interrupt, Overwrite, RetryPolicy, Send, StateSnapshot, StateUpdate, interrupt
from shapes import assert_same, at, id_of, ids
from soak import rare
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadDeletedError

DURABILITIES = ["sync", "async", "exit"]
THREAD = {"configurable": {"thread_id": "t"}}

# --- playing a script -------------------------------------------------------------------------------------------------

RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")


Script = Callable[["Play"], Awaitable[None]]


class Play:
    """One performance: a graph on a saver, sync or async, and the transcript of what it did."""

    def __init__(self, build: Callable[[Any], Any], open_saver: Callable[[], Any], awaited: bool, durability: str) -> None:
        self.build, self.open_saver, self.awaited, self.durability = build, open_saver, awaited, durability
        self.transcript: list[tuple[str, Any]] = []
        self.seen: dict[str, str] = {}
        self.threads: dict[str, None] = {}

    @property
    def graph(self) -> Any:
        return self.build(self.open_saver())

    async def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        if self.awaited:
            return await getattr(self.graph, f"a{verb}")(*arguments, **options)
        return getattr(self.graph, verb)(*arguments, **options)

    async def gather(self, verb: str, *arguments: Any, **options: Any) -> list[Any]:
        if self.awaited:
            return [found async for found in getattr(self.graph, f"a{verb}")(*arguments, **options)]
        return list(getattr(self.graph, verb)(*arguments, **options))

    async def invoke(self, given: Any, config: Any = THREAD, **options: Any) -> Any:
        try:
            result = await self.call("invoke", given, config, durability=self.durability, **options)
        except (RuntimeError, EmptyInputError) as failure:
            result = failure
        await self.note("invoke", result, config)
        return result

    async def stream(self, given: Any, config: Any = THREAD, **options: Any) -> None:
        events = await self.gather("stream", given, config, durability=self.durability, **options)
        await self.note("stream", events, config)

    async def update(self, config: Any, values: Any, as_node: str | None = None) -> Any:
        updated = await self.call("update_state", config, values, as_node=as_node)
        await self.note("update_state", updated, updated)
        return updated

    async def bulk_update(self, config: Any, supersteps: Any) -> Any:
        updated = await self.call("bulk_update_state", config, supersteps)
        await self.note("bulk_update_state", updated, updated)
        return updated

    async def state(self, config: Any = THREAD) -> StateSnapshot:
        return await self.call("get_state", config, subgraphs=True)

    async def history(self, config: Any = THREAD) -> list[StateSnapshot]:
        return await self.gather("get_state_history", config)

    async def before(self, *nodes: str, skip: int = 0) -> Any:
        """The config of the newest checkpoint that waits for these nodes.

        The oldest there is instead, if none does: with durability "exit" only the ends of runs are kept.
        """
        history = await self.history()
        fitting = [found for found in history[skip:] if nodes in (found.next, found.next[: len(nodes)])]
        return (fitting or history[-1:])[0].config

    async def note(self, move: str, result: Any, config: Any) -> None:
        """With durability "sync" everything after every move; else the state, and the rest when the script is over."""
        self.threads.setdefault(config["configurable"]["thread_id"])
        self.transcript.append((move, self.told(result)))
        if "checkpoint_id" in config["configurable"]:
            self.transcript.append(("state there", self.told(await self.state(config))))
        for thread in self.threads:
            self.transcript.append(("state", self.told(await self.state(at(thread, None)))))
        if self.durability == "sync":
            await self.note_history()

    async def note_history(self) -> None:
        for thread in self.threads:
            self.transcript.append(("history", self.told(await self.history(at(thread, None)))))
            self.transcript.append(("kept", self.told(await self.kept(at(thread, None)))))

    async def perform(self, script: Script) -> list[tuple[str, Any]]:
        await script(self)
        await self.note_history()
        return self.transcript

    async def kept(self, thread: Any) -> list[Any]:
        saver = self.graph.checkpointer
        found = [found async for found in saver.alist(thread)] if self.awaited else list(saver.list(thread))
        found.sort(key=lambda t: t.checkpoint["id"])
        return [
            {
                "config": t.config["configurable"],
                "parent": t.parent_config and t.parent_config["configurable"],
                "metadata": dict(sorted(t.metadata.items())),
                "values": dict(sorted(t.checkpoint["channel_values"].items())),
                "versions": ordinals(t.checkpoint["channel_versions"]),
                "seen": {name: ordinals(seen) for name, seen in sorted(t.checkpoint["versions_seen"].items())},
                "updated": t.checkpoint.get("updated_channels"),
                "writes": [tuple(write) for write in t.pending_writes],
            }
            for t in found
        ]

    def told(self, value: Any) -> Any:
        """The value without what is random; the containers that LangGraph fills are told as plain ones."""
        match value:
            case str():
                return RANDOM.sub(lambda found: self.seen.setdefault(found[0], f"<{len(self.seen)}>"), value)
            case StateSnapshot():
                return {name: self.told(part) for name, part in value._asdict().items() if name != "created_at"}
            case dict() if "thread_id" in value:  # a configurable; LangGraph may leave keys of its own in it
                return {key: self.told(part) for key, part in sorted(value.items()) if not key.startswith("__")}
            case dict():
                return {self.told(key): self.told(part) for key, part in value.items() if key not in ("ts", "thread_ts")}
            case [Interrupt(), *_]:  # those of parallel tasks come in the order in which these happen to end
                return [self.told(asked) for asked in sorted(value, key=lambda asked: repr(asked.value))]
            case list() | tuple() if not hasattr(value, "_fields"):
                return type(value)(self.told(part) for part in value)
            case tuple():
                return {name: self.told(part) for name, part in value._asdict().items()}
            case BaseException():
                return (type(value).__name__, self.told(str(value)))
        if hasattr(value, "model_copy"):
            return value.model_copy(update={"id": self.told(value.id)}) if getattr(value, "id", None) else value
        if isinstance(value, Interrupt):
            return ("Interrupt", self.told(value.value), self.told(value.id))
        if isinstance(value, Send):
            return ("Send", value.node, self.told(value.arg))
        return value


def ordinals(versions: Any) -> dict[str, int]:
    """`"0002.0.123"` of InMemorySaver and `"0002"` of RedisSaver are both the second version."""
    return {name: int(str(version).split(".")[0]) for name, version in sorted(versions.items())}


# --- the scenarios ----------------------------------------------------------------------------------------------------

SCENARIOS: dict[str, tuple[Callable[[Any], Any], Script]] = {}


def scenario(build: Callable[[Any], Any]) -> Callable[[Script], Script]:
    def register(script: Script) -> Script:
        SCENARIOS[script.__name__] = (build, script)
        return script

    return register


# chat


def chat(saver: Any) -> Any:
    def answer(state: MessagesState) -> dict[str, Any]:
        said = state["messages"][-1].content
        if said == "forget":
            return {"messages": [RemoveMessage(id=message.id) for message in state["messages"][:2]]}
        if said == "forget everything":
            return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), AIMessage("who are you?", id="fresh")]}
        reply = f"{len(state['messages'])}: {said}"
        return {"messages": [AIMessage(reply, id=f"re: {state['messages'][-1].id}", response_metadata={"n": 1})]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


@scenario(chat)
async def a_chat_of_some_turns(play: Play) -> None:
    for said in ["hello", "again", "é😀", "forget", "what was it?", "forget everything", "bye"]:
        await play.invoke({"messages": [HumanMessage(said, id=f"h {said}")]})
    other = {"configurable": {"thread_id": "another"}}
    await play.invoke({"messages": [HumanMessage("hello", id="mine")]}, other)
    await play.update(other, {"messages": [HumanMessage("edited", id="mine")]})
    await play.invoke(None, other)


@scenario(chat)
async def a_chat_with_much_text(play: Play) -> None:
    first = [HumanMessage(f"message {n} " * 50, id=f"m{n}") for n in range(120)]
    await play.invoke({"messages": first})
    await play.update(THREAD, {"messages": [HumanMessage("edited " * 30, id="m60"), RemoveMessage(id="m7")]})
    await play.invoke({"messages": [HumanMessage("long " * 5_000, id="long")]})
    await play.invoke({"messages": [HumanMessage("forget", id="forget")]})


# a loop with tools


def agent(saver: Any) -> Any:
    def model(state: MessagesState) -> dict[str, Any]:
        asked = sum(isinstance(message, ToolMessage) for message in state["messages"])
        if asked < 3:
            calls = [{"name": "add", "args": {"a": asked, "b": n}, "id": f"call {asked}.{n}"} for n in range(asked + 1)]
            return {"messages": [AIMessage("", tool_calls=calls, id=f"ai {asked}")]}
        return {"messages": [AIMessage(f"{state['messages'][-1].content} it is", id=f"done {len(state['messages'])}")]}

    def tools(state: MessagesState) -> dict[str, Any]:
        calls = state["messages"][-1].tool_calls
        return {
            "messages": [
                ToolMessage(str(call["args"]["a"] + call["args"]["b"]), tool_call_id=call["id"], id=f"tool {call['id']}")
                for call in calls
            ]
        }

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", tools)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


@scenario(agent)
async def a_loop_with_tools(play: Play) -> None:
    await play.invoke({"messages": [HumanMessage("add up", id="h")]})
    await play.invoke(None, await play.before("tools"))
    await play.invoke({"messages": [HumanMessage("once more", id="h2")]})


@scenario(agent)
async def stops_before_and_after_nodes(play: Play) -> None:
    await play.invoke({"messages": [HumanMessage("add up", id="h")]}, interrupt_before=["tools"])
    await play.invoke(None, interrupt_before=["tools"])
    await play.invoke(None, interrupt_after=["tools"])
    await play.update(THREAD, {"messages": [ToolMessage("100", tool_call_id="call 0.0", id="tool call 0.0")]}, "tools")
    await play.invoke(None)


@scenario(agent)
async def what_is_streamed(play: Play) -> None:
    await play.stream({"messages": [HumanMessage("add up", id="h")]}, stream_mode=["values", "updates"])
    await play.stream(None, await play.before("model"), stream_mode=["checkpoints", "values"])


# plain steps


class Log(TypedDict, total=False):
    n: int
    log: Annotated[list[str], operator.add]
    picked: Any


def steps(saver: Any, *, stops: bool = False) -> Any:
    def step(name: str) -> Any:
        return lambda state: {"n": state.get("n", 0) + 1, "log": [f"{name}{state.get('n', 0)}"]}

    builder = StateGraph(Log)
    for name, following in [("a", "b"), ("b", "c"), ("c", END)]:
        builder.add_node(name, step(name))
        builder.add_edge(name, following)
    builder.add_edge(START, "a")
    return builder.compile(checkpointer=saver)


@scenario(steps)
async def time_travel(play: Play) -> None:
    await play.invoke({"n": 0})
    await play.invoke({"n": 10})
    for nodes in [("b",), ("c",), ("a",), ("__start__",), ()]:
        await play.invoke(None, await play.before(*nodes))
    old = (await play.history())[-3:][0].config
    await play.invoke({"n": 20}, old)
    await play.invoke({"n": 30})


@scenario(steps)
async def updates_of_the_newest_and_of_old_checkpoints(play: Play) -> None:
    await play.update(THREAD, {"n": 1, "log": ["by hand"]}, "__start__")
    await play.invoke(None)
    await play.update(THREAD, {"n": 5, "log": ["after"]})
    await play.update(await play.before("c"), {"n": 100, "log": ["forked"]}, "a")
    await play.invoke(None)
    fork = await play.update(await play.before("b"), {"log": ["inferred"]})
    await play.invoke(None, fork)
    await play.update(THREAD, {"n": 7}, "__input__")
    await play.update(THREAD, None, END)
    await play.invoke({"n": 9})


@scenario(steps)
async def copies_of_checkpoints(play: Play) -> None:
    await play.invoke({"n": 0})
    await play.update(await play.before("c"), None, "__copy__")
    await play.invoke(None)
    await play.update(await play.before("b"), [({"n": 50, "log": ["edited copy"]}, "a")], "__copy__")
    await play.invoke(None)
    for found in await play.history():
        if found.next:
            await play.update(found.config, None, "__copy__")
    first = (await play.history())[-1].config
    await play.update(first, None, "__copy__")
    await play.invoke(None)


@scenario(steps)
async def forks_of_forks(play: Play) -> None:
    await play.invoke({"n": 0})
    config = await play.before("b")
    for n in range(4):
        copy = await play.update(config, None, "__copy__")
        config = await play.update(copy, {"n": n, "log": [f"fork {n}"]}, "a")
        await play.update(config, {"log": [f"side {n}"]}, "b")
    await play.invoke(None, config)
    for found in (await play.history())[::3]:
        await play.invoke(None, found.config)


@scenario(steps)
async def several_updates_at_once(play: Play) -> None:
    await play.bulk_update(
        THREAD,
        [
            [StateUpdate({"n": 1, "log": ["in"]}, "__start__")],
            [StateUpdate({"log": ["one"]}, "a"), StateUpdate({"log": ["two"], "picked": {"deep": [1]}}, "b")],
            [StateUpdate({"log": ["three"]}, "b")],
        ],
    )
    await play.invoke(None)


@scenario(steps)
async def runs_with_ids_and_metadata(play: Play) -> None:
    for n in range(2):
        config = {
            "configurable": {"thread_id": "t", "user": f"u{n}", "n": n, "nested": {"left": "out"}},
            "metadata": {"run_id": f"run {n}", "assistant": "a", "score": 0.5},
            "tags": ["x"],
        }
        await play.invoke({"n": n}, config)


# fan-out


def fan_out(saver: Any) -> Any:
    def split(state: Log) -> list[Send]:
        return [Send("work", {"n": n, "log": [], "picked": (n, "x" * n)}) for n in range(state["n"])]

    def work(state: Log) -> dict[str, Any]:
        return {"log": [f"work {state['n']} {len(state['picked'][1])}"]}

    def gather(state: Log) -> Any:
        if state["n"] > 3:
            return Command(update={"n": 2, "log": ["again"]}, goto=[Send("work", {"n": 77, "picked": (7, "")}), "start"])
        return {"log": ["done"]}

    builder = StateGraph(Log)
    builder.add_node("start", lambda state: {"log": ["start"]})
    builder.add_node("work", work)
    builder.add_node("late", lambda state: {"log": [f"late {len(state['log'])}"]}, defer=True)
    builder.add_node("gather", gather, destinations=("work", "start"))
    builder.add_edge(START, "start")
    builder.add_conditional_edges("start", split, ["work"])
    builder.add_edge("work", "gather")
    builder.add_edge("gather", "late")
    return builder.compile(checkpointer=saver)


@scenario(fan_out)
async def a_fan_out_with_send(play: Play) -> None:
    await play.invoke({"n": 12})
    await play.invoke({"n": 1})
    waiting = await play.before(*["work"] * 12)
    await play.invoke(None, waiting)
    await play.update(waiting, None, "__copy__")
    await play.invoke(None)


# interrupts


def asking(saver: Any) -> Any:
    def twice(state: Log) -> dict[str, Any]:
        first = interrupt({"question": "first?", "n": state["n"]})
        second = interrupt(f"second, after {first}?")
        return {"log": [f"{first} {second}"]}

    def beside(state: Log) -> dict[str, Any]:
        return {"log": [f"beside {interrupt('beside?')}"]}

    builder = StateGraph(Log)
    builder.add_node("twice", twice)
    builder.add_node("beside", beside)
    builder.add_node("quiet", lambda state: {"log": ["quiet"]})
    builder.add_node("end", lambda state: {"log": ["end"]})
    for name in ("twice", "beside", "quiet"):
        builder.add_edge(START, name)
    builder.add_edge(["twice", "beside", "quiet"], "end")
    return builder.compile(checkpointer=saver)


@scenario(asking)
async def several_interrupts_in_parallel_tasks(play: Play) -> None:
    await play.invoke({"n": 1})
    for _ in range(3):
        asked = {found.id: f"re: {found.value}" for found in (await play.state()).interrupts}
        await play.invoke(Command(resume=asked))
    await play.invoke({"n": 2})
    by_value = {str(found.value): found.id for found in (await play.state()).interrupts}
    await play.invoke(Command(resume={by_value["beside?"]: "only this one"}))
    await play.invoke(Command(resume="the rest"))
    await play.invoke(Command(resume="the last", update={"picked": "with an update"}))


@scenario(asking)
async def an_interrupt_asked_again_after_time_travel(play: Play) -> None:
    await play.invoke({"n": 1})
    asked = {found.id: "x" for found in (await play.state()).interrupts}
    await play.invoke(Command(resume=asked))
    await play.invoke(Command(resume="y"))
    paused = await play.before("twice")
    await play.invoke(None, paused)
    asked = {found.id: "other" for found in (await play.state()).interrupts}
    await play.invoke(Command(resume=asked))
    await play.update(paused, {"log": ["skipped"]}, "quiet")
    await play.invoke(None)


# subgraphs


def nested(own: bool | None) -> Callable[[Any], Any]:
    def build(saver: Any) -> Any:
        def ask(state: Log) -> dict[str, Any]:
            return {"log": [f"asked {interrupt('inside?')}"]}

        leaf = StateGraph(Log)
        leaf.add_node("leaf", lambda state: {"log": [f"leaf {len(state['log'])}"]})
        leaf.add_edge(START, "leaf")

        inner = StateGraph(Log)
        inner.add_node("first", lambda state: {"log": ["first"], "picked": {"inner": len(state["log"])}})
        inner.add_node("leafs", leaf.compile(checkpointer=own))
        inner.add_node("ask", ask)
        inner.add_edge(START, "first")
        inner.add_edge("first", "leafs")
        inner.add_edge("leafs", "ask")

        outer = StateGraph(Log)
        outer.add_node("before", lambda state: {"n": state["n"] + 1, "log": ["before"]})
        outer.add_node("inner", inner.compile(checkpointer=own))
        outer.add_node("after", lambda state: {"log": ["after"]})
        outer.add_edge(START, "before")
        outer.add_edge("before", "inner")
        outer.add_edge("inner", "after")
        return outer.compile(checkpointer=saver)

    return build


async def through_a_subgraph(play: Play) -> None:
    for turn in range(2):
        await play.invoke({"n": turn, "log": [f"turn {turn}"]})
        await play.invoke(Command(resume=f"answer {turn}"))
    await play.invoke(None, await play.before("inner"))
    await play.invoke(Command(resume="another answer"))
    await play.invoke({"n": 5, "log": []})
    (task,) = (await play.state()).tasks
    await play.update(task.state.config, {"log": ["put in from outside"]}, "first")
    await play.invoke(Command(resume="after the update"))


@scenario(nested(None))
async def a_subgraph_with_an_interrupt(play: Play) -> None:
    await through_a_subgraph(play)


@scenario(nested(True))
async def a_subgraph_with_a_memory_of_its_own(play: Play) -> None:
    await through_a_subgraph(play)


def to_parent(saver: Any) -> Any:
    def hand_over(state: Log) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="landing", update={"log": ["handed over"], "picked": state["n"]})

    inner = StateGraph(Log)
    inner.add_node("hand_over", hand_over)
    inner.add_edge(START, "hand_over")

    outer = StateGraph(Log)
    outer.add_node("inner", inner.compile(), destinations=("landing",))
    outer.add_node("landing", lambda state: {"log": [f"landed {state['picked']}"]})
    outer.add_conditional_edges(START, lambda state: [Send("inner", {"n": n, "log": []}) for n in range(state["n"])])
    return outer.compile(checkpointer=saver)


@scenario(to_parent)
async def a_command_to_the_parent_graph(play: Play) -> None:
    await play.invoke({"n": 1})
    await play.invoke(None, (await play.history())[-1].config)


# failures


def failing(saver: Any) -> Any:
    def fail(state: Log) -> dict[str, Any]:
        if state["n"] < 3:
            raise RuntimeError(f"not at {state['n']}")
        return {"log": ["at last"]}

    tries = {"left": 1}

    def flaky(state: Log) -> dict[str, Any]:
        tries["left"] -= 1
        if tries["left"] >= 0:
            raise ValueError("once")
        return {"log": ["flaky"]}

    builder = StateGraph(Log)
    builder.add_node("fine", lambda state: {"log": ["fine"]})
    builder.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ValueError))
    builder.add_node("fail", fail)
    builder.add_edge(START, "fine")
    builder.add_edge("fine", "flaky")
    builder.add_edge("flaky", "fail")
    return builder.compile(checkpointer=saver)


@scenario(failing)
async def a_node_that_fails_and_goes_on_later(play: Play) -> None:
    assert isinstance(await play.invoke({"n": 1}), RuntimeError)
    assert isinstance(await play.invoke(None), RuntimeError)
    await play.update(THREAD, {"n": 3}, "flaky")
    await play.invoke(None)


# functions


def functions(saver: Any) -> Any:
    @task
    def double(n: int) -> dict[str, Any]:
        return {"doubled": n * 2}

    @entrypoint(checkpointer=saver)
    def flow(n: int, *, previous: Any = None) -> Any:
        doubled = [double(n + k) for k in range(3)]
        answer = interrupt([found.result() for found in doubled])
        return entrypoint.final(value={"answer": answer, "before": previous}, save={"n": n, "kept": answer})

    return flow


@scenario(functions)
async def the_functional_api(play: Play) -> None:
    for n in range(3):
        await play.invoke(n)
        await play.invoke(Command(resume=f"answer {n}"))
    await play.invoke(None, (await play.history())[-2:][0].config)


# DeltaChannel


def extend(before: list[str], batches: Any) -> list[str]:
    return [*before, *(entry for batch in batches for entry in batch)]


class Deltas(TypedDict, total=False):
    n: int
    often: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=2)]
    seldom: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=7)]
    messages: Annotated[list[AnyMessage], DeltaChannel(lambda had, got: merged(had, got), snapshot_frequency=5)]


def merged(before: Any, batches: Any) -> Any:
    for batch in batches:
        before = add_messages(before, batch)
    return before


def deltas(saver: Any) -> Any:
    def one(state: Deltas) -> dict[str, Any]:
        n = state.get("n", 0)
        return {"n": n + 1, "often": [f"one {n}"], "messages": [AIMessage(f"said {n} " * 20, id=f"ai {n}")]}

    def two(state: Deltas) -> dict[str, Any]:
        if state.get("n") == 4:
            return {"often": Overwrite(["over"]), "seldom": [f"two {len(state['often'])}"]}
        return {"seldom": [f"two {len(state['often'])}", "and"]}

    def beside(state: Deltas) -> dict[str, Any]:
        return {"seldom": [f"beside {state.get('n')}"]} if state.get("n", 0) % 2 else {}

    builder = StateGraph(Deltas)
    builder.add_node("one", one)
    builder.add_node("two", two)
    builder.add_node("beside", beside)
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    builder.add_edge("one", "beside")
    return builder.compile(checkpointer=saver)


@scenario(deltas)
async def delta_channels_over_many_turns(play: Play) -> None:
    for n in range(6):
        await play.invoke({"messages": [HumanMessage(f"turn {n}", id=f"h{n}")]})
    await play.update(THREAD, {"often": ["by hand"]}, "one")
    await play.invoke(None)
    await play.update(THREAD, {"seldom": Overwrite(["reset"])}, "two")
    await play.invoke({"messages": [HumanMessage("more", id="more")]})


@scenario(deltas)
async def delta_channels_through_forks_and_copies(play: Play) -> None:
    for n in range(4):
        await play.invoke({"often": [f"turn {n}"]})
    for found in (await play.history())[1:8:2]:
        copy = await play.update(found.config, None, "__copy__")
        await play.invoke(None, copy)
    old = await play.before("one", skip=6)
    fork = await play.update(old, {"often": ["forked"], "seldom": ["forked"]}, "one")
    await play.invoke(None, fork)
    await play.invoke({"often": ["on the fork"]})
    await play.invoke(None, old)
    for found in await play.history():
        await play.state(found.config)


# --- side by side -----------------------------------------------------------------------------------------------------


def other_process(url: str, prefix: str, opened: list[Any]) -> Callable[[], Any]:
    """A saver with nothing in memory for every move of a script."""

    def open_saver() -> Any:
        opened.append(RedisSaver(url, prefix=prefix))
        return opened[-1]

    return open_saver


@functools.cache
def in_memory(name: str, awaited: bool, durability: str) -> list[tuple[str, Any]]:
    build, script = SCENARIOS[name]
    memory = InMemorySaver()
    return asyncio.run(Play(build, lambda: memory, awaited, durability).perform(script))


WAYS = [("cold", "sync"), *((surface, durability) for surface in ("async", "sync") for durability in DURABILITIES)]
PLAYED = [
    (name, *way) if way == WAYS[-3] or way == WAYS[n % len(WAYS)] else rare(name, *way)
    for n, name in enumerate(SCENARIOS)
    for way in WAYS
]
"""Each scenario sync with durability "sync", and in one other way in turn; `make soak` plays it in every way."""


@pytest.mark.parametrize(("name", "surface", "durability"), PLAYED)
def test_same_results_state_and_history_as_in_memory(url: str, prefix: str, name: str, surface: str, durability: str) -> None:
    build, script = SCENARIOS[name]
    opened = [RedisSaver(url, prefix=prefix)]
    on_redis = other_process(url, prefix, opened) if surface == "cold" else lambda: opened[0]
    play = Play(build, on_redis, surface == "async", durability)

    async def perform() -> list[tuple[str, Any]]:
        try:
            return await play.perform(script)
        finally:
            for saver in opened:
                await saver.aclose()

    found = asyncio.run(perform())
    expected = in_memory(name, surface == "async", durability)
    for n, (told, telling) in enumerate(zip(expected, found, strict=True)):
        assert_same({f"{n}: {told[0]}": told[1]}, {f"{n}: {telling[0]}": telling[1]})


# --- pruned, copied, deleted under a graph ----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_graph_with_delta_channels_goes_on_after_every_pruning(
    saver: RedisSaver, memory: InMemorySaver, durability: str
) -> None:
    for n in range(14):
        given = {"often": [f"{n}"], "messages": [HumanMessage(f"turn {n}", id=f"h{n}")]}
        results = [deltas(one).invoke(given, THREAD, durability=durability) for one in (saver, memory)]
        assert results[0] == results[1]
        state = deltas(saver).get_state(THREAD)
        saver.prune(["t"])
        assert deltas(saver).get_state(THREAD).values == state.values
        if n % 3 == 0:
            for one in (saver, memory):
                deltas(one).update_state(THREAD, {"seldom": [f"by hand {n}"]}, as_node="two")
            saver.prune(["t"], strategy="keep_latest")
            assert deltas(saver).get_state(THREAD).values["seldom"] == deltas(memory).get_state(THREAD).values["seldom"]
    assert len(list(saver.list(THREAD))) < len(list(memory.list(THREAD)))


def test_a_pruned_thread_shows_what_can_be_rebuilt_and_nothing_else(saver: RedisSaver) -> None:
    graph = deltas(saver)
    for n in range(11):
        graph.invoke({"often": [f"{n}"], "messages": [HumanMessage(f"turn {n}", id=f"h{n}")]}, THREAD)
    before = {id_of(found.config): found.values for found in graph.get_state_history(THREAD)}
    saver.prune(["t"])
    assert [id_of(found.config) for found in saver.list(THREAD)] == [max(before)]
    assert {id_of(found.config): found.values for found in graph.get_state_history(THREAD)} == {
        max(before): before[max(before)]
    }


@pytest.mark.parametrize("own", [None, True])
async def test_an_interrupt_inside_a_subgraph_is_answered_after_pruning(asaver: RedisSaver, own: bool | None) -> None:
    graph = nested(own)(asaver)
    await graph.ainvoke({"n": 0, "log": []}, THREAD)
    await graph.ainvoke(Command(resume="x"), THREAD)
    await graph.ainvoke({"n": 1, "log": ["again"]}, THREAD)
    before = await graph.aget_state(THREAD)
    await asaver.aprune(["t"])
    after = await graph.aget_state(THREAD)
    assert (after.values, after.next, after.interrupts) == (before.values, before.next, before.interrupts)
    result = await graph.ainvoke(Command(resume="answer"), THREAD)
    assert result["log"][-2:] == ["asked answer", "after"]


def test_a_copied_thread_is_resumed_apart_from_its_source(saver: RedisSaver) -> None:
    graph = nested(None)(saver)
    copy = {"configurable": {"thread_id": "copy"}}
    graph.invoke({"n": 0, "log": []}, THREAD)
    saver.copy_thread("t", "copy")
    assert graph.invoke(Command(resume="copied"), copy)["log"][-2:] == ["asked copied", "after"]
    assert graph.get_state(THREAD).next == ("inner",)
    assert graph.invoke(Command(resume="source"), THREAD)["log"][-2:] == ["asked source", "after"]
    assert graph.get_state(copy).values["log"][-2:] == ["asked copied", "after"]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("own", [None, True])
def test_a_deleted_thread_is_new_for_the_next_run(saver: RedisSaver, own: bool | None, durability: str) -> None:
    graph = nested(own)(saver)
    logs = []
    for n in range(3):
        graph.invoke({"n": n, "log": [f"{n}"]}, THREAD, durability=durability)
        logs.append(graph.invoke(Command(resume="yes"), THREAD, durability=durability)["log"])
        saver.delete_thread("t")
        assert graph.get_state(THREAD).values == {}
        assert list(graph.get_state_history(THREAD)) == []
    assert [log[0] for log in logs] == ["0", "1", "2"]
    assert len({len(log) for log in logs}) == 1


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_run_that_goes_on_after_its_thread_was_deleted_does_not_bring_it_back(saver: RedisSaver, durability: str) -> None:
    inside, deleted = threading.Event(), threading.Event()

    def wait(state: Log) -> dict[str, Any]:
        inside.set()
        assert deleted.wait(30)
        return {"log": ["late"]}

    builder = StateGraph(Log)
    builder.add_node("first", lambda state: {"log": ["first"]})
    builder.add_node("wait", wait)
    builder.add_node("last", lambda state: {"log": ["last"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "wait")
    builder.add_edge("wait", "last")
    graph = builder.compile(checkpointer=saver)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            graph.invoke({"n": 0, "log": []}, THREAD, durability=durability)
        except BaseException as failure:  # noqa: BLE001 - looked at in the test's own thread
            failures.append(failure)

    running = threading.Thread(target=run)
    running.start()
    assert inside.wait(30)
    while not any(found.next == ("wait",) for found in graph.get_state_history(THREAD)):
        pass  # with "async" the checkpoint this step began from may still be on its way
    began = time.monotonic()
    while time.monotonic() - began < 0.003:
        pass  # what a deletion refuses that is younger than a millisecond has its own test
    saver.delete_thread("t")
    deleted.set()
    running.join(30)
    assert [type(failure) for failure in failures] == [ThreadDeletedError]
    assert graph.get_state(THREAD).values == {}
    assert list(saver.list(None)) == []


# --- loops, threads, processes ----------------------------------------------------------------------------------------

APPLICATION = """
import os
from typing import Annotated
import operator
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from langgraph_redis_state import RedisSaver

class State(TypedDict):
    log: Annotated[list, operator.add]

def ask(state):
    return {"log": ["sync " + interrupt("?")]}

async def aask(state):
    return {"log": ["async " + interrupt("?")]}

from langgraph._internal._runnable import RunnableCallable

builder = StateGraph(State)
builder.add_node("ask", RunnableCallable(ask, aask))
builder.add_edge(START, "ask")
saver = RedisSaver(os.environ["APPLICATION_REDIS"], prefix=os.environ["APPLICATION_PREFIX"])
graph = builder.compile(checkpointer=saver)
"""


@pytest.fixture
def application(url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that builds its graph when it is imported, as applications do."""
    monkeypatch.setenv("APPLICATION_REDIS", url)
    monkeypatch.setenv("APPLICATION_PREFIX", prefix)
    path = tmp_path / "application_under_test.py"
    path.write_text(APPLICATION)
    spec = importlib.util.spec_from_file_location("application_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    module.saver.close()


def test_a_graph_built_at_import_time_serves_two_event_loops(application: Any) -> None:
    graph = application.graph
    paused = asyncio.run(graph.ainvoke({"log": []}, THREAD))
    assert [asked.value for asked in paused["__interrupt__"]] == ["?"]
    assert asyncio.run(graph.ainvoke(Command(resume="yes"), THREAD)) == {"log": ["async yes"]}


def test_a_graph_built_at_import_time_is_paused_sync_and_resumed_async_and_back(application: Any) -> None:
    graph = application.graph
    graph.invoke({"log": []}, THREAD)
    assert asyncio.run(graph.ainvoke(Command(resume="1"), THREAD)) == {"log": ["async 1"]}
    asyncio.run(graph.ainvoke({"log": []}, THREAD))
    assert graph.invoke(Command(resume="2"), THREAD) == {"log": ["async 1", "sync 2"]}

    async def both() -> Any:
        await graph.ainvoke({"log": []}, THREAD)
        return await asyncio.to_thread(graph.invoke, Command(resume="3"), THREAD)

    assert asyncio.run(both()) == {"log": ["async 1", "sync 2", "sync 3"]}


def test_a_graph_built_at_import_time_serves_many_threads_and_loops_at_once(application: Any) -> None:
    graph, results = application.graph, {}
    start = threading.Barrier(8)

    def body(n: int) -> None:
        own = at(f"thread {n}", None)
        start.wait()
        with suppress(BaseException):  # a result that is missing is the failure
            for _ in range(4):
                if n % 2:
                    asyncio.run(graph.ainvoke({"log": []}, own))
                    results[n] = asyncio.run(graph.ainvoke(Command(resume=f"{n}"), own))
                else:
                    graph.invoke({"log": []}, own)
                    results[n] = graph.invoke(Command(resume=f"{n}"), own)

    threads = [threading.Thread(target=body, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: {"log": [f"{'async' if n % 2 else 'sync'} {n}"] * 4} for n in range(8)}


async def test_many_runs_of_one_loop_on_threads_of_their_own(asaver: RedisSaver) -> None:
    graph = steps(asaver)
    results = await asyncio.gather(*(graph.ainvoke({"n": n}, at(f"t{n}", None)) for n in range(30)))
    assert [result["n"] for result in results] == [n + 3 for n in range(30)]
    assert {len(await ids(asaver, at(f"t{n}"))) for n in range(30)} == {5}


def test_a_saver_given_where_the_graph_is_called_works_as_one_given_to_compile(saver: RedisSaver) -> None:
    assert isinstance(saver, BaseCheckpointSaver)
    graph = steps(saver).with_config(configurable={"thread_id": "t"})
    assert graph.invoke({"n": 0})["n"] == 3
    assert len(list(saver.list(THREAD))) == 5
