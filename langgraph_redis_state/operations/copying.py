"""copy_thread and rekey: the fields of a thread, verified, made those of another one, or of itself under another key."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ..address import Address
from ..caching.parts import Parts
from ..effects import Command, Operation, Read, compute
from ..errors import CheckpointCorruptError, CheckpointLostError, KeyProviderError, ThreadBusyError, ThreadNotFoundError
from ..scripts import commands
from ..storage import keys, records, thread_fields
from ..storage.codec import CompressionType, digest
from ..storage.keys import ThreadKeys
from ..storage.statements import Gathered, Statement
from ..storage.thread_fields import Counts
from . import freshness
from .buckets import all_threads
from .engine import Engine
from .reading import fetch, raise_locked
from .removing import BUSY_TRIES
from .uploading import stage

FIELDS_READ = 100
"""Fields read at once: at most some 26 MB, since no chunk is larger than 256 KiB."""


class Copying:
    """One copy. Every field is verified before it is sealed for its new place. Chunks come first, since their names may depend
    on the key, then pages, which name chunks, then what refers to both. `anew`: chunks are packed anew in any case."""

    def __init__(
        self,
        origin: Address,
        target: Address,
        compression: CompressionType,
        verb: str,
        anew: bool = False,
        stated: bool = False,
    ) -> None:
        self.origin, self.target, self.compression, self._anew = origin, target, compression, anew
        self.about = f"{verb}: thread {origin.thread!r}"
        self.renamed: dict[bytes, bytes] = {}
        """Chunks and pages that have other names in the copy."""
        self._copied: set[bytes] = set()
        self._needed: set[bytes] = set()
        self._writes, self._told = dict[bytes, int](), dict[records.RecordKey, int]()
        self.runs: dict[bytes, None] = {}
        """Of the checkpoints so far."""
        self.here = Gathered() if stated else None
        """What stands there, where statements are made, and what in the copy."""
        self.there = Gathered() if stated else None
        self.statement: dict[bytes, bytes] = {}
        """The fields of the copy's statement."""
        self.stored = self.chunks = self.unique = self.members = 0
        """Bytes that the fields take, chunks, their plain bytes, and members of the index."""

    def check(self) -> None:
        """Raises if a page or a chunk to which a field refers was not among them, or a pending write that is counted."""
        if lacking := self._needed - self._copied:
            raise CheckpointLostError(f"{self.about}: {len(lacking)} parts of the thread are gone; nothing was copied")
        came = Counter[tuple[bytes, bytes]]()
        for name, number in self._writes.items():
            came[keys.split_field(name)] += number
        for place, number in self._told.items():
            if came[place.ns, place.checkpoint] != number:
                raise CheckpointCorruptError(f"{place}: pending writes are gone, or their number is wrong; nothing was copied")

    @property
    def fields(self) -> int:
        return len(self._copied) + len(self.statement)

    def check_statement(self, statement: Statement | None) -> None:
        """Holds what was copied against the statement that it had."""
        if self.here is not None and statement is not None:
            for _, error in self.here.check(statement, self.origin.place(b"C", b"", b""), self.origin.seal):
                raise error

    def make_statement(self, after: Statement | None) -> Statement | None:
        """Makes the copy's statement, which follows another one; None: it has none."""
        if self.there is None:
            return None
        made, self.statement = self.there.fields(after, self.target.place(b"C", b"", b""), self.target.seal)
        return made

    def counts(self, before: Counts) -> bytes:
        """The counts of the copy, for the script."""
        return before._replace(stored=self.stored, chunks=self.chunks, unique=self.unique).numbers

    def resealed(self, there: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """These fields as the other thread has them, and the members of its index that name them."""
        found: dict[bytes, bytes] = {}
        for name, content in there:
            made = self._resealed(name, content)
            if made is not None and made[0] not in self._copied:
                found[made[0]] = made[1]
                self._copied.add(made[0])
        if b"T" in found:  # the settings do not count as stored, as they do not on the server
            self.stored -= len(b"T") + len(found[b"T"])
        self.stored += sum(len(self.target.keys.names.field(name)) + len(content) for name, content in found.items())
        members = [member for name in found for member in keys.members_of(name)]
        self.members += len(members)
        return list(found.items()), members

    def _resealed(self, name: bytes, content: bytes) -> tuple[bytes, bytes] | None:
        kind = name[:1]
        if kind == b"F" or name == b"Z":
            if self.here is not None:
                self.here.add(name, content, self.origin.place(kind, *(keys.split_field(name) if kind == b"F" else (b"", b""))))
            return None
        if kind == b"P":
            return self._page(name[1:], content)
        if kind == b"D":
            return self._chunk(name[1:], content)
        if name == b"T":
            line = thread_fields.opened_line(content, self.origin.keys.name, self.about, "TTL settings (field T)")
            return name, thread_fields.sealed_line(line, self.target.keys.name)
        if kind == b"G":
            here, there = (each.place(name, b"", b"") for each in (self.origin, self.target))
            named = thread_fields.open_tag(content, here, self.origin.seal)
            return name, thread_fields.seal_tag(*named, there, self.target.seal)
        if kind in (b"C", b"W", b"H"):
            return name, self._records(name, content)
        if name not in (b"S", b"O") and (self.origin is self.target or kind == b"\0"):
            raise CheckpointCorruptError(
                f"{self.about}: field {name.lstrip(bytes(1))!r} has no name of this package, or was damaged, and would be "
                "dropped; nothing was written. `verify` says what it finds in the thread"
            )
        return None  # the script writes the counts, and which operation made the origin does not matter

    def _chunk(self, name: bytes, content: bytes) -> tuple[bytes, bytes]:
        plain, by = Parts({}, {name: content}, by=self.origin.seal).chunk(name, self.about), self.target.seal
        made = by.name(plain)
        if made != name:
            self.renamed[name] = made
        self.chunks += b"D" + made not in self._copied
        self.unique += 0 if b"D" + made in self._copied else len(plain)
        same = made == name and by.is_current(content) and not self._anew
        return b"D" + made, content if same else by.pack(made, plain, self.compression)

    def _page(self, name: bytes, content: bytes) -> tuple[bytes, bytes]:
        chunks = [self.renamed.get(each, each) for each in Parts({name: content}).page(name, self.about)]
        self._needed.update(b"D" + chunk for chunk in chunks)
        content = b"".join(chunks)
        made = digest(content)
        if made != name:
            self.renamed[name] = made
        return b"P" + made, content

    def _records(self, name: bytes, content: bytes) -> bytes:
        here, there = (each.place(name[:1], *keys.split_field(name)) for each in (self.origin, self.target))
        made = self._resealed_records(name, content, here, there)
        if self.here is not None and self.there is not None:
            self.here.add(name, content, here)
            self.there.add(name, made, there)
        return made

    def _resealed_records(self, name: bytes, content: bytes, here: records.RecordKey, there: records.RecordKey) -> bytes:
        if name[:1] != b"W":
            return self._moved(content, here, there)
        if keys.segment_of(name) == b"":
            self._told[here], _ = thread_fields.open_directory(content, here)
            return content
        if keys.segment_of(name):
            self._told.setdefault(here, 0)  # a directory has it
        names, blob = thread_fields.as_list(content)
        raws = [self._moved(raw, here, there) for raw in thread_fields.split_writes(blob, here)]
        self._writes[name] = len(raws)
        return content[: 4 + len(names)] + thread_fields.joined_writes(raws)[4:]

    def record(self, raw: bytes, here: records.RecordKey, there: records.RecordKey) -> tuple[records.Header, bytes]:
        """A record as it is stored at its new place."""
        return records.moved(raw, here, there, self.origin.seal, self.target.seal, self.renamed)

    def _moved(self, raw: bytes, here: records.RecordKey, there: records.RecordKey) -> bytes:
        header, record = self.record(raw, here, there)
        self._needed.update(b"P" + page for page in header.pages)
        self._needed.update(b"D" + chunk for chunk in header.loose)
        if header.run:
            self.runs[header.run.encode()] = None
        return record


def metadata_query(thread: ThreadKeys) -> Command:
    """Asks for what is indexed of a thread's metadata."""
    entry = b"T" + thread.name + b"\0"
    return "ZRANGEBYLEX", thread.all[5], b"[" + entry, b"[" + entry + b"\xff"


def metadata_told(thread: ThreadKeys, members: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Names and values in the reply to `metadata_query`."""
    begin = len(thread.name) + 2
    return [(name, value) for name, _, value in (member[begin:].partition(b"\0") for member in sorted(members))]


def copy_thread(engine: Engine, source: Any, target: Any) -> Operation[None]:
    """Reads the source field by field, seals each record for its new place, fills staging, and makes it the thread with
    one script. The source's revision, the same before and after, says that what was read belongs together."""
    origin = engine.address(source)
    copy = engine.address(target)
    about = f"copy_thread: from {origin.thread!r} to {copy.thread!r}"
    if origin.thread == copy.thread:
        raise ValueError(f"{about}: a thread cannot be copied onto itself")
    yield from engine.check_layout(True, commands.STAGE, commands.COMMIT_COPY, commands.GET)
    for _ in range(BUSY_TRIES):
        if (yield from _copy_once(engine, origin, copy, about)):
            return
    raise ThreadBusyError(
        f"{about}: the source changed each of {BUSY_TRIES} times while it was read; nothing was copied, "
        "try again when it is quieter"
    )


def rekey(engine: Engine, threads: Sequence[Any] | None, progress: Callable[[int], None] | None) -> Operation[int]:
    """Makes each thread anew, under the first key, as this saver writes: in staging, as a copy is. One
    script puts it in place of the old one, if that did not change meanwhile.

    Cut in the middle, the thread is as it was, and staging expires. Repeated, threads that are done are only read. A second
    process sees the thread before or after; chunks that it knew by their old names, it sends again with its next put.
    """
    yield from engine.check_layout(True, commands.STAGE, commands.COMMIT_COPY, commands.GET)
    if threads is None:
        threads = [thread for thread, _ in (yield from all_threads(engine))]
    keys.check_several(threads, "rekey: thread_ids")
    done, locked = 0, list[KeyProviderError]()
    for thread in tuple(threads):
        target = engine.address(thread)
        about = target.about("rekey")
        try:
            yield from engine.unlock(target)
        except KeyProviderError as error:  # its key is gone, for ever maybe: the others are still done
            locked.append(error)
            continue
        for _ in range(BUSY_TRIES):
            changed = yield from _rekey_once(engine, target, about)
            if changed is not None:
                break
        else:
            raise ThreadBusyError(
                f"{about}: the thread changed each of {BUSY_TRIES} times while it was read; it is as it was, {done} threads "
                "before it were written anew. Try again when it is quieter"
            )
        done += changed
        if progress is not None:
            progress(done)
    raise_locked("rekey", locked)
    return done


def _rekey_once(engine: Engine, target: Address, about: str) -> Operation[bool | None]:
    """Whether the thread was written anew; None if it changed meanwhile."""
    counts, *_ = yield Read([("HGET", target.keys.hash, "S")], about)
    if counts is None:
        return False  # it expired or was deleted
    names = yield from _field_names(target, about)
    current, proof = engine.settings.fresh == (b"Z" in names), _proof(engine, target)
    for at in range(0, len(names), FIELDS_READ):
        there = yield from read_fields(target, names[at : at + FIELDS_READ], about)
        current = current and all(_is_current(target, name, content) for name, content in there) and _opens(proof, there)
    if current:
        return False
    return (yield from _copy_once(engine, target, target, about, counts)) or None


def _is_current(target: Address, name: bytes, content: bytes) -> bool:
    by, kind = target.seal, name[:1]
    if kind == b"D":
        return by.is_current(content)
    if kind == b"G":
        return content[:2] == by.sign_tag((), b"")[:2]
    if kind in (b"F", b"Z"):
        return content[1:3] == bytes([by.flags, by.key_id])
    if kind in (b"C", b"H"):
        raws = [content]
    elif kind == b"W" and keys.segment_of(name) != b"":
        place = target.place(b"W", *keys.split_field(name))
        raws = list(thread_fields.split_writes(thread_fields.as_list(content)[1], place))
    else:
        return True
    return all(records.is_current(raw, by) for raw in raws)


def _proof(engine: Engine, target: Address) -> Copying | None:
    """What opens fields with the first key only, where its id is that of another key too."""
    if not target.seal.is_unsure:
        return None
    alone = engine.address(target.thread)
    alone.seal = target.seal.first_only()
    return Copying(alone, alone, engine.settings.compression, "rekey")


def _opens(proof: Copying | None, there: Sequence[tuple[bytes, bytes]]) -> bool:
    if proof is not None:
        try:
            proof.resealed(there)
        except CheckpointCorruptError:
            return False
    return True


def _field_names(origin: Address, about: str) -> Operation[list[bytes]]:
    """The fields of a thread, as they stand in the hash: chunks first, then pages, then the others."""
    (names,) = yield Read([("HKEYS", origin.keys.hash)], about)
    return sorted(names, key=lambda name: (b"DP".find(name[:1]) % 3, name))


def read_fields(origin: Address, names: Sequence[bytes], about: str) -> Operation[list[tuple[bytes, bytes]]]:
    """These fields, given as they stand in the hash: by their plain names, as far as they are still there."""
    (contents,) = yield Read([("HMGET", origin.keys.hash, *names)], about)
    plain = origin.keys.names.field_of
    return [(plain(name), content) for name, content in zip(names, contents, strict=True) if content is not None]


def _copy_once(engine: Engine, origin: Address, copy: Address, about: str, replaced: bytes = b"") -> Operation[bool]:
    """`replaced`: the counts of the thread in whose place the copy comes; none: there must be no such thread."""
    yield from engine.unlock(origin)
    yield from engine.unlock(copy)
    counts, there = yield Read([("HGET", origin.keys.hash, "S"), ("EXISTS", origin.keys.hash)], about)
    if counts is None and not there:
        found, _ = yield from fetch(engine, origin, [(b"", b"")])  # raises if it was there and got lost
        if found:
            return False  # it came into being just now
        raise ThreadNotFoundError(f"{about}: there is no thread {origin.thread!r}")
    totals = Counts.of(counts, origin.keys.name, about)
    op = os.urandom(8).hex().encode()
    staged = copy.keys.staging(op)
    verb, fresh = "rekey" if origin is copy else "copy_thread", engine.settings.fresh
    copying = Copying(origin, copy, engine.settings.compression, verb, stated=fresh)
    names = yield from _field_names(origin, about)
    for at in range(0, len(names), FIELDS_READ):
        there = yield from read_fields(origin, names[at : at + FIELDS_READ], about)
        size = sum(len(content) for _, content in there)
        fields, members = yield from compute(partial(copying.resealed, there), size)
        yield from stage(copy, staged, fields, members, about)
    indexed, now = yield Read([metadata_query(origin.keys), ("HGET", origin.keys.hash, "S")], about)
    if now != counts:
        return False
    copying.check()
    before = freshness.gathered(engine, origin, copying.here)
    copying.check_statement(before)
    statement = copying.make_statement(before if origin is copy else None)
    yield from stage(copy, staged, copying.statement.items(), (), about)
    done = yield from (
        commands.commit_copy(
            copy.keys,
            about,
            staged,
            ttl=max(engine.settings.ttl, 0),  # what is staged expires soon, and a copy must not
            operation=op,
            counts=copying.counts(totals),
            fields=copying.fields,
            members=copying.members,
            runs=copying.runs,
            metadata=metadata_told(origin.keys, indexed),
            replaced=replaced,
        )
    )
    if done and statement is not None:
        yield from freshness.stands(engine, copy, (b"", copying.statement[b"Z"]), statement, {})
    return done
