"""Which checkpoints of a thread stay, chosen from a survey of their headers. Pure functions; the removal is `remove.lua`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..storage.keys import ROOT, newest_of_each
from .thread_headers import CheckpointKey, ThreadHeaders, left_over

Choice = Callable[[ThreadHeaders], set[CheckpointKey]]
"""From a survey of a thread: the places to keep."""


def is_due(roots: int, limit: int | None, age: int | None) -> bool:
    """Whether a put that left so many root checkpoints should also tidy: every few puts, so that none pays for it alone."""
    if limit is not None and roots > limit and (roots - limit) % max(1, limit // 4) == 0:
        return True
    # a choice reads all headers, so a thread twice as long is looked at half as often; how old its checkpoints are is not known
    return age is not None and roots % max(8, 1 << roots.bit_length() >> 3) == 0


def rest(removed: int, read: int) -> int:
    """How many puts pass at least until the headers of a thread are read again, of which so many were read and removed."""
    return (read - removed) // 8


def latest_of_each(thread: ThreadHeaders) -> set[CheckpointKey]:
    """LangGraph's `keep_latest`: the newest checkpoint of each namespace, what is tagged, and what going back to that needs."""
    tagged = set(thread.tags.values())
    named = sorted(checkpoint for ns, checkpoint in tagged if ns == ROOT)
    kept = {*newest_of_each(thread.headers).items(), *tagged, *_taken_back_to(thread, named)}
    staying = {place: thread.headers[place] for place in kept if place in thread.headers}
    return kept - left_over(staying, {}, thread.deleted, tagged)  # calls of subgraphs whose root checkpoint goes


def everything(thread: ThreadHeaders) -> set[CheckpointKey]:
    """All that is not left over."""
    return set(thread.headers)


def other_runs(runs: set[str], thread: ThreadHeaders) -> set[CheckpointKey]:
    """All but the checkpoints of these runs, tagged or not: they are to be deleted, whatever else needs them."""
    return {place for place, header in thread.headers.items() if header.run not in runs}


def newest_roots(thread: ThreadHeaders, *, limit: int | None, age: int | None) -> set[CheckpointKey]:
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
    kept: set[CheckpointKey] = {(ROOT, checkpoint) for checkpoint in roots[:1]}
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


def _taken_back_to(thread: ThreadHeaders, roots: Sequence[str]) -> Iterator[CheckpointKey]:
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
