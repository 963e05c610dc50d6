"""Commands that change threads. What removes something says first what would go, and wants `--yes` or a person's yes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import click

from .. import RedisSaver, ThreadBusyError, Version
from ..inspection import looking
from ..inspection.selecting import Place, find_checkpoint, find_thread, select
from ..inspection.values import counted
from .command import command, thread_argument
from .session import Duration, Metadata, Session, shell_word

yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")
dry_option = click.option("--dry-run", is_flag=True, help="Only say what would go. Without a terminal this is so unless --yes.")


def _done(session: Session, record: dict[str, Any], text: str) -> None:
    if session.as_json:
        session.emit(record)
    else:
        session.say(text)


@command("tag", {"thread_id": "the thread", "tag": "its name", "checkpoint_id": "the checkpoint that it names now"})
@thread_argument()
@click.argument("name")
def tag(session: Session, thread: str, name: str) -> None:
    """Names THREAD[@CHECKPOINT], so that retention keeps it. An existing tag moves."""
    saver = session.steering()
    place = select(saver, thread, exact=True)
    saver.tag(place.thread, name, place.checkpoint_id)
    found = saver.tags(place.thread)[name]
    _done(session, {"thread_id": place.thread, "tag": name, "checkpoint_id": found}, f"{name} names {place.thread}@{found}")


@command("untag", {"thread_id": "the thread", "tag": "its name", "done": "whether it was removed"})
@thread_argument()
@click.argument("name")
@yes_option
@dry_option
def untag(session: Session, thread: str, name: str, yes: bool, dry_run: bool) -> None:
    """Removes a tag. Retention may then remove its checkpoint."""
    saver = session.steering()
    thread = find_thread(saver, thread, exact=True)
    place = find_tag(saver, thread, name)
    if done := session.may_change(f"The tag {name!r} of {place} would go.", yes=yes, dry_run=dry_run):
        done = saver.untag(thread, name)
    _done(session, {"thread_id": thread, "tag": name, "done": done}, f"{name}: {'removed' if done else 'still there'}")


def find_tag(saver: RedisSaver, thread: str, name: str) -> Place:
    """The checkpoint of a tag.

    Raises:
        NoCheckpoint: there is no such tag.
    """
    tags = saver.tags(thread)
    return Place(thread, tags[name] if name in tags else find_checkpoint(saver, thread, name or "(no name)"))


@command(
    "rollback",
    {
        "thread_id": "the thread",
        "mode": "fork or truncate",
        "to": "the checkpoint it goes back to",
        "removed": "how many checkpoints went, or would go",
        "checkpoint_id": "the newest checkpoint afterwards; null if nothing was done",
        "done": "whether it was done",
    },
)
@thread_argument()
@click.option(
    "--fork",
    "mode",
    flag_value="fork",
    default=True,
    help="Add a new newest checkpoint with that state; nothing is lost. (default)",
)
@click.option("--truncate", "mode", flag_value="truncate", help="Remove every checkpoint after it.")
@yes_option
@dry_option
def rollback(session: Session, thread: str, mode: str, yes: bool, dry_run: bool) -> None:
    """Takes a thread back to THREAD@CHECKPOINT. A graph that is invoked afterwards goes on from there."""
    saver = session.steering()
    place = select(saver, thread, exact=True)
    if place.checkpoint_id is None:
        raise click.UsageError("which checkpoint? Write THREAD@-1, THREAD@tag or THREAD@id; `lgrs history` lists them")
    after = [each for each in saver.history(place.thread, checkpoint_ns=None) if each.checkpoint_id > place.checkpoint_id]
    going = len(after) if mode == "truncate" else 0
    tags = sorted(tag for each in after for tag in each.tags) if going else []
    what = f"{counted(going, 'checkpoint')} of {place.thread} after {place.checkpoint_id} would go" + (
        f", with the tags {', '.join(tags)}." if tags else "."
    )
    head = None
    if mode == "fork" and dry_run:
        session.tell(f"Dry run: nothing was changed. A new checkpoint with the state of {place} would be added.")
    elif mode == "fork" or session.may_change(what, yes=yes, dry_run=dry_run):
        head = saver.rollback(place.thread, place.checkpoint_id, mode="fork" if mode == "fork" else "truncate")
    newest = head["configurable"]["checkpoint_id"] if head is not None else None
    record = {"thread_id": place.thread, "mode": mode, "to": place.checkpoint_id, "removed": going, "checkpoint_id": newest}
    text = f"{place.thread} stands at {newest}" if newest else f"{place.thread} is as it was"
    _done(session, {**record, "done": newest is not None}, text)
    if newest:
        session.next(f"why {shell_word(place.thread)}")


@command("copy", {"thread_id": "the copy", "source": "the thread it was copied from"})
@thread_argument("source")
@click.argument("target")
def copy(session: Session, source: str, target: str) -> None:
    """Copies a whole thread to a new id. A thread that exists is not touched.

    The copy expires as its source's own settings say, else never.
    """
    saver = session.steering()
    source = find_thread(saver, source, exact=True)
    saver.copy_thread(source, target)
    _done(session, {"thread_id": target, "source": source}, f"{target} is a copy of {source}")


@command("ttl", {"thread_id": "the thread", "ttl": "seconds; null: never, or as the program that writes says"})
@thread_argument()
@click.argument("duration", metavar="DURATION|never|default")
def ttl(session: Session, thread: str, duration: str) -> None:
    """Sets how long a thread lives after its last use: 30d, `never`, or `default`, as the program that writes to it says."""
    saver = session.steering()
    thread = find_thread(saver, thread, exact=True)
    seconds: float | None = None
    if duration == "never":
        saver.persist(thread)
    elif duration == "default":
        saver.set_ttl(thread, None)
    else:
        seconds = Duration().convert(duration, None, click.get_current_context()).total_seconds()
        saver.set_ttl(thread, seconds)
    words = {"never": "never expires", "default": "expires as the program that writes next says; until then never"}
    _done(
        session,
        {"thread_id": thread, "ttl": seconds},
        f"{thread} {words.get(duration, f'expires {duration} after its last use')}",
    )


@command(
    "prune",
    {"thread_id": "the thread", "checkpoints": "how many went, or at most would go", "done": "whether it was done"},
)
@thread_argument("threads", nargs=-1)
@click.option("--keep-last", type=click.IntRange(1), required=True, metavar="N", help="Keep the newest N steps of each.")
@click.option("--all", "every", is_flag=True, help="All threads of the prefix.")
@yes_option
@dry_option
def prune(session: Session, threads: Sequence[str], keep_last: int, every: bool, yes: bool, dry_run: bool) -> None:
    """Removes old checkpoints of threads. Tagged ones and questions without an answer stay."""
    saver = session.steering()
    chosen = _chosen(saver, threads, every)
    going: dict[str, int] = {}
    with session.progress("looking", len(chosen)) as progress:
        for n, thread in enumerate(chosen, 1):
            if count := _older(list(saver.history(thread)), keep_last):
                going[thread] = count
            progress(n)
    total = sum(going.values())
    if not total:
        session.tell(f"nothing to remove: no thread has more than {keep_last} steps that are not tagged")
        return
    _list_going(session, {thread: counted(count, "step") for thread, count in going.items()})
    what = f"At most {counted(total, 'step')} of {counted(len(going), 'thread')} would go, with those of their subgraphs."
    done = session.may_change(what, yes=yes, dry_run=dry_run)

    def one(thread: str) -> int:
        before = len(list(saver.history(thread)))
        saver.prune([thread], keep_last=keep_last)
        return before - len(list(saver.history(thread)))

    _remove_each(session, going, done, "checkpoints", one)


def _older(versions: Sequence[Version], keep_last: int) -> int:
    return sum(1 for version in versions[keep_last:] if not version.tags)


@command("rm", {"thread_id": "the thread", "checkpoints": "how many it had", "done": "whether it was removed"})
@thread_argument("threads", nargs=-1)
@click.option("--idle", type=Duration(), help="All threads that nobody wrote to for so long.")
@click.option("--begins", metavar="TEXT", help="With --idle: only threads whose id begins so.")
@click.option("--where", type=Metadata(), multiple=True, help="With --idle: only threads with this metadata.")
@click.option("--asking", is_flag=True, help="With --idle: also threads that wait for a person.")
@yes_option
@dry_option
def rm(
    session: Session,
    threads: Sequence[str],
    idle: timedelta | None,
    begins: str | None,
    where: Sequence[tuple[str, Any]],
    asking: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Deletes threads: those named, or all that are idle. It cannot be undone."""
    if bool(threads) == (idle is not None):
        raise click.UsageError("name threads, or give --idle, and not both")
    if idle is None and (begins or where or asking):
        raise click.UsageError("--begins, --where and --asking go with --idle")
    saver = session.steering()
    going: dict[str, int] = {}
    asks = 0
    if idle is None:
        for thread in _chosen(saver, threads, False):
            going[thread] = saver.stats(thread).checkpoints
    else:
        wanted = dict(where)
        finder = session.looking(index_metadata=tuple(wanted)) if wanted else saver
        for row in looking.thread_rows(finder, prefix=begins, where=wanted or None, idle=idle):
            if row.found.status == "asks" and not asking:
                asks += 1
                continue
            going[row.info.thread_id] = row.info.checkpoints
    if asks:
        session.tell(f"{counted(asks, 'idle thread')} kept: a person is asked there; --asking takes them, too")
    if not going:
        session.tell("nothing to remove")
        return
    _list_going(session, {thread: counted(count, "checkpoint") for thread, count in going.items()})
    what = f"{counted(len(going), 'thread')} with {counted(sum(going.values()), 'checkpoint')} would go."
    done = session.may_change(what, yes=yes, dry_run=dry_run)

    def one(thread: str) -> int:
        if idle is not None:  # somebody may have come back while a person thought about it
            head = next(iter(saver.heads([thread])), None)
            stored = [] if head is None else [head.created_at, *(write.stored_at for write in head.writes)]
            if head is None or (head.problem is None and looking.server_now(saver) - max(stored) < idle):
                raise ThreadBusyError(f"{thread} was written to meanwhile; it stays")
        saver.delete_thread(thread)
        return going[thread]

    _remove_each(session, going, done, "checkpoints", one)


def _chosen(saver: RedisSaver, threads: Sequence[str], every: bool) -> list[str]:
    if bool(threads) == every:
        raise click.UsageError("name threads, or give --all, and not both")
    if every:
        return [each.thread_id for each in saver.list_threads()]
    return [find_thread(saver, thread, exact=True) for thread in dict.fromkeys(threads)]


def _list_going(session: Session, going: dict[str, str]) -> None:
    """What would go, on stderr: what was done goes to stdout."""
    if session.as_json:
        return
    for n, (thread, what) in enumerate(going.items()):
        if n == 20 and len(going) > 21:
            session.tell(f"  ... and {len(going) - 20} more")
            break
        session.tell(f"  {thread}  {what}")


def _remove_each(session: Session, going: dict[str, int], do: bool, field: str, one: Callable[[str], int]) -> None:
    removed = 0
    with session.progress("removing", len(going)) as progress:
        for n, (thread, count) in enumerate(going.items(), 1):
            done = do
            if do:
                try:
                    count = one(thread)
                    removed += count
                except ThreadBusyError as error:
                    done = False
                    session.exit_code = 1
                    session.tell(f"lgrs: {error}")
            if session.as_json:
                session.emit({"thread_id": thread, field: count, "done": done})
            progress(n)
    if do and not session.as_json:
        session.say(f"removed: {counted(removed, 'checkpoint')} of {counted(len(going), 'thread')}")
