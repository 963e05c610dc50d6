"""Which checkpoints of a thread stay, chosen from a survey of their headers. Pure functions; the removal is `remove.lua`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

from .keys import ROOT
from .records import Header

INTERRUPTED = WRITES_IDX_MAP[INTERRUPT]
"""Index under which LangGraph stores the interrupt of a task."""

LATE_MS = 600_000
"""A subgraph's checkpoint may be stored before its parent, and a pending write before its checkpoint. If that was so many ms
before the newest root checkpoint was stored, what they belong to does not come any more."""

Place = tuple[str, str]
"""(namespace, checkpoint id)"""


Written = list[tuple[Header, bytes]]
"""The pending writes of a checkpoint: their headers, verified, and each as it is stored."""


@dataclass(slots=True)
class Survey:
    """All headers of a thread at one revision, its pending writes and its tags."""

    headers: dict[Place, Header] = field(default_factory=dict)
    writes: dict[Place, Written] = field(default_factory=dict)
    tags: dict[str, Place] = field(default_factory=dict)
    revision: bytes = b""
    now: int = 0
    """The server's clock, ms."""
    early: bool = False
    """Whether there are pending writes besides these, of checkpoints that are not there."""
    deleted: set[Place] = field(default_factory=set)
    """Of the checkpoints that something belongs to and that are not there, those in the tombstone."""
    sizes: dict[bytes, int] = field(default_factory=dict)
    """What the field of each of these takes on the server: bytes of its name and its content."""
    histories: dict[Place, Header] = field(default_factory=dict)
    """The delta histories (deltas.py) that are there, read by a removal."""

    def interrupted(self, place: Place) -> bool:
        """Whether one of the pending writes of a checkpoint is an interrupt."""
        return any(header.index == INTERRUPTED for header, _ in self.writes.get(place, ()))

    def left_over(self) -> set[Place]:
        return left_over(self.headers, {}, self.deleted, self.tags.values())

    def followed(self) -> Survey:
        """This survey without what is left over."""
        left = self.left_over()
        return replace(self, headers={place: header for place, header in self.headers.items() if place not in left})

    def parents(self) -> set[tuple[str, str | None]]:
        """The places that have a child."""
        return {(ns, header.parent) for (ns, _), header in self.headers.items()}


Choice = Callable[[Survey], set[Place]]
"""From a survey of a thread: the places to keep."""


def is_due(roots: int, limit: int | None, age: int | None) -> bool:
    """Whether a put that left so many root checkpoints should also tidy: every few puts, so that none pays for it alone."""
    if limit is not None and roots > limit and (roots - limit) % max(1, limit // 4) == 0:
        return True
    # a choice reads all headers, so a thread twice as long is looked at half as often; how old its checkpoints are is not known
    return age is not None and roots % max(8, 1 << roots.bit_length() >> 3) == 0


def awaited(headers: Mapping[Place, Header], early: Iterable[Place]) -> set[Place]:
    """The checkpoints that something belongs to and that are not there: root checkpoints of subgraphs, and those of pending
    writes that came before their checkpoint."""
    roots = {(ROOT, header.root) for (ns, _), header in headers.items() if ns != ROOT and header.root is not None}
    return roots.union(early) - headers.keys()


def left_over(
    headers: Mapping[Place, Header], early: Mapping[Place, int], deleted: Set[Place], tagged: Collection[Place]
) -> set[Place]:
    """Checkpoints of subgraphs, and pending writes, that belong to a checkpoint which is not there and does not come any more.

    It does not come if it was deleted with the thread, or if what belongs to it was stored LATE_MS before the newest root
    checkpoint; all moments are of the server. Of a namespace without ':', which remembers earlier calls, the second says
    nothing: retention may have removed the root checkpoint of what it remembers. `early`: when the pending writes were stored
    whose checkpoint is not there; `deleted`: those of `awaited` that are in the tombstone. What is tagged stays, and what a
    checkpoint that stays descends from.
    """
    newest = max((header.created_at for (ns, _), header in headers.items() if ns == ROOT), default=0)
    left = {place for place, stored in early.items() if place in deleted or stored + LATE_MS < newest}
    for place, header in headers.items():
        root = (ROOT, header.root)
        if place[0] == ROOT or header.root is None or root in headers or place in tagged:
            continue
        if root in deleted or (":" in place[0] and header.created_at + LATE_MS < newest):
            left.add(place)
    for (ns, checkpoint), header in headers.items() if left else ():
        while (ns, checkpoint) not in left and header.parent is not None and (ns, header.parent) in left:
            left.remove((ns, header.parent))
            checkpoint = header.parent
            header = headers[(ns, checkpoint)]
    return left


def rest(removed: int, read: int) -> int:
    """How many puts pass at least until the headers of a thread are read again, of which so many were read and removed."""
    return (read - removed) // 8


def newest_of_each(places: Iterable[Place]) -> dict[str, str]:
    """The greatest checkpoint id of each namespace."""
    newest: dict[str, str] = {}
    for ns, checkpoint in places:
        newest[ns] = max(newest.get(ns, ""), checkpoint)
    return newest


def latest_of_each(thread: Survey) -> set[Place]:
    """LangGraph's `keep_latest`: the newest checkpoint of each namespace, what is tagged, and what going back to that needs."""
    tagged = set(thread.tags.values())
    named = sorted(checkpoint for ns, checkpoint in tagged if ns == ROOT)
    kept = {*newest_of_each(thread.headers).items(), *tagged, *_taken_back_to(thread, named)}
    staying = {place: thread.headers[place] for place in kept if place in thread.headers}
    return kept - left_over(staying, {}, thread.deleted, tagged)  # calls of subgraphs whose root checkpoint goes


def everything(thread: Survey) -> set[Place]:
    """All that is not left over."""
    return set(thread.headers)


def other_runs(runs: set[str], thread: Survey) -> set[Place]:
    """All but the checkpoints of these runs, tagged or not: they are to be deleted, whatever else needs them."""
    return {place for place, header in thread.headers.items() if header.run not in runs}


def newest_roots(thread: Survey, *, limit: int | None, age: int | None) -> set[Place]:
    """The `limit` root checkpoints stored last, if not older than `age` ms, and what belongs to them; always the newest one.

    Stored last by the numbers of the server. The newest is the greatest id, which LangGraph reads next; the machine that made
    it may have had another clock than those that stored others since.

    A namespace with ':' is one call of a subgraph and goes with the root checkpoint it ran under. One without remembers
    earlier calls: it keeps its newest, and what each root checkpoint that stays would be taken back to. Tags stay, an
    interrupt stays while its checkpoint has no child.
    """
    headers, parents = thread.headers, thread.parents()
    roots = sorted((checkpoint for ns, checkpoint in headers if ns == ROOT), reverse=True)
    stored = sorted(roots, key=lambda checkpoint: headers[(ROOT, checkpoint)].version, reverse=True)
    oldest = 0 if age is None else thread.now - age
    kept: set[Place] = {(ROOT, checkpoint) for checkpoint in roots[:1]}
    kept |= {(ROOT, checkpoint) for checkpoint in stored[:limit] if headers[(ROOT, checkpoint)].created_at >= oldest}
    kept |= headers.keys() & thread.tags.values()
    kept |= {place for place in headers if place[0] == ROOT and place not in parents and thread.interrupted(place)}
    stay = sorted(checkpoint for checkpoint in roots if (ROOT, checkpoint) in kept)
    gone = set(roots).difference(stay)
    newest = newest_of_each(headers)
    for (ns, checkpoint), header in headers.items():
        owner = header.root
        if ns == ROOT:
            continue
        if owner is None:
            stays = newest[ns] == checkpoint
        elif ":" in ns:
            stays = owner not in gone  # an owner that is not there at all is still on its way
        else:
            stays = (ROOT, owner) in kept or newest[ns] == checkpoint or not roots or owner > roots[0]
        if stays:
            kept.add((ns, checkpoint))
    return kept | set(_taken_back_to(thread, stay))


def _taken_back_to(thread: Survey, roots: Sequence[str]) -> Iterator[Place]:
    """For each of these root checkpoints (ascending), the newest checkpoint from before it in each namespace that remembers."""
    owned: dict[str, list[tuple[str, str]]] = {}
    for (ns, checkpoint), header in thread.headers.items():
        if ns != ROOT and ":" not in ns and header.root is not None:
            owned.setdefault(ns, []).append((header.root, checkpoint))
    for ns, pairs in owned.items():
        pairs.sort()
        at, newest = 0, ""
        for root in roots:
            while at < len(pairs) and pairs[at][0] < root:
                newest = max(newest, pairs[at][1])
                at += 1
            if newest:
                yield ns, newest
