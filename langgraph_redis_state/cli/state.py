"""Commands that look into checkpoints: show, writes, diff, tags, stats, watch. They change nothing on the server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click
from rich.text import Text

from .. import ChannelDiff, RedisSaver, Stats
from ..inspection import looking
from ..inspection.selecting import NoCheckpoint, find_checkpoint, find_thread, select
from ..inspection.values import counted, line, plain, preview, readable, size
from . import printing
from .command import command, thread_argument
from .look import alive_option, mask_option, ns_option, version_record
from .session import Duration, Session, fail, shell_word


@command(
    "show",
    {
        "channel": "its name",
        "type": "what its value is",
        "value": "its value; see Values",
        "rebuilt": "true: a DeltaChannel; the value is what it is rebuilt from",
    },
)
@thread_argument()
@click.argument("channel", required=False)
@ns_option
@mask_option
@click.option("--bytes", "all_bytes", is_flag=True, help="Show all bytes of bytes, in base64.")
def show(session: Session, thread: str, channel: str | None, ns: str, mask: bool, all_bytes: bool) -> None:
    """Shows the state at THREAD[@CHECKPOINT]: its channels, or the value of one.

    Values are shown as they are stored. No class is imported, no constructor called, nothing unpickled.
    """
    saver = session.looking()
    place = select(saver, thread, ns=ns)
    tup = looking.state_at(saver, place.thread, place.checkpoint_id, ns)
    rebuilt = looking.delta_channels(saver, place.thread, tup)
    values: dict[str, Any] = {**rebuilt, **tup.checkpoint["channel_values"]}
    if channel is not None and channel not in values:
        fail(f"{place} has no channel {channel!r}; it has {', '.join(map(repr, values)) or 'none'}")
    if session.as_json:
        for name in values if channel is None else [channel]:
            value = plain(values[name], mask=mask, all_bytes=all_bytes)
            session.emit({"channel": name, "type": kind(values[name]), "value": value, "rebuilt": name in rebuilt})
        return
    if channel is not None:
        session.out.print(Text(readable(plain(values[channel], mask=mask, all_bytes=all_bytes))), soft_wrap=True)
        return
    metadata = tup.metadata
    session.say(
        f"{place.thread}  checkpoint {tup.checkpoint['id']}  step {metadata.get('step')}  "
        f"by {metadata.get('source')}  {tup.checkpoint['ts']}"
    )
    width = max(session.out.width - 44, 20)
    rows = [
        (name, f"{kind(value)}{' (rebuilt from writes)' if name in rebuilt else ''}", preview(value, width, mask=mask))
        for name, value in values.items()
    ]
    session.out.print(printing.table([("channel", ""), ("type", ""), ("value", "")], rows))
    if tup.pending_writes:
        session.next(f"writes {shell_word(thread)}", f"{counted(len(tup.pending_writes), 'pending write')} beside it")
    session.next(f"show {shell_word(thread)} CHANNEL", "a whole value")


def kind(value: Any) -> str:
    """What a value is, in a word or two."""
    if isinstance(value, str | bytes | bytearray | list | tuple | Mapping):
        return f"{type(value).__name__} of {len(value)}"
    return str(getattr(value, "type", type(value).__name__))


@command(
    "writes",
    {
        "task_id": "the task that stored it",
        "task_path": "LangGraph's path of the task",
        "channel": "the channel it is for; __interrupt__, __resume__ and __error__ tell of the task",
        "index": "its place among the writes of the task",
        "stored_at": "when (ISO 8601, UTC)",
        "logical_bytes": "what it takes serialized",
        "value": "its value; see Values",
    },
)
@thread_argument()
@ns_option
@mask_option
def writes(session: Session, thread: str, ns: str, mask: bool) -> None:
    """Shows the pending writes beside THREAD[@CHECKPOINT]: what the tasks of the next step have stored."""
    saver = session.looking()
    place = select(saver, thread, ns=ns)
    found = saver.writes(place.thread, place.checkpoint_id, checkpoint_ns=ns)
    if session.as_json:
        for write in found:
            session.emit(
                {
                    "task_id": write.task_id,
                    "task_path": write.task_path,
                    "channel": write.channel,
                    "index": write.index,
                    "stored_at": write.stored_at.isoformat(),
                    "logical_bytes": write.logical_bytes,
                    "value": plain(write.value, mask=mask),
                }
            )
        return
    if not found:
        session.tell(f"no pending writes beside {place}")
        return
    width = max(session.out.width - 76, 16)
    rows = [
        (
            write.task_path.removeprefix("~__pregel_").replace(", ", " ") or "(none)",
            write.task_id[:8],
            write.channel,
            printing.moment(write.stored_at),
            size(write.logical_bytes),
            preview(write.value, width, mask=mask),
        )
        for write in found
    ]
    columns = [("task", ""), ("id", ""), ("channel", ""), ("stored", ""), ("size", "right"), ("value", "")]
    session.out.print(printing.table(columns, rows))


@command(
    "diff",
    {
        "channel": "its name",
        "kind": "added, removed or changed",
        "before": "its value in the first; of a list only what was dropped",
        "after": "its value in the second; of a list only what was appended",
        "list": "true: a list, compared element by element",
    },
)
@click.argument("first", metavar="THREAD[@A]")
@click.argument("second", metavar="[B]", required=False)
@ns_option
@mask_option
def diff(session: Session, first: str, second: str | None, ns: str, mask: bool) -> None:
    """Compares two checkpoints of a thread, channel by channel.

    `lgrs diff THREAD` compares the newest with its parent, `lgrs diff THREAD@A` that checkpoint with its parent, and
    `lgrs diff THREAD@A B` the one with the other.
    """
    saver = session.looking()
    place = select(saver, first, ns=ns)
    wanted = second.rpartition("@")[2] if second is not None else None
    end = looking.state_at(saver, place.thread, place.checkpoint_id, ns)
    here = end.checkpoint["id"]
    if wanted is None:
        parent = end.parent_config
        if parent is None:
            raise NoCheckpoint(place.thread, first, ": it has no parent to compare with", [])
        a, b = parent["configurable"]["checkpoint_id"], here
    else:
        other = find_checkpoint(saver, place.thread, wanted, ns=ns)
        a, b = here, other or looking.state_at(saver, place.thread, None, ns).checkpoint["id"]
    for name, change in saver.diff(place.thread, a, b, checkpoint_ns=ns).items():
        record = diff_record(name, change, mask)
        if session.as_json:
            session.emit(record)
        else:
            _print_diff(session, record, change, mask)


def diff_record(name: str, change: ChannelDiff, mask: bool) -> dict[str, Any]:
    both = isinstance(change.before, list) and isinstance(change.after, list)
    before, after = (change.dropped, change.appended) if both else (change.before, change.after)
    shown = plain(before, mask=mask), plain(after, mask=mask)
    return {"channel": name, "kind": change.kind, "before": shown[0], "after": shown[1], "list": both}


def _print_diff(session: Session, record: Mapping[str, Any], change: ChannelDiff, mask: bool) -> None:
    session.out.print(Text.assemble((line(record["channel"]), "bold"), "  ", record["kind"]))
    width = max(session.out.width - 6, 20)
    both = record["list"]
    for mark, style, value in (
        ("-", "red", change.dropped if both else change.before),
        ("+", "green", change.appended if both else change.after),
    ):
        absent = not both and change.kind == ("added" if mark == "-" else "removed")
        for each in value if both else [] if absent else [value]:
            session.out.print(Text(f"  {mark} {preview(each, width, mask=mask)}", style=style))


@command("tags", {"thread_id": "the thread", "tag": "its name", "checkpoint_id": "the checkpoint that it names"})
@thread_argument()
def tags(session: Session, thread: str) -> None:
    """Lists the tags of a thread."""
    saver = session.looking()
    thread = find_thread(saver, thread)
    found = saver.tags(thread)
    if session.as_json:
        for name, checkpoint in found.items():
            session.emit({"thread_id": thread, "tag": name, "checkpoint_id": checkpoint})
    elif found:
        session.out.print(printing.table([("tag", ""), ("checkpoint", "")], list(found.items())))
    else:
        session.tell("it has no tags")
        session.next(f"tag {shell_word(thread)} NAME", "names its newest checkpoint")


@command(
    "stats",
    {
        "thread_id": "the thread; null: all threads of the prefix",
        "threads": "how many there are",
        "checkpoints": "how many there are",
        "writes": "pending writes",
        "chunks": "parts of values, each stored once",
        "stored_bytes": "what all that takes on the server",
        "logical_bytes": "what all checkpoints take serialized, each by itself",
        "ratio": "logical bytes for each stored byte",
        "dedup_share": "the share of the bytes in chunks that was there already, 0 to 1",
    },
)
@thread_argument(required=False)
def stats(session: Session, thread: str | None) -> None:
    """Counts what a thread takes, or all threads together."""
    saver = session.looking()
    thread = None if thread is None else find_thread(saver, thread)
    found = saver.stats(thread)
    record = stats_record(thread, found)
    if session.as_json:
        session.emit(record)
        return
    words = {
        "threads": str(found.threads),
        "checkpoints": str(found.checkpoints),
        "pending writes": str(found.writes),
        "chunks": str(found.chunks),
        "stored": size(found.stored_bytes),
        "serialized": f"{size(found.logical_bytes)}, {found.ratio:.1f} times as much",
        "not stored again": f"{found.dedup_share:.0%} of what chunks hold",
    }
    if found.server and "used_memory" in found.server:
        words["server uses"] = size(float(found.server["used_memory"]))
    session.out.print(printing.table([("", ""), ("", "")], list(words.items())))


def stats_record(thread: str | None, found: Stats) -> dict[str, Any]:
    return {
        "thread_id": thread,
        "threads": found.threads,
        "checkpoints": found.checkpoints,
        "writes": found.writes,
        "chunks": found.chunks,
        "stored_bytes": found.stored_bytes,
        "logical_bytes": found.logical_bytes,
        "ratio": round(found.ratio, 3),
        "dedup_share": round(found.dedup_share, 4),
    }


@command(
    "watch",
    {
        "event": "checkpoint, write or status",
        "checkpoint": "of a checkpoint: the same as history gives",
        "write": "of a write: task_path, channel, stored_at, value",
        "status": "of a status: asks, failed, died, running, done or unreadable",
        "sentence": "of a status: the same in words",
    },
)
@thread_argument()
@click.option("--every", type=Duration(), default="0.5s", show_default=True, help="How often it looks.")
@click.option(
    "--until", type=click.Choice(["asks", "failed", "died", "done", "stopped"]), help="End when the thread is so far."
)
@click.option("--timeout", type=Duration(), help="End after so long, with exit code 3.")
@alive_option
@mask_option
def watch(
    session: Session, thread: str, every: timedelta, until: str | None, timeout: timedelta | None, alive: timedelta, mask: bool
) -> None:
    """Follows a thread: new checkpoints, writes of tasks, and what it waits for, as they come.

    `--until stopped` ends when nothing is running any more. Without `--until` it goes on until Ctrl-C.
    """
    saver = session.looking()
    thread = find_thread(saver, thread)
    following = Following(session, saver, thread, alive.total_seconds(), mask)
    ends = time.monotonic() + timeout.total_seconds() if timeout is not None else None
    while True:
        status = following.look()
        if until == status or (until == "stopped" and status != "running"):
            return
        if ends is not None and time.monotonic() > ends:
            session.tell(f"--timeout is over, and the status is {status}")
            session.exit_code = 3
            return
        time.sleep(every.total_seconds())


class Following:
    """What was told of a thread so far."""

    def __init__(self, session: Session, saver: RedisSaver, thread: str, alive: float, mask: bool) -> None:
        self._session, self._saver, self._thread, self._alive, self._mask = session, saver, thread, alive, mask
        self._seen = max((version.number for version in saver.history(thread, checkpoint_ns=None, limit=1)), default=0)
        self._told: set[tuple[str, str, int, int]] = set()
        self._status = ""

    def look(self) -> str:
        """Tells what is new; what the thread waits for now."""
        fresh = []
        for version in self._saver.history(self._thread, checkpoint_ns=None, limit=200):
            if version.number > self._seen:
                fresh.append(version)
        for version in sorted(fresh, key=lambda each: each.number):
            self._seen = version.number
            place = f" in {version.checkpoint_ns}" if version.checkpoint_ns else ""
            then = ", ".join(version.next) or "nothing"
            text = f"v{version.number} step {version.step} by {version.source}{place}, next: {then}"
            self._tell({"event": "checkpoint", "checkpoint": version_record(version)}, version.created_at, text)
        found = looking.explain(self._saver, self._thread, alive=self._alive)
        for write in found.head.writes:
            mark = (found.head.checkpoint_id, write.task_id, write.index, write.revision)
            if mark not in self._told:
                self._told.add(mark)
                task = write.task_path.rpartition(", ")[2] or "input"
                record = {
                    "task_path": write.task_path,
                    "channel": write.channel,
                    "stored_at": write.stored_at.isoformat(),
                    "value": plain(write.value, mask=self._mask),
                }
                text = f"{task} wrote {write.channel}: {preview(write.value, 80, mask=self._mask)}"
                self._tell({"event": "write", "write": record}, write.stored_at, text)
        answer = found.found
        if answer.status != self._status:
            self._status = answer.status
            self._tell({"event": "status", "status": answer.status, "sentence": answer.sentence}, found.now, answer.sentence)
        return answer.status

    def _tell(self, record: Mapping[str, Any], when: Any, text: str) -> None:
        if self._session.as_json:
            self._session.emit(record)
        else:
            self._session.out.print(Text.assemble((when.strftime("%H:%M:%S "), "dim"), line(text)))
        self._session.flush()
