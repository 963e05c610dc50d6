"""Threads in every state that `why` tells apart, each made by a real graph, and stored once for all tests of `lgrs`."""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import ormsgpack
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from shapes import at, checkpoint

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys

THREADS = (
    *("asked", "failed", "killed-middle", "killed-start", "killed-last", "killed-answer", "killed-inside"),
    *("forked", "called", "chat", "damaged", "planted", "sends"),
)
"""All but `deleted`."""


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]


def says(word: str) -> Callable[[State], State]:
    return lambda state: {"log": [word]}


def dies(state: State) -> State:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fails(state: State) -> State:
    raise ValueError("the printer is on fire")


def asks(state: State) -> State:
    return {"log": [interrupt("Shall I pay 653.70 EUR?")]}


def beside(one: Any, other: Any) -> StateGraph[Any]:
    """plan, then `work` and `draft` in one step, then `settle`."""
    builder = StateGraph(State).add_node("plan", says("planned")).add_node("work", one).add_node("draft", other)
    builder.add_node("settle", says("settled")).add_edge(START, "plan").add_edge("plan", "work").add_edge("plan", "draft")
    return builder.add_edge(["work", "draft"], "settle")


def killed(url: str, prefix: str, run: Callable[[RedisSaver], Any]) -> None:
    """Runs something in a process of its own that is killed by SIGKILL on its way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: the child uses none of them
        pid = os.fork()
    if pid == 0:
        try:
            with RedisSaver(url, prefix=prefix) as saver:
                run(saver)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"


class DiesAt(RedisSaver):
    """Kills its process instead of storing the checkpoint of a step."""

    step = 2

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata.get("step") == self.step:
            while len({write.task_id for write in self.writes(config["configurable"]["thread_id"])}) < 2:
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return super().put(config, checkpoint, metadata, new_versions)


def sync(builder: StateGraph[Any], saver: RedisSaver, given: Any, thread: str) -> Any:
    return builder.compile(checkpointer=saver).invoke(given, at(thread), durability="sync")


def fill(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user",)) as saver:
        sync(beside(asks, says("drafted")), saver, {"log": ["begin"]}, "asked")
        with contextlib.suppress(ValueError):
            sync(beside(_after("failed", saver, fails), says("drafted")), saver, {"log": ["begin"]}, "failed")
        _kill(url, prefix)
        forked = beside(says("worked"), says("drafted")).compile(checkpointer=saver)
        forked.invoke({"log": ["begin"]}, at("forked"))
        planned = next(each for each in forked.get_state_history(at("forked")) if set(each.next) == {"draft", "work"})
        saver.tag("forked", "planned", planned.config["configurable"]["checkpoint_id"])
        forked.invoke(None, forked.update_state(planned.config, {"log": ["changed"]}, as_node="plan"))
        inner = StateGraph(State).add_node("one", says("one")).add_node("two", says("two"))
        inner.add_edge(START, "one").add_edge("one", "two")
        outer = StateGraph(State).add_node("call", inner.compile()).add_node("end", says("end"))
        outer.add_edge(START, "call").add_edge("call", "end").compile(checkpointer=saver).invoke({"log": []}, at("called"))
        _chat(saver)
        _sends(saver)
        _damaged(saver, prefix, raw)
        _planted(url, prefix)
        sync(beside(says("worked"), says("drafted")), saver, {"log": ["begin"]}, "deleted")
        saver.delete_thread("deleted")


def _after(thread: str, saver: RedisSaver, then: Callable[[State], State], channel: str = "log") -> Callable[[State], State]:
    """A node that goes on when a pending write for this channel is stored: "log" is the result of its sibling."""

    def node(state: State) -> State:
        while not any(write.channel == channel for head in saver.heads([thread]) for write in head.writes):
            pass
        return then(state)

    return node


def _kill(url: str, prefix: str) -> None:
    def middle(saver: RedisSaver) -> None:
        sync(beside(_after("killed-middle", saver, dies), says("drafted")), saver, {"log": ["begin"]}, "killed-middle")

    def answer(saver: RedisSaver) -> None:
        def then(state: State) -> State:
            asks(state)
            return _after("killed-answer", saver, dies, "__resume__")(state)

        sync(beside(then, says("drafted")), saver, {"log": ["begin"]}, "killed-answer")
        sync(beside(then, says("drafted")), saver, Command(resume="yes"), "killed-answer")

    def inside(saver: RedisSaver) -> None:
        inner = StateGraph(State).add_node("one", says("one")).add_node("two", dies)
        inner.add_edge(START, "one").add_edge("one", "two")
        sync(StateGraph(State).add_node("call", inner.compile()).add_edge(START, "call"), saver, {"log": []}, "killed-inside")

    def last(_: RedisSaver) -> None:
        sync(beside(says("worked"), says("drafted")), DiesAt(url, prefix=prefix), {"log": ["begin"]}, "killed-last")

    killed(url, prefix, middle)
    killed(url, prefix, answer)
    killed(url, prefix, inside)
    killed(url, prefix, last)
    killed(url, prefix, lambda saver: sync(beside(dies, dies), saver, {"log": ["begin"]}, "killed-start"))


def _chat(saver: RedisSaver) -> None:
    """A conversation with a tool call that is answered, one that failed, and one that nobody answers; with all that could do
    harm to who looks at it."""
    calls = [
        {"name": "weather", "args": {"city": "Rome"}, "id": "1"},
        {"name": "stocks", "args": {"of": "ACME"}, "id": "2"},
        {"name": "never", "args": {}, "id": "3"},
    ]

    def answer(state: State) -> State:
        return {
            "messages": [
                AIMessage("Let me see.", tool_calls=calls, id="m2"),
                ToolMessage("21 degrees", tool_call_id="1", id="m3"),
                ToolMessage("no such share", tool_call_id="2", status="error", id="m4"),
                AIMessage([{"type": "text", "text": "It is warm."}, {"type": "image_url", "image_url": "http://x/i"}], id="m5"),
            ]
        }

    builder = StateGraph(State).add_node("answer", answer).add_edge(START, "answer")
    given = {"messages": [HumanMessage(f"Is it warm? {NASTY}", id="m1", name=NASTY)]}
    builder.compile(checkpointer=saver).invoke(given, at("chat", user="ada"))


NASTY = "\x1b]0;owned\x07\x1b[31m[bold]<script>alert(1)</script><img src=x onerror=alert(2)>\x9b2J\u202e"
"""Escapes of terminals, markup of rich and of HTML, and writing from right to left."""


def _sends(saver: RedisSaver) -> None:
    builder = StateGraph(State).add_node("fan", says("fan")).add_node("work", asks).add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: [Send("work", {"log": ["x" * 200]})] * 2, ["work"])
    sync(builder, saver, {"log": []}, "sends")


def _damaged(saver: RedisSaver, prefix: str, raw: Any) -> None:
    sync(beside(says("worked" * 300), says("drafted")), saver, {"log": ["begin"]}, "damaged")
    keys = ThreadKeys(prefix, b"damaged")
    name = max((each for each in raw.hkeys(keys.hash) if each[:1] == b"D"), key=lambda each: raw.hstrlen(keys.hash, each))
    content = raw.hget(keys.hash, name)
    raw.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))


MARK = "/tmp/lgrs-planted-record-was-run"


class Planting(JsonPlusSerializer):
    """Stores what runs a program when LangGraph's serializer loads it."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj == "plant":
            content = ormsgpack.packb(["os", "system", f"touch {MARK}"])
            return "msgpack", ormsgpack.packb([ormsgpack.Ext(0, content)])
        if obj == "pickle":
            return "pickle", b"cos\nsystem\n(S'touch " + MARK.encode() + b"'\ntR."
        return super().dumps_typed(obj)


def _planted(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, serde=Planting()) as planting:
        made = checkpoint({"evil": "plant", "pickled": "pickle", "fine": 1})
        planting.put(at("planted"), made, {"source": "loop", "step": 1}, made["channel_versions"])
