"""THREAD@CHECKPOINT: which checkpoint somebody means, and names that are near if there is none.

    claim-7            the newest checkpoint of the thread (also claim-7@latest)
    claim-7@-2         two steps up from the newest
    claim-7@paid       the checkpoint with the tag
    claim-7@v12        the checkpoint with the number 12
    claim-7@1f0cc2     the checkpoint whose id begins so, if it is the only one

A thread id may hold an @: a thread with the whole text as its id takes precedence.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from itertools import islice

from .. import CheckpointNotFoundError, RedisSaver, ThreadNotFoundError

NEAR_THREADS = 2000
"""Names are looked for among so many threads, the last active first."""


class NothingNear(ThreadNotFoundError):
    """There is no such thread. `near`: ids that look like it."""

    def __init__(self, thread: str, near: list[str]) -> None:
        super().__init__(f"there is no thread {thread!r}" + ("" if near else "; `lgrs threads` lists what there is"))
        self.near = near


class NoCheckpoint(CheckpointNotFoundError):
    """The thread has no such checkpoint. `near`: what it has."""

    def __init__(self, thread: str, wanted: str, why: str, near: list[str]) -> None:
        super().__init__(f"thread {thread!r} has no checkpoint {wanted!r}{why}")
        self.near = near


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint: `checkpoint_id` None means the newest, whichever it is when it is read."""

    thread: str
    checkpoint_id: str | None = None

    def __str__(self) -> str:
        return self.thread if self.checkpoint_id is None else f"{self.thread}@{self.checkpoint_id}"


def exists(saver: RedisSaver, thread: str) -> bool:
    return bool(thread) and next(iter(saver.heads([thread])), None) is not None


def find_thread(saver: RedisSaver, text: str, *, exact: bool = False) -> str:
    """The id of a thread by itself, or by its beginning if only one begins so.

    Args:
        exact: only by itself, as everything that changes something wants it.

    Raises:
        NothingNear: there is none.
    """
    if exists(saver, text):
        return text
    begins = [] if not text else [each.thread_id for each in islice(saver.list_threads(prefix=text, limit=6), 6)]
    if len(begins) == 1 and not exact:
        return begins[0]
    raise NothingNear(text, begins[:5] or near(saver, text))


def near(saver: RedisSaver, text: str) -> list[str]:
    """Ids of threads that look like `text`, or begin like it, the nearest first."""
    scored = []
    matcher = difflib.SequenceMatcher(b=text)  # it remembers its second text
    for info in saver.list_threads(limit=NEAR_THREADS):
        score = 0.0
        for name in (info.thread_id, info.thread_id[: len(text) + 1]):
            matcher.set_seq1(name)
            if matcher.real_quick_ratio() > score:
                score = max(score, matcher.ratio())
        if score >= 0.6:
            scored.append((-score, info.thread_id))
    return [name for _, name in sorted(scored)[:5]]


def select(saver: RedisSaver, text: str, *, ns: str = "", exact: bool = False) -> Place:
    """The checkpoint that `text` means.

    Raises:
        NothingNear, NoCheckpoint: there is none.
    """
    if "@" in text and not exists(saver, text):
        thread, _, wanted = text.rpartition("@")
        thread = find_thread(saver, thread, exact=exact)
        return Place(thread, find_checkpoint(saver, thread, wanted, ns=ns))
    return Place(find_thread(saver, text, exact=exact))


def find_checkpoint(saver: RedisSaver, thread: str, wanted: str, *, ns: str = "") -> str | None:
    """The id of a checkpoint; None for the newest.

    Raises:
        NoCheckpoint: there is none, or several begin so.
    """
    if wanted in ("", "latest"):
        return None
    tags = saver.tags(thread)
    if wanted in tags:
        return tags[wanted]
    steps = -int(wanted) if re.fullmatch(r"-\d{1,9}", wanted) else 0
    number = int(wanted[1:]) if re.fullmatch(r"v\d{1,12}", wanted) else -1
    parents: dict[str, str | None] = {}
    begins: list[str] = []
    newest: str | None = None
    for version in saver.history(thread, checkpoint_ns=ns):
        newest = newest or version.checkpoint_id
        parents[version.checkpoint_id] = version.parent_id
        if wanted == version.checkpoint_id or version.number == number:
            return version.checkpoint_id
        if version.checkpoint_id.startswith(wanted):
            begins.append(version.checkpoint_id)
    if steps:
        at = newest
        for _ in range(steps):
            at = parents.get(at or "")
        if at in parents:
            return at
        raise NoCheckpoint(thread, wanted, f": the newest has fewer than {steps} ancestors", sorted(tags))
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise NoCheckpoint(thread, wanted, f": {len(begins)} begin so", begins[:5])
    raise NoCheckpoint(thread, wanted, "", difflib.get_close_matches(wanted, tags, n=5, cutoff=0.4) or sorted(tags)[:5])
