"""Which checkpoints of a thread stay, chosen from their headers. Pure functions; the removal itself is `remove.lua`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

from .keys import ROOT
from .records import Header

INTERRUPTED = WRITES_IDX_MAP[INTERRUPT]
"""Index under which LangGraph stores the interrupt of a task."""

Place = tuple[str, str]
"""(namespace, checkpoint id)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The header of a checkpoint, and whether one of its pending writes is an interrupt."""

    header: Header
    interrupted: bool


Headers = dict[Place, Entry]
Choice = Callable[[Headers, set[Place]], set[Place]]
"""From all headers and the tagged places of a thread: the places to keep."""


def is_due(roots: int, limit: int | None, age: int | None) -> bool:
    """Whether a put that left so many root checkpoints should also tidy: every few puts, so that none pays for it alone."""
    if limit is not None:
        every = max(1, limit // 4)
        return roots > limit and (roots - limit) % every == 0
    return age is not None and roots % 8 == 0


def latest_of_each(thread: Headers, tagged: set[Place]) -> set[Place]:
    """LangGraph's `keep_latest`: the newest checkpoint of each namespace, what is tagged, and what rebuilding these needs."""
    newest: dict[str, str] = {}
    for ns, checkpoint in thread:
        newest[ns] = max(newest.get(ns, ""), checkpoint)
    return _with_ancestors(thread, [*newest.items(), *tagged])


def other_runs(runs: set[str], thread: Headers, tagged: set[Place]) -> set[Place]:
    """All but the checkpoints of these runs, tagged or not: they are to be deleted, whatever else needs them."""
    return {place for place, entry in thread.items() if entry.header.run not in runs}


def newest_roots(thread: Headers, tagged: set[Place], *, limit: int | None, age: int | None) -> set[Place]:
    """The newest `limit` root checkpoints, those younger than `age` ms, and what belongs to them; always the newest one.

    A namespace with ':' is one call of a subgraph and goes with the root checkpoint it ran under; one without keeps its
    newest. Tags stay, an interrupt stays while its checkpoint has no child, and so does what a DeltaChannel needs.
    """
    roots = sorted((checkpoint for ns, checkpoint in thread if ns == ROOT), reverse=True)
    parents = {(ns, entry.header.parent) for (ns, _), entry in thread.items()}
    oldest = 0 if age is None else time.time() * 1000 - age
    kept: set[Place] = {(ROOT, checkpoint) for checkpoint in roots[:1]}
    kept |= {(ROOT, checkpoint) for checkpoint in roots[:limit] if thread[(ROOT, checkpoint)].header.created_at >= oldest}
    kept |= {place for place in tagged if place in thread}
    kept |= {place for place, entry in thread.items() if entry.interrupted and place not in parents and place[0] == ROOT}
    kept = _with_ancestors(thread, kept)
    gone = {checkpoint for checkpoint in roots if (ROOT, checkpoint) not in kept}
    newest: dict[str, str] = {}
    for ns, checkpoint in thread:
        newest[ns] = max(newest.get(ns, ""), checkpoint)
    for (ns, checkpoint), entry in thread.items():
        owner = entry.header.root
        if ns == ROOT:
            continue
        if ":" in ns and owner is not None:
            stays = owner not in gone  # an owner that is not there at all is still on its way
        else:
            stays = newest[ns] == checkpoint
        if stays:
            kept.add((ns, checkpoint))
    return _with_ancestors(thread, kept)


def _with_ancestors(thread: Mapping[Place, Entry], places: Iterable[Place]) -> set[Place]:
    """The places that exist, and as many ancestors of each as its header says a DeltaChannel needs."""
    kept: set[Place] = set()
    reach: dict[Place, int] = {}
    for place in places:
        if place not in thread:
            continue
        kept.add(place)
        left = thread[place].header.depth
        while left > 0:
            parent = thread[place].header.parent
            if parent is None or (place[0], parent) not in thread or reach.get((place[0], parent), 0) >= left:
                break
            place = (place[0], parent)
            reach[place] = left
            kept.add(place)
            left -= 1
    return kept
