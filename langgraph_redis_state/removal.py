"""What `remove.lua` is told, worked out from a survey of a thread, verified headers all of it. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from . import keys, records
from .deltas import Cut
from .effects import Argument, counted
from .retention import Place, Survey, Written

WEIGHED = 200
"""Chunks and pages that go and whose content one script looks at."""
SWAP_BYTES = 1024
"""A removal makes the thread anew from what stays, instead of taking out what goes, where that is less; so many bytes count as
one more field."""
REMADE = 5
"""A field that is made anew, which is read and written, holds the server as long as so many that are taken out."""
SHORT = 16_000
"""One script takes out so many fields and members of indexes, or makes anew what takes as long: some 12 ms. Where both are
more, what stays is copied to staging first, in many short scripts."""
STAGED_BYTES = 64 * 1024 * 1024
"""Staging holds what stays a second time for a moment. Where that is more than this, the thread is not copied, and one script
removes what goes, however long that takes."""


class Removal(NamedTuple):
    """What `remove.lua` is told besides thread and revision; its header says what each means."""

    how: str
    fewer: tuple[int, ...]
    fields: Collection[bytes]
    members: Collection[bytes]
    runs: Collection[bytes] = ()
    replaced: Mapping[bytes, bytes] = {}
    weighed: Sequence[bytes] = ()
    filed: Sequence[tuple[bytes, bytes]] = ()

    @classmethod
    def of(
        cls,
        survey: Survey,
        gone: set[Place],
        replaced: Mapping[Place, Written],
        cut: Cut,
        listed: set[bytes],
        swept: Sequence[bytes],
        weights: tuple[int, int, int],
        staging: bool,
    ) -> Removal | None:
        """What goes, worked out; None if nothing is to be done.

        `cut`: delta histories to be written; `listed`: all fields; `swept`: the chunks and pages that go; `weights`: stored
        bytes of the thread, and of what is swept, but for the first WEIGHED of it, stored bytes and plain bytes of chunks;
        `staging`: whether it may be used.
        """
        members: dict[bytes, Place] = {b"G" + name.encode(): place for name, place in survey.tags.items()}
        for place in survey.headers:
            members.update(dict.fromkeys(keys.index_members(place[0].encode(), place[1].encode()), place))
        unlisted = {name for name, place in members.items() if place in gone}
        fresh = {
            keys.writes_field(ns.encode(), checkpoint.encode()): records.joined_writes([raw for _, raw in written])
            for (ns, checkpoint), written in replaced.items()
        }
        fresh |= cut.fields
        leaving = unlisted | {
            field(ns.encode(), checkpoint.encode())
            for ns, checkpoint in gone
            for field in (keys.writes_field, keys.history_field)
        }
        leaving |= {name for name, content in fresh.items() if not content}
        leaving &= listed
        fresh = {name: content for name, content in fresh.items() if content}
        if not leaving and not swept and not fresh:
            return None

        writes = [header for place in gone | replaced.keys() for header, _ in survey.writes.get(place, ())]
        written_again = [header for written in replaced.values() for header, _ in written]
        came = [*written_again, *cut.headers.values()]
        went = writes + [survey.headers[place] for place in gone]
        went += [header for place, header in survey.histories.items() if place in gone]
        stored, size, plain = weights
        size += sum(survey.sizes.get(name, 0) for name in leaving)
        size -= sum(len(name) + len(content) - survey.sizes.get(name, 0) for name, content in fresh.items())
        runs = {survey.headers[place].run for place in gone}
        runs -= {header.run for place, header in survey.headers.items() if place not in gone}

        leaving |= set(swept)
        staying = listed - leaving - fresh.keys() - {b"S", b"T", b"O"}
        indexed = members.keys() - unlisted
        stays = stored - size
        entries = 2 * len(runs)  # of the bucket's index, which go in the same script
        taken_out = len(leaving) + len(unlisted) + entries
        made_anew = REMADE * (len(staying) + stays // SWAP_BYTES) + len(indexed) + entries
        how = "keep" if made_anew < taken_out else "drop"
        if staging and min(taken_out, made_anew) > SHORT and stays <= STAGED_BYTES:
            how = "staged"
        fields, index = (leaving, unlisted) if how == "drop" else (staying, indexed)
        fewer = (
            len(gone),
            len(writes) - len(written_again),
            sum(name[:1] == b"D" for name in swept) - cut.chunks,
            size,
            sum(header.logical for header in went) - sum(header.logical for header in came),
            plain - cut.plain,
            sum(header.chunked for header in went) - sum(header.chunked for header in came),
        )
        return cls(how, fewer, fields, index, {run.encode() for run in runs if run}, fresh, swept[:WEIGHED])

    @property
    def arguments(self) -> list[Argument]:
        what: list[Collection[Argument]] = [sorted(self.fields), sorted(self.members)]
        if self.how == "staged":
            what = [[len(self.fields)], [len(self.members)]]
        lists = [*what, sorted(self.runs), self.replaced.items(), self.weighed, self.filed]
        return [self.how, *self.fewer, *chain.from_iterable(map(counted, lists))]  # sorted sets take what is in order faster
