"""Commands that look at threads: threads, why, history, messages. They change nothing on the server."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import click
from rich.text import Text

from .. import Version
from ..inspection import chat, looking
from ..inspection.diagnosis import Diagnosis, ago
from ..inspection.selecting import find_thread, select
from ..inspection.values import line, plain, size
from . import printing
from .command import command, thread_argument
from .session import FINDINGS, Duration, Metadata, Session, shell_word

STATUSES = ("asks", "failed", "died", "running", "done", "unreadable")

alive_option = click.option(
    "--alive", type=Duration(), default="60s", show_default=True, help="A run that stored nothing for so long counts as dead."
)
mask_option = click.option("--mask", is_flag=True, help="Show kinds and sizes in place of values.")
ns_option = click.option("--ns", default="", metavar="NAMESPACE", help="The namespace of a subgraph; history shows them.")


@command(
    "threads",
    {
        "thread_id": "the thread",
        "status": "asks, failed, died, running, done or unreadable",
        "nodes": "the nodes that it stands at",
        "since": "when the last thing was stored (ISO 8601, UTC)",
        "last_activity": "when it was last written to (ISO 8601, UTC)",
        "checkpoints": "how many there are",
        "stored_bytes": "what it takes on the server",
        "sentence": "what it waits for",
    },
)
@click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Only these; may be repeated.")
@click.option("--where", type=Metadata(), multiple=True, help="Only threads with this metadata (index_metadata).")
@click.option("--idle", type=Duration(), help="Only threads that nobody wrote to for so long.")
@click.option("--begins", metavar="TEXT", help="Only threads whose id begins so.")
@click.option("-n", "--limit", type=click.IntRange(0), default=30, show_default=True, help="At most so many; 0: all.")
@alive_option
def threads(
    session: Session,
    statuses: tuple[str, ...],
    where: tuple[tuple[str, Any], ...],
    idle: timedelta | None,
    begins: str | None,
    limit: int,
    alive: timedelta,
) -> None:
    """Lists threads, the last active first, with what each waits for."""
    wanted = dict(where)
    saver = session.looking(index_metadata=tuple(wanted)) if wanted else session.looking()
    total = sum(1 for _ in saver.list_threads()) if statuses and not wanted and sys.stderr.isatty() else None
    now = looking.server_now(saver)
    shown: list[tuple[str | Text, ...]] = []
    count = 0
    with session.progress("looking at threads", total) as progress:
        rows = looking.thread_rows(
            saver,
            prefix=begins,
            where=wanted or None,
            idle=idle,
            statuses=statuses,
            limit=limit + 1 if limit else None,
            alive=alive.total_seconds(),
            progress=progress,
        )
        for row in rows:
            count += 1
            if limit and count > limit:
                break
            if session.as_json:
                session.emit(_thread_record(row))
            else:
                what = row.found.sentence if row.found.status == "unreadable" else row.where
                active = ago(row.info.last_activity, now)
                shown.append(
                    (
                        row.info.thread_id,
                        printing.status(row.found.status),
                        active,
                        str(row.info.checkpoints),
                        size(row.info.stored_bytes),
                        what,
                    )
                )
    if session.as_json:
        return
    if not shown:
        session.tell("no such threads" if statuses or wanted or idle or begins else "there are no threads under this prefix")
        return
    columns = [("thread", ""), ("status", ""), ("active", "right"), ("checkpoints", "right"), ("bytes", "right"), ("at", "")]
    session.out.print(printing.table(columns, shown))
    if limit and count > limit:
        session.tell(f"only the first {limit} are shown; -n 0 shows all")
    for status in ("failed", "died", "unreadable", "asks"):
        if stuck := next((row[0] for row in shown if str(row[1]) == status), None):
            session.next(f"why {shell_word(str(stuck))}")
            return


def _thread_record(row: looking.ThreadRow) -> dict[str, Any]:
    return {
        "thread_id": row.info.thread_id,
        "status": row.found.status,
        "nodes": [task.node for task in row.found.tasks if task.state != "finished"],
        "since": row.found.since.isoformat() if row.found.since else None,
        "last_activity": row.info.last_activity.isoformat(),
        "checkpoints": row.info.checkpoints,
        "stored_bytes": row.info.stored_bytes,
        "sentence": row.found.sentence,
    }


@command(
    "why",
    {
        "thread_id": "the thread",
        "checkpoint_id": "its newest checkpoint",
        "status": "asks, failed, died, running, done or unreadable",
        "sentence": "the same in words",
        "since": "when the last thing was stored (ISO 8601, UTC)",
        "tasks": "of the open step: node, task_id, state (asks, answered, failed, finished, nothing stored), questions, error, "
        "channels",
        "inside": "the same of subgraphs that have not come back, by namespace: status, sentence, since, tasks",
        "refused": "size or conflict, if a write was refused as far as can be told; else empty",
        "invoke": "what an invoke would do, by what is passed",
        "notes": "what else there is to know",
    },
)
@thread_argument()
@alive_option
@click.option(
    "--max-thread-bytes",
    type=click.IntRange(1),
    help="The limit of the program that writes: tells whether a write was refused.",
)
@mask_option
def why(session: Session, thread: str, alive: timedelta, max_thread_bytes: int | None, mask: bool) -> None:
    """Says what a thread waits for, since when, and what an invoke would do.

    Exit code 3 if it failed, died, cannot be read, or a write of it was refused.
    """
    saver = session.looking()
    found = looking.explain(saver, find_thread(saver, thread), alive=alive.total_seconds(), max_thread_bytes=max_thread_bytes)
    answer = found.found
    if answer.status in ("failed", "died", "unreadable") or answer.refused:
        session.exit_code = FINDINGS
    if session.as_json:
        record = {"thread_id": found.thread, "checkpoint_id": found.head.checkpoint_id, **_diagnosis_record(answer, mask)}
        session.emit({**record, "refused": answer.refused, "invoke": answer.invoke, "notes": answer.notes})
        return
    session.out.print(printing.diagnosis(answer, mask))
    if answer.invoke:
        session.say()
    for given, does in answer.invoke.items():
        session.out.print(printing.paragraph(f"{given} {does}"))
    for note in answer.notes:
        session.out.print(printing.paragraph(f"note: {note}"))
    _what_next(session, found)


def _what_next(session: Session, found: looking.Why) -> None:
    thread, answer = shell_word(found.thread), found.found
    if answer.status == "unreadable":
        session.next(f"verify {thread}", "says what is damaged")
    elif answer.status in ("asks", "failed"):
        talks = "messages" in (found.head.checkpoint.get("channel_values") or {})
        session.next(f"{'messages' if talks else 'show'} {thread}", "what it knew")
    elif answer.status in ("died", "running"):
        session.next(f"writes {thread}", "what its tasks have stored")
    else:
        session.next(f"show {thread}", "its state")


def _diagnosis_record(found: Diagnosis, mask: bool) -> dict[str, Any]:
    tasks = [
        {
            "node": task.node,
            "task_id": task.task_id,
            "state": task.state,
            "questions": [{"id": each.id, "value": plain(each.value, mask=mask)} for each in task.questions],
            "error": plain(task.error, mask=mask),
            "channels": task.channels,
        }
        for task in found.tasks
    ]
    return {
        "status": found.status,
        "sentence": found.sentence,
        "since": found.since.isoformat() if found.since else None,
        "tasks": tasks,
        "inside": {ns: _diagnosis_record(inner, mask) for ns, inner in found.inside.items()},
    }


@command(
    "history",
    {
        "thread_id": "the thread",
        "number": "the number of the checkpoint, never used again; v<number> selects it",
        "checkpoint_id": "its id",
        "parent_id": "its parent, or null",
        "checkpoint_ns": "its namespace, empty for the graph itself",
        "root_id": "of a subgraph's checkpoint: the root checkpoint whose step called it",
        "run_id": "the run that stored it, or null",
        "created_at": "when the server stored it (ISO 8601, UTC)",
        "source": "input, loop, update or fork",
        "step": "LangGraph's number of the step",
        "next": "the nodes that it hands over to, as far as its channels tell",
        "tags": "its names",
        "new_bytes": "what it added on the server",
        "logical_bytes": "what its values take serialized",
    },
)
@thread_argument()
@click.option("-n", "--limit", type=click.IntRange(0), default=40, show_default=True, help="At most so many steps; 0: all.")
@click.option("--subgraphs", is_flag=True, help="Show each checkpoint of subgraphs, not only how many there are.")
def history(session: Session, thread: str, limit: int, subgraphs: bool) -> None:
    """Shows the checkpoints of a thread, newest first, with its branches, subgraphs and tags."""
    saver = session.looking()
    thread = find_thread(saver, thread)
    if session.as_json:
        left = limit or None
        for version in saver.history(thread, checkpoint_ns=None, limit=left):
            session.emit({"thread_id": thread, **version_record(version)})
        return
    found = looking.tree(saver, thread, limit=limit or None)
    rows: list[tuple[str | Text, ...]] = []
    for drawn, version in looking.lanes(found.versions):
        bars = "".join("│" if c in "●│" else " " for c in drawn)
        for ns, inner in found.inside.get(version.checkpoint_id, {}).items():
            rows += _inside_rows(bars, ns, inner, subgraphs)
        rows.append(
            (
                Text(drawn),
                f"v{version.number}",
                printing.moment(version.created_at),
                str(version.step),
                version.source or "",
                ", ".join(version.next),
                Text(line(" ".join(version.tags)), style="yellow"),
                size(version.new_bytes),
            )
        )
    for ns, inner in found.inside.get("", {}).items():
        rows += _inside_rows("", ns, inner, subgraphs)
    columns = [
        ("", ""),
        ("number", ""),
        ("stored", ""),
        ("step", "right"),
        ("by", ""),
        ("next", ""),
        ("tags", ""),
        ("new", "right"),
    ]
    session.out.print(printing.table(columns, rows))
    if limit and len(found.versions) == limit:
        session.tell(f"only the newest {limit} steps are shown; -n 0 shows all")


def _inside_rows(bars: str, ns: str, versions: list[Version], every: bool) -> list[tuple[str | Text, ...]]:
    """Rows of a subgraph, above the step that called it."""
    new = size(sum(version.new_bytes for version in versions))
    name = ns.rpartition("|")[2].partition(":")[0]
    if not every:
        text = f"{name}: {len(versions)} steps"
        return [(Text(bars), Text("  ↳", style="dim"), Text(line(text), style="dim"), "", "", "", "", Text(new, style="dim"))]
    return [
        (
            Text(bars),
            Text(f"  ↳v{version.number}", style="dim"),
            Text(line(f"{printing.moment(version.created_at)}  {ns}"), style="dim"),
            str(version.step),
            version.source or "",
            ", ".join(version.next),
            " ".join(version.tags),
            size(version.new_bytes),
        )
        for version in versions
    ]


def version_record(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "checkpoint_id": version.checkpoint_id,
        "parent_id": version.parent_id,
        "checkpoint_ns": version.checkpoint_ns,
        "root_id": version.root_id,
        "run_id": version.run_id,
        "created_at": version.created_at.isoformat(),
        "source": version.source,
        "step": version.step,
        "next": list(version.next),
        "tags": list(version.tags),
        "new_bytes": version.new_bytes,
        "logical_bytes": version.logical_bytes,
    }


@command(
    "messages",
    {
        "channel": "the channel it stands in",
        "role": "user, assistant, tool, system, or what stands there",
        "text": "its text; of other parts only their kind, in brackets",
        "id": "its id",
        "name": "its name",
        "calls": "of tools: name, id, arguments, result (null: no answer), status",
    },
)
@thread_argument()
@click.option("-n", "--limit", type=click.IntRange(0), default=0, help="Only the last so many messages; 0: all.")
@ns_option
@mask_option
def messages(session: Session, thread: str, limit: int, ns: str, mask: bool) -> None:
    """Shows the messages of THREAD[@CHECKPOINT] as a conversation, tool calls beside their results."""
    saver = session.looking()
    place = select(saver, thread, ns=ns)
    tup = looking.state_at(saver, place.thread, place.checkpoint_id, ns)
    values = dict(tup.checkpoint["channel_values"])
    rebuilt = looking.delta_channels(saver, place.thread, tup)
    channels = chat.chat_channels({**rebuilt, **values})
    for name, found in channels.items():
        shown = chat.conversation(found, mask=mask)
        shown = shown[-limit:] if limit else shown
        if session.as_json:
            for message in shown:
                session.emit({"channel": name, **message_record(message)})
            continue
        if len(channels) > 1 or name != "messages":
            session.out.print(Text(line(f"channel {name}"), style="bold"))
        if name in rebuilt:
            session.tell(f"{name} is a DeltaChannel: these are the writes it is rebuilt from, before its reducer")
        printing.conversation(session.out, shown)
    if not channels:
        session.tell("no channel of it holds messages")
        session.next(f"show {shell_word(thread)}", "what it holds")


def message_record(message: chat.Message) -> dict[str, Any]:
    calls = [
        {
            "name": call.name,
            "id": call.id,
            "arguments": call.arguments,
            "result": call.result.text if call.result is not None else None,
            "status": call.result.status if call.result is not None else "",
        }
        for call in message.calls
    ]
    return {"role": message.role, "text": message.text, "id": message.id, "name": message.name, "calls": calls}
