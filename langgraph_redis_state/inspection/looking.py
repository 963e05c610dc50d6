"""What commands and screens show, read by verbs of the saver. Nothing here changes anything on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from .. import CheckpointerError, Head, RedisSaver, Stats, StoredWrite, ThreadInfo, ThreadNotFoundError, Version
from .diagnosis import ALIVE_SECONDS, CONTROL, NULL_TASK, SENDS, Diagnosis, add_refusals, ago, diagnose, names, unreadable

INSIDE_MOST = 500
"""So many checkpoints of subgraphs of the open step are looked at."""

THREADS_AT_ONCE = 200

RECENT, ANCESTORS = 40, 6
"""Among so many checkpoints so many ancestors of the newest are looked at for a run that lost against another."""


def configured(thread: str, checkpoint_id: str | None = None, ns: str | None = "") -> RunnableConfig:
    found: dict[str, Any] = {"thread_id": thread}
    if ns is not None:
        found["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        found["checkpoint_id"] = checkpoint_id
    return {"configurable": found}


def server_now(saver: RedisSaver) -> datetime:
    """The server's clock, by which everything stored is stamped; this machine's where it may not be asked."""
    try:
        seconds, micros = saver.client.time()
        return datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, timezone.utc)
    except Exception:  # noqa: BLE001 - rights, a Cluster's reply: what needs it only says how long ago something was
        return datetime.now(timezone.utc)


# --- threads ---


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread in a list."""

    info: ThreadInfo
    head: Head | None
    found: Diagnosis

    @property
    def where(self) -> str:
        """The nodes that the thread stands at."""
        unfinished = [task for task in self.found.tasks if task.state != "finished"]
        return names(unfinished) or names(self.found.tasks)


def thread_rows(
    saver: RedisSaver,
    *,
    prefix: str | None = None,
    where: dict[str, Any] | None = None,
    idle: timedelta | None = None,
    statuses: Sequence[str] = (),
    limit: int | None = None,
    alive: float = ALIVE_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ThreadRow]:
    """Threads by their last activity, with what each waits for.

    Args:
        where: metadata that threads must have; the saver must have been told to index them.
        idle: only threads that were not written to for so long.
        statuses: only these.
        progress: is called with the number of threads that were looked at.
    """
    infos = saver.find_threads(**where) if where else saver.list_threads(prefix=prefix)
    now = server_now(saver)
    left, done = limit, 0
    batch: list[ThreadInfo] = []
    size = THREADS_AT_ONCE if limit is None or statuses else min(limit, THREADS_AT_ONCE)

    def rows(batch: list[ThreadInfo]) -> Iterator[ThreadRow]:
        heads = {head.thread_id: head for head in saver.heads([info.thread_id for info in batch])}
        for info in batch:
            head = heads.get(info.thread_id)
            row = ThreadRow(info, head, of_head(head, now, alive))
            if not statuses or row.found.status in statuses:
                yield row

    def wanted(info: ThreadInfo) -> bool:
        return (idle is None or now - info.last_activity >= idle) and (not where or info.thread_id.startswith(prefix or ""))

    iterator = iter(infos)
    ended = False
    while not ended and (left is None or left > 0):
        batch = []
        for info in iterator:
            if wanted(info):
                batch.append(info)
            if len(batch) >= size:
                break
        else:
            ended = True
        for row in rows(batch):
            yield row
            if left is not None:
                left -= 1
                if left == 0:
                    break
        done += len(batch)
        if progress is not None:
            progress(done)


def of_head(head: Head | None, now: datetime, alive: float) -> Diagnosis:
    if head is None:
        return unreadable("it went away while it was read")
    if head.problem is not None:
        return unreadable(head.problem)
    return diagnose(head.checkpoint, head.created_at, head.writes, now, alive=alive)


# --- one thread ---


@dataclass(slots=True)
class Why:
    """What a thread waits for, and where it stands."""

    thread: str
    head: Head
    stats: Stats | None
    found: Diagnosis
    now: datetime


def explain(saver: RedisSaver, thread: str, *, alive: float = ALIVE_SECONDS, max_thread_bytes: int | None = None) -> Why:
    """What a thread waits for, with what its subgraphs wait for.

    Raises:
        ThreadNotFoundError: it went away.
    """
    now = server_now(saver)
    head = next(iter(saver.heads([thread])), None)
    if head is None:
        raise ThreadNotFoundError(f"thread {thread!r} went away while it was read")
    if head.problem is not None:
        return Why(thread, head, None, unreadable(head.problem), now)
    notes: list[str] = []
    checkpoint = dict(head.checkpoint)
    if any(
        value is None and (name == SENDS or name.startswith("join:")) for name, value in checkpoint["channel_values"].items()
    ):
        try:
            whole = saver.get_tuple(configured(thread, head.checkpoint_id))
            checkpoint = dict(whole.checkpoint) if whole is not None else checkpoint
        except CheckpointerError as error:
            notes.append(f"Some values cannot be read, so tasks of Sends may be missing here: {error}")
    try:
        writes = saver.writes(thread, head.checkpoint_id)
    except CheckpointerError as error:
        writes = head.writes
        notes.append(f"Some pending writes cannot be read: {error}")
    inside = _inside(saver, thread, head.checkpoint_id, now, alive, notes)
    found = diagnose(checkpoint, head.created_at, writes, now, inside=inside, alive=alive)
    found.notes += notes
    stats = None
    try:
        stats = saver.stats(thread)
    except CheckpointerError as error:
        found.notes.append(f"Its counts cannot be read: {error}")
    late, branched = _late_writes(saver, thread, head)
    add_refusals(found, stats.stored_bytes if stats else 0, max_thread_bytes, late, branched)
    return Why(thread, head, stats, found, now)


def _inside(saver: RedisSaver, thread: str, root: str, now: datetime, alive: float, notes: list[str]) -> dict[str, Diagnosis]:
    """What the subgraphs wait for that the step after `root` called."""
    newest: dict[str, Version] = {}
    for version in saver.history(thread, checkpoint_ns=None, limit=INSIDE_MOST):
        if version.checkpoint_id <= root:
            break
        if version.checkpoint_ns and version.root_id == root:
            newest.setdefault(version.checkpoint_ns, version)
    found: dict[str, Diagnosis] = {}
    for ns, version in newest.items():
        try:
            tup = saver.get_tuple(configured(thread, version.checkpoint_id, ns))
            if tup is not None:
                writes = saver.writes(thread, version.checkpoint_id, checkpoint_ns=ns)
                each = diagnose(tup.checkpoint, version.created_at, writes, now, alive=alive)
                if each.status != "done":
                    found[ns] = each
        except CheckpointerError as error:
            notes.append(f"The subgraph {ns} cannot be read: {error}")
    return found


def _grace(write: StoredWrite) -> timedelta:
    """How long after the next checkpoint a write may come from the run that made it: with durability "async" the last writes
    of a task overtake each other. What a run was invoked with is stored a whole step earlier."""
    return timedelta() if write.task_id == NULL_TASK else timedelta(seconds=1)


def _late_writes(saver: RedisSaver, thread: str, head: Head) -> tuple[list[StoredWrite], bool]:
    """Answers, questions and errors at one of the last ancestors that were stored when its child was there already, and whether
    that ancestor has another child."""
    recent = list(saver.history(thread, limit=RECENT))
    known = {version.checkpoint_id: version for version in recent}
    child = known.get(head.checkpoint_id)
    for _ in range(ANCESTORS):
        parent = known.get((child and child.parent_id) or "")
        if child is None or parent is None:
            break
        try:
            stored = saver.writes(thread, parent.checkpoint_id)
        except CheckpointerError:  # pruned meanwhile, or damaged: it says nothing
            break
        late = [write for write in stored if write.channel in CONTROL and write.stored_at > child.created_at + _grace(write)]
        if late:
            others = [each for each in recent if each.parent_id == parent.checkpoint_id and each != child]
            return late, bool(others)
        child = parent
    return [], False


@dataclass(slots=True)
class Tree:
    """The checkpoints of a thread, newest first: those of the root, with those of subgraphs that were called after each."""

    versions: list[Version] = field(default_factory=list)
    inside: dict[str, dict[str, list[Version]]] = field(default_factory=dict)
    """By root checkpoint, by namespace, newest first. Under "" those whose root checkpoint is not there."""


def tree(saver: RedisSaver, thread: str, *, limit: int | None = None) -> Tree:
    found = Tree()
    for version in saver.history(thread, checkpoint_ns=None):
        if version.checkpoint_ns:
            found.inside.setdefault(version.root_id or "", {}).setdefault(version.checkpoint_ns, []).append(version)
        else:
            if limit is not None and len(found.versions) >= limit:
                break
            found.versions.append(version)
    return found


def lanes(versions: Sequence[Version]) -> list[tuple[str, Version]]:
    """The branches of a thread drawn beside its checkpoints, newest first: a column for each branch."""
    open_lanes: list[str | None] = []
    drawn: list[tuple[str, Version]] = []
    for version in versions:
        mine = [at for at, waits in enumerate(open_lanes) if waits == version.checkpoint_id]
        if not mine:
            free = next((at for at, waits in enumerate(open_lanes) if waits is None), len(open_lanes))
            open_lanes[free : free + 1] = [version.checkpoint_id]
            mine = [free]
        cells = ["│" if waits is not None else " " for waits in open_lanes]
        cells[mine[0]] = "●"
        for at in mine[1:]:
            cells[at] = "╯"
            open_lanes[at] = None
        text = " ".join(cells)
        if len(mine) > 1:  # the line from this checkpoint to the branches that begin at it
            first, last = 2 * mine[0], 2 * mine[-1]
            text = (
                text[: first + 1]
                + "".join("─" if c in " │" else "┴" if c == "╯" else c for c in text[first + 1 : last])
                + text[last:]
            )
        open_lanes[mine[0]] = version.parent_id
        while open_lanes and open_lanes[-1] is None:
            open_lanes.pop()
        drawn.append((text, version))
    return drawn


def state_at(saver: RedisSaver, thread: str, checkpoint_id: str | None, ns: str = "") -> CheckpointTuple:
    """A checkpoint with its values. DeltaChannels without a snapshot here get what they are rebuilt from as their value.

    Raises:
        ThreadNotFoundError: there is nothing.
    """
    tup = saver.get_tuple(configured(thread, checkpoint_id, ns))
    if tup is None:
        raise ThreadNotFoundError(f"thread {thread!r} has nothing in the namespace {ns!r}, or went away")
    return tup


def delta_channels(saver: RedisSaver, thread: str, tup: CheckpointTuple) -> dict[str, list[Any]]:
    """DeltaChannels whose value does not stand in this checkpoint: what they are rebuilt from, oldest first. Their reducer
    is in the program, so their value cannot be computed here."""
    counters = tup.metadata.get("counters_since_delta_snapshot")
    values = tup.checkpoint["channel_values"]
    versions = tup.checkpoint["channel_versions"]
    missing = [name for name in counters if name not in values and name in versions] if isinstance(counters, dict) else []
    if not missing:
        return {}
    found: dict[str, list[Any]] = {}
    for name, history in saver.get_delta_channel_history(config=tup.config, channels=missing).items():
        seed = history.get("seed")
        begin = getattr(seed, "value", seed)
        items = list(begin) if isinstance(begin, list) else [] if begin is None else [begin]
        for _, _, value in history["writes"]:
            items += value if isinstance(value, list) else [value]
        found[name] = items
    return found


def summary(row: ThreadRow, now: datetime) -> str:
    """What a thread waits for, in a few words."""
    found = row.found
    if found.status == "asks":
        return f"{row.where} asks"
    if found.status == "unreadable":
        return found.sentence
    if found.status == "done":
        return ""
    return f"{row.where}, {ago(found.since, now)} ago"
