"""Real graphs and their scripts, to be played on two savers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import Command, Overwrite, RetryPolicy, Send, StateUpdate, interrupt
from playing import THREAD, Play, Script
from typing_extensions import TypedDict

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
