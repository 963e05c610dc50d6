"""why: what a thread waits for, and what an invoke would do. Pure functions over what verbs of the saver return.

Given are a checkpoint and its pending writes. LangGraph's own rules (langgraph/pregel/_algo.py, _loop.py, _task_status.py) say:

Rule 1: a node runs next if a channel that triggers it has a version that the node has not seen. In the name of a channel stands
        which node it triggers: `branch:to:<node>`, `join:<node>+<node>:<node>`, `__start__`; Sends stand in `__pregel_tasks`.
Rule 2: a task has finished if it stored an output. ERROR, INTERRUPT and RESUME are none; `__no_writes__` is one.
Rule 3: a question is open until the task has finished. An answer that was stored after it is used when the task runs again.
Rule 4: `invoke(None)` and `Command` run the tasks that have not finished, and use the outputs of the others. New input abandons
        the step: outputs that were stored beside the checkpoint are dropped.

A run that computes and one that died look the same from outside. What tells them apart is time: `ALIVE_SECONDS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from .. import StoredWrite
from .structural import Instance

ALIVE_SECONDS = 60.0
"""A run that has stored nothing for so long counts as dead. `--alive` changes it."""

NULL_TASK = "00000000-0000-0000-0000-000000000000"
ERROR, ERROR_SOURCE, INTERRUPT, RESUME, SENDS, START = (
    "__error__", "__error_source_node__", "__interrupt__", "__resume__", "__pregel_tasks", "__start__",
)  # fmt: skip
CONTROL = frozenset({ERROR, ERROR_SOURCE, INTERRUPT, RESUME})

Status = Literal["asks", "failed", "died", "running", "done", "unreadable"]
State = Literal["asks", "answered", "failed", "finished", "nothing stored"]


@dataclass(frozen=True, slots=True)
class Question:
    """What an interrupt asks. Its `id` is for `Command(resume={id: answer})`."""

    id: str
    value: Any


@dataclass(slots=True)
class Task:
    """A task of the step that is not complete."""

    node: str
    state: State = "nothing stored"
    task_id: str = ""
    stored_at: datetime | None = None
    questions: list[Question] = field(default_factory=list)
    error: Any = None
    channels: list[str] = field(default_factory=list)
    """Those it has written, in order."""
    has_output: bool = False


@dataclass(slots=True)
class Diagnosis:
    """What a thread, or a subgraph's namespace of it, waits for."""

    status: Status
    sentence: str
    since: datetime | None = None
    """When the last thing was stored."""
    tasks: list[Task] = field(default_factory=list)
    invoke: dict[str, str] = field(default_factory=dict)
    """What would happen, by what is passed to `invoke`."""
    refused: Literal["", "size", "conflict"] = ""
    notes: list[str] = field(default_factory=list)
    inside: dict[str, Diagnosis] = field(default_factory=dict)
    """Subgraphs that were called in this step and have not come back, by namespace."""

    @property
    def questions(self) -> list[Question]:
        return [question for task in self.tasks if task.state == "asks" for question in task.questions]


def diagnose(
    checkpoint: Mapping[str, Any],
    created_at: datetime,
    writes: Sequence[StoredWrite],
    now: datetime,
    *,
    inside: Mapping[str, Diagnosis] | None = None,
    alive: float = ALIVE_SECONDS,
) -> Diagnosis:
    """Says what a thread waits for.

    Args:
        checkpoint: LangGraph's, the newest of its namespace. Values may be missing (None) but for small ones.
        created_at: when the server stored it.
        writes: its pending writes.
        now: the server's clock.
        inside: what subgraphs of this step wait for, by namespace.
        alive: seconds since the last write after which a run counts as dead.
    """
    tasks = _tasks(checkpoint, writes)
    since = max([created_at, *(write.stored_at for write in writes), *_sinces(inside or {})])
    found = Diagnosis("done", "", since, tasks, inside=dict(inside or {}))
    quiet = now - since > timedelta(seconds=alive)
    if any(task.state == "failed" for task in tasks):
        found.status = "failed"
    elif any(task.state == "asks" for task in tasks) and not any(task.state == "answered" for task in tasks):
        found.status = "asks"
    elif tasks:
        found.status = "died" if quiet else "running"
    found.sentence = _sentence(found, now)
    found.invoke = _invoke(found)
    return found


def unreadable(problem: object) -> Diagnosis:
    """That of a thread whose newest checkpoint cannot be read."""
    return Diagnosis("unreadable", f"The newest checkpoint cannot be read: {problem}")


def _sinces(inside: Mapping[str, Diagnosis]) -> list[datetime]:
    return [each.since for each in inside.values() if each.since is not None]


# --- tasks ---


def next_nodes(checkpoint: Mapping[str, Any]) -> list[str]:
    """The nodes that run next, as far as the names of channels tell; those of Sends first, in their order."""
    values: Mapping[str, Any] = checkpoint.get("channel_values") or {}
    return [*sends(values), *(node for channel in sorted(values) for node in [_triggered(checkpoint, channel)] if node)]


def sends(values: Mapping[str, Any]) -> list[str]:
    """The nodes to which Sends are under way. One "(Send)" where they are not at hand."""
    if SENDS not in values:
        return []
    found = values[SENDS]
    if found is None:
        return ["(Send)"]
    if not isinstance(found, list):
        return []
    return [_send_node(each) for each in found]


def _send_node(send: Any) -> str:
    fields = send.fields if isinstance(send, Instance) else None
    node = fields[0] if isinstance(fields, list) and fields else fields.get("node") if isinstance(fields, dict) else None
    return node if isinstance(node, str) else "(Send)"


def _triggered(checkpoint: Mapping[str, Any], channel: str) -> str:
    """The node that a channel triggers now; "" if none."""
    versions, seen = checkpoint.get("channel_versions") or {}, checkpoint.get("versions_seen") or {}
    value = (checkpoint.get("channel_values") or {})[channel]
    version = versions.get(channel)
    if version is None:
        return ""
    if channel == START:  # with the functional API a node of any name takes the input
        taken = any(not _later(version, node.get(START)) for name, node in seen.items() if name != INTERRUPT)
        return "" if taken else START
    node = ""
    if channel.startswith("branch:to:"):
        node = channel.removeprefix("branch:to:")
    elif channel.startswith("join:") and _all_arrived(channel, value):
        node = channel.rpartition(":")[2]
    return node if node and _later(version, (seen.get(node) or {}).get(channel)) else ""


def _all_arrived(channel: str, value: Any) -> bool:
    """Whether a join has all of the nodes in its name."""
    arrived = value.fields if isinstance(value, Instance) else value
    wanted = channel.removeprefix("join:").rpartition(":")[0]
    return isinstance(arrived, list) and sum(len(str(each)) + 1 for each in arrived) - 1 == len(wanted)


def _later(version: Any, seen: Any) -> bool:
    if seen is None:
        return True
    try:
        return bool(version > seen)
    except TypeError:
        return bool(version != seen)


def _tasks(checkpoint: Mapping[str, Any], writes: Sequence[StoredWrite]) -> list[Task]:
    """The tasks of the step that follows a checkpoint: those that it triggers, and those that have stored something."""
    values: Mapping[str, Any] = checkpoint.get("channel_values") or {}
    pushed = sends(values)
    waiting = next_nodes(checkpoint)
    answered_at = max(
        (write.revision for write in writes if write.task_id == NULL_TASK and write.channel == RESUME), default=-1
    )
    by_task: dict[str, list[StoredWrite]] = {}
    for write in writes:
        if write.task_id != NULL_TASK and write.task_path:  # without a path: input, or `update_state`
            by_task.setdefault(write.task_id, []).append(write)
    tasks = [_task(task_id, _node_of(stored[0].task_path, pushed), stored, answered_at) for task_id, stored in by_task.items()]
    for task in tasks:
        if task.node in waiting:
            waiting.remove(task.node)
        elif START in waiting and len(by_task) == 1:
            waiting.remove(START)
    return [*tasks, *map(Task, waiting)]


def _node_of(path: str, pushed: Sequence[str]) -> str:
    """The node of a task, by LangGraph's path of it."""
    if path.startswith("~__pregel_pull, "):
        return path.removeprefix("~__pregel_pull, ")
    if place := re.fullmatch(r"~__pregel_push, (\d+)(?:, \d+)?", path):
        at = int(place[1])
        return pushed[at] if at < len(pushed) else "(Send)"
    if caller := re.match(r"~__pregel_push, ~__pregel_pull, ([^,]+), (\d+)", path):
        return f"{caller[1]} (its task {int(caller[2]) + 1})"
    return path.lstrip("~") or "(unknown)"


def _task(task_id: str, node: str, stored: Sequence[StoredWrite], answered_at: int) -> Task:
    latest: dict[str, int] = {}
    for write in stored:
        kind = write.channel if write.channel in CONTROL else ""
        latest[kind] = max(write.revision, latest.get(kind, -1))
    task = Task(node, "finished", task_id, max(write.stored_at for write in stored))
    task.channels = list(dict.fromkeys(write.channel for write in stored if write.channel not in CONTROL))
    task.has_output = "" in latest
    task.error = next((write.value for write in stored if write.channel == ERROR), None)
    for write in stored:
        if write.channel == INTERRUPT:
            task.questions += _questions(write.value)
    if latest.get(ERROR, -1) >= latest.get("", -1) and ERROR in latest:
        task.state = "failed"
    elif not task.has_output and INTERRUPT in latest:
        answered = max(answered_at, latest.get(RESUME, -1)) > latest[INTERRUPT]
        task.state = "answered" if answered else "asks"
    elif not task.has_output:
        task.state = "nothing stored"
    return task


def _questions(value: Any) -> list[Question]:
    """Interrupts as LangGraph stores them: a list of `Interrupt`."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, Instance):
            found.append(Question(str(each.get("id", "")), each.get("value", each.fields)))
        else:
            found.append(Question("", each))
    return found


# --- words ---


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago something was, in its largest unit."""
    if moment is None:
        return "?"
    seconds = max((now - moment).total_seconds(), 0.0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def names(tasks: Sequence[Task], *states: str) -> str:
    """Their nodes, each once with its number."""
    counted: dict[str, int] = {}
    for task in tasks:
        if not states or task.state in states:
            counted[task.node] = counted.get(task.node, 0) + 1
    return ", ".join(node if n == 1 else f"{node} (x{n})" for node, n in counted.items())


def _sentence(found: Diagnosis, now: datetime) -> str:
    tasks, when = found.tasks, ago(found.since, now)
    finished = names(tasks, "finished")
    saved = f" The results of {finished} are saved." if finished else ""
    if found.status == "done":
        return f"Finished {when} ago; nothing is left to run."
    if found.status == "asks":
        count = len(found.questions)
        what = "a question" if count == 1 else f"{count} questions"
        return f"Waits for a person: {names(tasks, 'asks')} asked {what} {when} ago.{saved}"
    if found.status == "failed":
        return f"Failed {when} ago: {names(tasks, 'failed')} raised an error.{saved or ' No result of this step is saved.'}"
    doing = "Running, or died just now" if found.status == "running" else "Died"
    last = f"the last write is {when} old"
    unfinished = names(tasks, "nothing stored", "answered", "asks")
    if any(task.state == "answered" for task in tasks):
        return f"{doing} after the answer: {names(tasks, 'answered')} was answered and has not finished; {last}.{saved}"
    if not unfinished:
        return f"{doing} between the last write and the checkpoint: {finished} finished, and no checkpoint followed; {last}."
    if finished or found.inside:
        where = f" in {', '.join(found.inside)}" if found.inside else ""
        return f"{doing} in the middle of a step{where}: {unfinished} has not finished; {last}.{saved}"
    return (
        f"{doing} before anything of the step was stored: {unfinished} has not finished; {last}. A run that stopped at a "
        "breakpoint (interrupt_before, interrupt_after) or at its recursion limit looks the same."
    )


def _invoke(found: Diagnosis) -> dict[str, str]:
    if found.status == "done":
        return {
            "invoke(None)": "runs nothing, and returns the state.",
            "invoke(input)": "starts the graph at its entry, with this state.",
        }
    again = names([task for task in found.tasks if not task.has_output])
    kept = names([task for task in found.tasks if task.has_output])
    uses = f" It uses the saved results of {kept}, which does not run again." if kept else ""
    drops = f" The saved results of {kept} are dropped." if kept else ""
    said: dict[str, str] = {}
    if found.status == "asks":
        answer = "answer" if len(found.questions) == 1 else "{id: answer, ...}"
        said[f"invoke(Command(resume={answer}))"] = f"runs {again} from its first line, and gives it the answer.{uses}"
        said["invoke(None)"] = f"runs {again} again, which asks again.{uses}"
    elif again:
        stored = any(task.state == "answered" for task in found.tasks)
        with_answer = ", with the answer that is stored" if stored else ""
        said["invoke(None)"] = f"runs {again}{' again' if found.status == 'failed' else ''}{with_answer}.{uses}"
    else:
        said["invoke(None)"] = f"runs no node of this step again: it uses the saved results of {kept}, and goes on."
    said["invoke(input)"] = f"abandons the step, and starts the graph at its entry.{drops}"
    return said


# --- refusals ---


def add_refusals(
    found: Diagnosis, stored_bytes: int, max_thread_bytes: int | None, late: Sequence[StoredWrite], branched: bool
) -> None:
    """Adds what tells of a refused write. A refusal stores nothing, so this goes by what is around it.

    Args:
        stored_bytes: what the thread takes.
        max_thread_bytes: the limit of the program that writes, if it is known.
        late: pending writes of an ancestor that were stored after its child.
        branched: whether that ancestor has another child.
    """
    if max_thread_bytes is not None and found.status in ("died", "running") and stored_bytes >= 0.9 * max_thread_bytes:
        found.refused = "size"
        found.notes.append(
            f"The thread takes {stored_bytes} bytes of the {max_thread_bytes} that are allowed: its next write was probably "
            "refused (ThreadTooLargeError). Prune it, or raise max_thread_bytes."
        )
    if late:
        when = max(write.stored_at for write in late).isoformat(timespec="seconds")
        found.notes.append(
            f"Another run wrote to an earlier checkpoint at {when}, when the next one was there already. "
            + ("It made a branch: see history." if branched else "Its own checkpoint was refused, or never came (conflict).")
        )
        if not branched:
            found.refused = found.refused or "conflict"
