"""Which checkpoints of a thread stay, chosen from a survey of their headers. Pure functions; the removal is `remove.lua`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

from .keys import ROOT
from .records import Header

INTERRUPTED = WRITES_IDX_MAP[INTERRUPT]
"""Index under which LangGraph stores the interrupt of a task."""

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
    sizes: dict[bytes, int] = field(default_factory=dict)
    """What the field of each of these takes on the server: bytes of its name and its content."""
    histories: dict[Place, Header] = field(default_factory=dict)
    """The delta histories (deltas.py) that are there, read by a removal."""

    def interrupted(self, place: Place) -> bool:
        """Whether one of the pending writes of a checkpoint is an interrupt."""
        return any(header.index == INTERRUPTED for header, _ in self.writes.get(place, ()))

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


def rest(removed: int, read: int) -> int:
    """How many puts may pass until a thread is looked at again, of which so many headers were read: none where much went."""
    return max(0, read // 8 - removed)


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
    return {*newest_of_each(thread.headers).items(), *tagged, *_taken_back_to(thread, named)}


def other_runs(runs: set[str], thread: Survey) -> set[Place]:
    """All but the checkpoints of these runs, tagged or not: they are to be deleted, whatever else needs them."""
    return {place for place, header in thread.headers.items() if header.run not in runs}


def newest_roots(thread: Survey, *, limit: int | None, age: int | None) -> set[Place]:
    """The newest `limit` root checkpoints, those younger than `age` ms, and what belongs to them; always the newest one.

    A namespace with ':' is one call of a subgraph and goes with the root checkpoint it ran under. One without remembers
    earlier calls: it keeps its newest, and what each root checkpoint that stays would be taken back to. Tags stay, an
    interrupt stays while its checkpoint has no child.
    """
    headers, parents = thread.headers, thread.parents()
    roots = sorted((checkpoint for ns, checkpoint in headers if ns == ROOT), reverse=True)
    oldest = 0 if age is None else time.time() * 1000 - age
    kept: set[Place] = {(ROOT, checkpoint) for checkpoint in roots[:1]}
    kept |= {(ROOT, checkpoint) for checkpoint in roots[:limit] if headers[(ROOT, checkpoint)].created_at >= oldest}
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
