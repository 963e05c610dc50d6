"""What a removal takes out of a thread and what that changes, worked out from verified headers, wherever they come from.

Mark and sweep happen here and not on the server: `remove.lua` is told what goes or what stays, whichever is less, and what the
counts lose. Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..scripts.commands import Fields, RemovalPlan
from ..serialization.deltas import Cut
from ..storage import keys, thread_fields
from ..storage.records import Header
from ..storage.thread_fields import Counts
from .thread_headers import CheckpointKey, StoredWrites, ThreadHeaders

WEIGHED = 200
"""Chunks and pages that go and whose content one script looks at."""

SWAP_BYTES = 1024
"""A removal makes the thread anew from what stays, instead of taking out what goes, where that is less; so many bytes count as
one more field."""

REMADE = 5
"""A field that is made anew, which is read and written, holds the server as long as so many that are taken out."""

HELD = 6000
"""One script takes out so many fields and members of the index, or makes anew what takes as long. Where both are more, what
stays is copied to staging first, by many short scripts."""

STAGED_BYTES = 64 * 1024 * 1024
"""Staging holds what stays a second time for a moment. If that is more than this, one script removes what goes, however long
that takes."""


@dataclass(slots=True)
class Removal:
    """Checkpoints that go from a surveyed thread, and of others the pending writes that stay."""

    survey: ThreadHeaders
    gone: set[CheckpointKey]
    replaced: dict[CheckpointKey, StoredWrites]
    listed: set[bytes]
    """All fields of the thread."""
    cut: Cut = field(default_factory=Cut)
    """Delta histories to be written."""

    def staying(self) -> Iterator[tuple[CheckpointKey, Header]]:
        """The headers of all records that stay or come, each with the checkpoint it belongs to."""
        written = {**self.survey.writes, **self.replaced}
        yield from ((place, header) for place, header in self.survey.headers.items() if place not in self.gone)
        yield from ((place, header) for place, each in written.items() if place not in self.gone for header, _ in each)
        histories = {**self.survey.histories, **self.cut.headers}
        yield from ((place, header) for place, header in histories.items() if place not in self.gone)

    def garbage(self, needed: Collection[bytes]) -> list[bytes]:
        """The chunks and pages that are not needed any more, and the fields of pending writes that go or come together."""
        parts = (name for name in self.listed if name[:1] in (b"D", b"P") and len(name) == 17 and name not in needed)
        return sorted([*parts, *self._in_segments()])

    def _in_segments(self) -> set[bytes]:
        """All fields of pending writes that stand in segments and go or come together. The survey has them as one list, so
        what they take is weighed."""
        going = {keys.writes_field(ns.encode(), checkpoint.encode()) for ns, checkpoint in self.gone | self.replaced.keys()}
        heads = {head for head in going if head + b"\0" in self.listed}
        names = {name for name in self.listed if name[:1] == b"W" and keys.writes_field(*keys.split_field(name)) in heads}
        for name in names if heads else ():
            self.survey.sizes.pop(name, None)
        return names

    def plan(
        self, garbage: Sequence[bytes], stored: int, size: int, plain: int, metadata: Fields, staging: bool
    ) -> RemovalPlan | None:
        """None if nothing is to be done. `stored`: bytes of the thread; `size`, `plain`: stored bytes of the garbage behind the
        first WEIGHED of it, and plain bytes of its chunks; `staging`: whether the plan may be a large one."""
        members: dict[bytes, CheckpointKey] = {b"G" + name.encode(): place for name, place in self.survey.tags.items()}
        for place in self.survey.headers:
            members.update(dict.fromkeys(keys.index_members(place[0].encode(), place[1].encode()), place))
        unlisted = {name for name, place in members.items() if place in self.gone}
        written = self.cut.fields | {
            keys.writes_field(ns.encode(), checkpoint.encode()): thread_fields.joined_writes([raw for _, raw in writes])
            for (ns, checkpoint), writes in self.replaced.items()
        }
        leaving = self._leaving(unlisted, written)
        written = {name: content for name, content in written.items() if content}
        if not leaving and not garbage and not written:
            return None
        sizes = self.survey.sizes
        size += sum(sizes.get(name, 0) for name in leaving)
        size -= sum(len(self.survey.names.field(name)) + len(content) - sizes.get(name, 0) for name, content in written.items())
        runs = {self.survey.headers[place].run for place in self.gone}
        runs -= {header.run for place, header in self.survey.headers.items() if place not in self.gone}

        leaving |= set(garbage)
        staying = self.listed - leaving - written.keys() - {b"S", b"T", b"O"}
        indexed = members.keys() - unlisted
        made_anew = REMADE * (len(staying) + (stored - size) // SWAP_BYTES) + len(indexed)
        taken_out = len(leaving) + len(unlisted)
        large = staging and min(made_anew, taken_out) > HELD and stored - size <= STAGED_BYTES
        rebuild = large or made_anew < taken_out
        return RemovalPlan(
            rebuild,
            self._deltas(garbage, size, plain),
            *((staying, indexed) if rebuild else (leaving, unlisted)),
            {run.encode() for run in runs if run},
            written,
            garbage[:WEIGHED],
            metadata,
            large,
        )

    def _leaving(self, unlisted: set[bytes], written: Mapping[bytes, bytes]) -> set[bytes]:
        """The fields that go, but for chunks and pages."""
        leaving = unlisted | {
            name(ns.encode(), checkpoint.encode())
            for ns, checkpoint in self.gone
            for name in (keys.writes_field, keys.history_field, keys.frozen_field)
        }
        return (leaving | {name for name, content in written.items() if not content}) & self.listed

    def _deltas(self, garbage: Sequence[bytes], size: int, plain: int) -> Counts:
        writes = [header for place in self.gone | self.replaced.keys() for header, _ in self.survey.writes.get(place, ())]
        written_again = [header for written in self.replaced.values() for header, _ in written]
        came = [*written_again, *self.cut.headers.values()]
        went = [*writes, *(self.survey.headers[place] for place in self.gone)]
        went += [header for place, header in self.survey.histories.items() if place in self.gone]
        return Counts.difference(
            checkpoints=len(self.gone),
            writes=len(writes) - len(written_again),
            chunks=sum(name[:1] == b"D" for name in garbage) - self.cut.chunks,
            stored=size,
            logical=sum(header.logical for header in went) - sum(header.logical for header in came),
            unique=plain - self.cut.plain,
            referred=sum(header.chunked for header in went) - sum(header.chunked for header in came),
        )
