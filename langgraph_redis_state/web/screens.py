"""What each screen shows, as plain data for its template. Sizes are capped here: a page never grows with a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import ChannelDiff, CheckpointerError, RedisSaver, ThreadNotFoundError, Version
from ..inspection import chat, looking
from ..inspection.chat import Message
from ..inspection.diagnosis import Diagnosis, ago
from ..inspection.values import as_json, clean, line, plain, preview, readable, size
from .survey import Survey

FIRST_THREADS, ALL_THREADS = 200, 500
"""So many rows has the first screen at once, and at most."""

STEPS = 60
MESSAGES = 60
TEXT_MAX = 20_000
RAW_MAX = 200_000
CHANNELS = 200
COST_STEPS = 400


def cut(text: str, most: int = TEXT_MAX) -> str:
    """Text that is safe to show, at most so long."""
    shown = clean(text[: most + 1])
    return shown if len(shown) <= most else shown[:most] + f"… ({len(text)} characters)"


# --- stuck now ---


def stuck(survey: Survey, *, whole: bool, status: str, mask: bool) -> dict[str, Any]:
    rows, total, now = survey.look(None if whole else FIRST_THREADS)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.found.status] = counts.get(row.found.status, 0) + 1
    chosen = [row for row in rows if not status or row.found.status == status]
    shown = [
        {
            "thread": row.info.thread_id,
            "status": row.found.status,
            "where": line(row.where)[:80],
            "age": ago(row.found.since or row.info.last_activity, now),
            "what": line(_error(row.found, mask) or row.found.sentence.partition(". ")[0])[:240],
            "checkpoints": row.info.checkpoints,
            "bytes": size(row.info.stored_bytes),
        }
        for row in chosen[:ALL_THREADS]
    ]
    return {
        "rows": shown,
        "counts": counts,
        "status": status,
        "more": len(chosen) - len(shown),
        "whole": whole or total <= FIRST_THREADS,
        "total": len(rows),
        "every": 3 if total <= FIRST_THREADS else 15,
    }


def _error(found: Diagnosis, mask: bool) -> str:
    return next((preview(task.error, 160, mask=mask) for task in found.tasks if task.state == "failed"), "")


# --- a thread ---


@dataclass(slots=True)
class Row:
    """A checkpoint in a timeline."""

    lanes: str
    version: Version
    inside: list[tuple[str, int]] = field(default_factory=list)
    """Subgraphs that its step called, each with its checkpoints."""

    @property
    def new(self) -> str:
        return size(self.version.new_bytes)


def thread(saver: RedisSaver, name: str, *, mask: bool, steps: int = STEPS) -> dict[str, Any]:
    found = looking.explain(saver, name)
    answer = found.found
    shown: dict[str, Any] = {"thread": name, "why": _why(answer, found.now, mask), "stats": found.stats, "size": size}
    rows: list[Row] = []
    try:
        tree = looking.tree(saver, name, limit=steps)
        for lanes, version in looking.lanes(tree.versions):
            inside = tree.inside.get(version.checkpoint_id, {})
            rows.append(Row(lanes, version, [(line(ns), len(each)) for ns, each in inside.items()]))
    except CheckpointerError as error:
        shown["problem"] = line(str(error))
    newest = rows[0].version.number if rows else 0
    writes = max((write.revision for write in found.head.writes), default=0)
    shown |= {"rows": rows, "more": len(rows) == steps, "steps": steps}
    shown["mark"] = f"{newest}-{len(found.head.writes)}-{writes}-{answer.status}"
    return shown


def _why(found: Diagnosis, now: datetime, mask: bool) -> dict[str, Any]:
    tasks = [
        {
            "node": line(task.node),
            "state": task.state,
            "channels": [line(each) for each in task.channels],
            "questions": [cut(preview(each.value, 2000, mask=mask)) for each in task.questions if task.state != "finished"],
            "error": cut(preview(task.error, 2000, mask=mask)) if task.state == "failed" else "",
        }
        for task in found.tasks
    ]
    return {
        "status": found.status,
        "sentence": clean(found.sentence),
        "tasks": tasks,
        "invoke": found.invoke,
        "notes": [clean(note) for note in found.notes],
        "refused": found.refused,
        "inside": {line(ns): _why(inner, now, mask) for ns, inner in found.inside.items()},
    }


# --- a step ---


def _around(saver: RedisSaver, name: str, ns: str, checkpoint_id: str) -> dict[str, Any]:
    """The step before, and the newest of those after."""
    before, after, here = None, None, None
    for version in saver.history(name, checkpoint_ns=ns):
        if version.parent_id == checkpoint_id and after is None:
            after = version.checkpoint_id
        if version.checkpoint_id == checkpoint_id:
            before, here = version.parent_id, version
            break
    return {"before": before, "after": after, "version": here}


def step(saver: RedisSaver, name: str, checkpoint_id: str | None, ns: str, *, mask: bool) -> dict[str, Any]:
    tup = looking.state_at(saver, name, checkpoint_id, ns)
    here = tup.checkpoint["id"]
    rebuilt = looking.delta_channels(saver, name, tup)
    values: dict[str, Any] = {**rebuilt, **tup.checkpoint["channel_values"]}
    sizes = {channel: len(as_json(plain(value))) for channel, value in values.items()}
    largest = max(sizes.values(), default=1) or 1
    channels = [
        {
            "name": channel,
            "shown": line(channel),
            "size": size(sizes[channel]),
            "share": round(100 * sizes[channel] / largest),
            "preview": preview(value, 160, mask=mask),
            "rebuilt": channel in rebuilt,
        }
        for channel, value in sorted(values.items(), key=lambda each: -sizes[each[0]])[:CHANNELS]
    ]
    return {
        "thread": name,
        "ns": ns,
        "checkpoint": here,
        "channels": channels,
        "chats": {line(channel): _chat(messages, mask) for channel, messages in chat.chat_channels(values).items()},
        "writes": [_write(each, mask) for each in saver.writes(name, here, checkpoint_ns=ns)[:CHANNELS]],
        "metadata": tup.metadata,
        **_around(saver, name, ns, here),
    }


def _write(write: Any, mask: bool) -> dict[str, Any]:
    return {
        "task": line(write.task_path.removeprefix("~__pregel_") or "input"),
        "channel": line(write.channel),
        "stored_at": write.stored_at,
        "value": preview(write.value, 200, mask=mask),
    }


def _chat(messages: Sequence[Any], mask: bool) -> dict[str, Any]:
    found = chat.conversation(messages, mask=mask)
    for message in found:
        _cut_message(message)
    return {"messages": found[-MESSAGES:], "left_out": max(len(found) - MESSAGES, 0)}


def _cut_message(message: Message) -> None:
    message.text, message.name, message.role = cut(message.text), line(message.name)[:100], line(message.role)[:40]
    for call in message.calls:
        call.name, call.arguments = line(call.name)[:100], cut(call.arguments, 4000)
        if call.result is not None:
            call.result.text = cut(call.result.text, 4000)


def raw(saver: RedisSaver, name: str, checkpoint_id: str, ns: str, channel: str, *, mask: bool) -> dict[str, Any]:
    """One value whole, as JSON, as far as the cap goes."""
    tup = looking.state_at(saver, name, checkpoint_id, ns)
    values: Mapping[str, Any] = {**looking.delta_channels(saver, name, tup), **tup.checkpoint["channel_values"]}
    if channel not in values:
        raise ThreadNotFoundError(f"there is no channel {channel!r} in this checkpoint")
    return {"channel": line(channel), "text": cut(readable(plain(values[channel], mask=mask)), RAW_MAX)}


# --- what changed ---


def diff(saver: RedisSaver, name: str, checkpoint_id: str | None, ns: str, *, mask: bool) -> dict[str, Any]:
    tup = looking.state_at(saver, name, checkpoint_id, ns)
    here = tup.checkpoint["id"]
    around = _around(saver, name, ns, here)
    before = around["before"]
    changes = saver.diff(name, before, here, checkpoint_ns=ns) if before else {}
    return {
        "thread": name,
        "ns": ns,
        "checkpoint": here,
        "changes": [_change(channel, change, mask) for channel, change in list(changes.items())[:CHANNELS]],
        "first": before is None,
        "metadata": tup.metadata,
        **around,
    }


def _change(channel: str, change: ChannelDiff, mask: bool) -> dict[str, Any]:
    both = isinstance(change.before, list) and isinstance(change.after, list)
    old: Sequence[Any] = change.dropped if both else [] if change.kind == "added" else [change.before]
    new: Sequence[Any] = change.appended if both else [] if change.kind == "removed" else [change.after]
    return {
        "channel": line(channel),
        "kind": change.kind,
        "old": [preview(each, 3000, mask=mask) for each in old[:100]],
        "new": [preview(each, 3000, mask=mask) for each in new[:100]],
        "messages": {} if mask else {"new": _chat([each for each in new if chat.is_message(each)], mask)},
    }


# --- cost ---


def cost(saver: RedisSaver, name: str) -> dict[str, Any]:
    stats = saver.stats(name)
    versions = list(saver.history(name, checkpoint_ns=None, limit=COST_STEPS))[::-1]
    most_new = max((each.new_bytes for each in versions), default=1) or 1
    most_all = max((each.logical_bytes for each in versions), default=1) or 1
    bars = [
        {
            "version": each,
            "new": round(100 * each.new_bytes / most_new, 1),
            "all": round(100 * each.logical_bytes / most_all, 1),
            "words": f"v{each.number}: {size(each.new_bytes)} new, {size(each.logical_bytes)} serialized",
        }
        for each in versions
    ]
    channels: list[dict[str, Any]] = []
    problem = ""
    try:
        channels = step(saver, name, None, "", mask=True)["channels"][:12]
    except CheckpointerError as error:
        problem = line(str(error))
    return {
        "thread": name,
        "stats": stats,
        "bars": bars,
        "channels": channels,
        "problem": problem,
        "most_new": size(most_new),
        "most_all": size(most_all),
        "size": size,
    }
