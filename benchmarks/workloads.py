"""What is stored: deterministic states, and the calls LangGraph makes for them. The same steps for every candidate.

A workload gives states, step by step; a `Thread` turns a state into the arguments of `put` and `put_writes`, as LangGraph's
loop does, with the versions of the saver it is for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint

NAMES = ["ada", "grace", "alan", "edsger", "barbara", "donald", "tony", "niklaus", "john", "leslie"]


class Prose:
    """Text of random words from a skewed vocabulary: it compresses somewhat, as language does, and never repeats."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = random.Random(1)
        self._words = ["".join(letters.choices("etaoinshrdlucmwfgy", k=letters.randint(2, 10))) for _ in range(4000)]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]

    def words(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, self._weights, k=count))

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


def checkpoint_id(number: float) -> str:
    """The UUIDv6 of the `number`-th millisecond of a fixed day: ids sort as they were made."""
    ticks = 0x1F0_0000_0000_0000 + int(number * 10_000)
    low = random.Random(number).getrandbits(62)
    return str(UUID(int=(ticks >> 12) << 80 | 6 << 76 | (ticks & 0x0FFF) << 64 | 2 << 62 | low))


@dataclass
class State:
    """One step: the values of all channels, those that changed, what each task wrote, and the states of the subgraphs that
    tasks ran, one for each task or none."""

    values: dict[str, Any]
    changed: Sequence[str]
    writes: Sequence[Sequence[tuple[str, Any]]] = ()
    subgraphs: Sequence[State] = ()


def message(prose: Prose, number: int, words: int = 40) -> Any:
    """Alternately of a user and of a model, with the metadata that models send along."""
    if number % 2 == 0:
        return HumanMessage(content=prose.words(prose.number(words // 2, words)), id=prose.uuid())
    tokens = prose.number(100, 4000)
    return AIMessage(
        content=prose.words(prose.number(words, 2 * words)),
        id=f"run-{prose.uuid()}-0",
        response_metadata={"model_name": "some-model-2026", "finish_reason": "stop", "system_fingerprint": "fp_5d58a6"},
        usage_metadata={"input_tokens": tokens, "output_tokens": 80, "total_tokens": tokens + 80},
    )


def chat(length: int, seed: int = 7, begin: int = 0) -> Iterator[State]:
    """(a) One message, one checkpoint, one write each. `begin`: messages that the first checkpoint already holds."""
    prose = Prose(seed)
    messages = [message(prose, number) for number in range(begin)]
    for number in range(begin, length):
        messages = [*messages, message(prose, number)]
        yield State({"messages": messages}, ["messages"], [[("messages", messages[-1])]])


def agent(steps: int, seed: int = 11) -> Iterator[State]:
    """(b) Ten channels, of which four change; in every fourth step 20 tasks answer a fan-out of `Send`s, each with a subgraph
    that keeps a checkpoint in a namespace of its own."""
    prose = Prose(seed)
    messages: list[Any] = []
    findings: list[dict[str, Any]] = []
    values: dict[str, Any] = {
        "plan": [prose.words(12) for _ in range(8)],
        "profile": {"name": "ada", "language": "en", "notes": prose.words(150)},
        "instructions": prose.words(600),
        "budget": 100,
        "topic": prose.words(8),
        "scores": dict.fromkeys(NAMES, 0.5),
        "sources": [],
        "step": 0,
    }
    for step in range(steps):
        call = f"call_{prose.uuid()}"
        asked = AIMessage(
            content="",
            id=f"run-{prose.uuid()}-0",
            tool_calls=[{"name": "search", "args": {"query": prose.words(6)}, "id": call}],
        )
        answer = ToolMessage(content=prose.words(120), tool_call_id=call, id=prose.uuid(), name="search")
        messages = [*messages, asked, answer]
        writes: list[list[tuple[str, Any]]] = [[("messages", asked), ("messages", answer), ("step", step)]]
        changed = ["messages", "step", "sources", "scores"]
        subgraphs: list[State] = []
        if step % 4 == 3:
            found = [{"id": number, "title": prose.words(8), "text": prose.words(60)} for number in range(20)]
            findings = [*findings, *found]
            writes = [[("findings", [each])] for each in found]
            for each in found:
                task = {"title": each["title"], "draft": each["text"], "topic": values["topic"]}
                subgraphs.append(State(task, list(task), [[("draft", each["text"])]]))
            changed.append("findings")
        values = {
            **values,
            "messages": messages,
            "findings": findings,
            "step": step,
            "sources": [*values["sources"], f"https://example.org/{prose.uuid()}"],
            "scores": {**values["scores"], NAMES[step % 10]: step / 7},
        }
        yield State(values, changed, writes, subgraphs)


def deep_agent(steps: int, seed: int = 13) -> Iterator[State]:
    """(c) 200 files of about 2 KB in a dict; each step edits a line of one of them and adds a message."""
    prose = Prose(seed)
    files = {f"src/{prose.words(1)}/{number:03d}.py": [prose.words(10) for _ in range(40)] for number in range(200)}
    names = sorted(files)
    messages: list[Any] = []
    for number in range(steps):
        name = names[prose.number(0, len(names) - 1)]
        lines = list(files[name])
        lines[prose.number(0, len(lines) - 1)] = prose.words(10)
        files = {**files, name: lines}
        messages = [*messages, message(prose, number)]
        yield State(
            {"files": {path: "\n".join(text) for path, text in files.items()}, "messages": messages},
            ["files", "messages"],
            [[("files", {name: "\n".join(lines)}), ("messages", messages[-1])]],
        )


def document(steps: int, seed: int = 17, size: int = 5_000_000) -> Iterator[State]:
    """(d) A document of 5 MB that does not change, beside a chat."""
    prose = Prose(seed)
    part = prose.words(20_000)
    text = "\n".join(f"{number} {part}" for number in range(1 + size // len(part)))[:size]
    for number, state in enumerate(chat(steps, seed)):
        changed = ["document", "messages"] if number == 0 else ["messages"]
        yield State({**state.values, "document": text}, changed, state.writes)


def window(steps: int, seed: int = 19, width: int = 50) -> Iterator[State]:
    """(e) The last 50 messages: each step appends one and drops one."""
    for state in chat(steps + width, seed, begin=width):
        yield State({"messages": state.values["messages"][-width:]}, ["messages"], state.writes)


def counter(steps: int, seed: int = 23) -> Iterator[State]:
    """A state of constant size, all of it small: what a history costs when hardly anything changes."""
    prose = Prose(seed)
    notes = prose.words(300)
    for step in range(steps):
        yield State({"notes": notes, "count": step}, ["notes", "count"] if step == 0 else ["count"], [[("count", step)]])


@dataclass
class Call:
    """The arguments of one `put`, of the `put_writes` that follow it, and the steps of subgraphs in between."""

    config: Any
    checkpoint: Any
    metadata: Any
    versions: dict[str, Any]
    writes: list[tuple[Any, str]] = field(default_factory=list)
    subgraphs: list[tuple[Thread, State]] = field(default_factory=list)

    @property
    def put(self) -> tuple[Any, Any, Any, Any]:
        return self.config, self.checkpoint, self.metadata, self.versions


class Thread:
    """One thread of one saver, or one namespace of it: knows the parent of the next checkpoint and the versions of its
    channels. `parents`: the checkpoint of the graph above, for which a subgraph runs."""

    def __init__(
        self, saver: Any, name: str, first_id: float = 0, namespace: str = "", parents: dict[str, str] | None = None
    ) -> None:
        self._saver = saver
        self.name = name
        self._namespace = namespace
        self._parents = parents or {}
        self._versions: dict[str, Any] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._next = first_id
        self.config: Any = self.latest
        self.ids: list[str] = []
        self._run = str(UUID(int=random.Random(name).getrandbits(128), version=4))

    def call(self, state: State) -> Call:
        new = {}
        for channel in state.changed:
            new[channel] = self._saver.get_next_version(self._versions.get(channel), None)
        seen = dict(self._versions)
        self._versions = {**self._versions, **new}
        self._seen = {**self._seen, "agent": seen}
        number = self._next
        self._next += 1
        checkpoint = {
            **empty_checkpoint(),
            "id": checkpoint_id(number),
            "ts": f"2026-01-01T00:00:00.{int(number) % 1_000_000:06d}+00:00",
            "channel_values": dict(state.values),
            "channel_versions": dict(self._versions),
            "versions_seen": {node: dict(each) for node, each in self._seen.items()},
            "updated_channels": sorted(state.changed),
        }
        metadata = {"source": "loop", "step": int(number), "parents": self._parents, "run_id": self._run}
        stored = self._config(checkpoint_id=checkpoint["id"])
        call = Call(self.config, checkpoint, metadata, new)
        for task, write in enumerate(state.writes):
            task_id = str(UUID(int=int(number * 1000) + task, version=5))
            call.writes.append((write, task_id))
            if state.subgraphs:
                above, id_ = {self._namespace: checkpoint["id"]}, number + (task + 1) / 100
                call.subgraphs.append((Thread(self._saver, self.name, id_, f"work:{task_id}", above), state.subgraphs[task]))
        self.config = stored
        self.ids.append(checkpoint["id"])
        return call

    def via(self, saver: Any) -> Thread:
        """The same thread, from here on through another saver of the same kind."""
        self._saver = saver
        return self

    def _config(self, **more: str) -> Any:
        return {"configurable": {"thread_id": self.name, "checkpoint_ns": self._namespace, **more}}

    @property
    def latest(self) -> Any:
        return self._config()

    def at(self, position: int) -> Any:
        return self._config(checkpoint_id=self.ids[position])

    def play(self, steps: Iterator[State]) -> None:
        """All steps, not measured."""
        for state in steps:
            call = self.call(state)
            self._saver.put(*call.put)
            for subgraph, inner in call.subgraphs:
                subgraph.play(iter([inner]))
            for writes, task in call.writes:
                self._saver.put_writes(self.config, writes, task)
