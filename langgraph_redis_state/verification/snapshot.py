"""A snapshot of a thread: each field is verified, and reduced to what can be compared. Pure functions, no I/O.

A repair changes the snapshot first, and then applies the difference on the server.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..address import Address
from ..caching.parts import Parts
from ..errors import CheckpointCorruptError
from ..operations.thread_headers import CheckpointKey, left_over
from ..scripts.replies import ThreadState
from ..storage import bodies, chunks, keys, records, statements, thread_fields
from ..storage.codec import DIGEST, plain_size
from ..storage.records import FIXED, STAMP, Header
from ..storage.seals import Seal
from ..storage.statements import Gathered

RECORDS, PARTS = (b"C", b"W", b"H"), (b"D", b"P")
"""Kinds of fields."""


@dataclass(slots=True, eq=False)
class Record:
    """A checkpoint, a delta history, or one of many pending writes. `logical` and `chunked` are what the scripts count, read
    from bytes that may not verify."""

    at: int
    size: int
    logical: int
    chunked: int
    header: Header = field(default_factory=Header)
    checksum: bytes = b""
    places: int = 0
    problem: str = ""


@dataclass(slots=True)
class Field:
    """A field of the hash, without its content."""

    size: int
    """Bytes of name and content, except for those of its records."""
    records: list[Record] = field(default_factory=list)
    refers: tuple[bytes, ...] = ()
    """Of a page, the fields of its chunks; of a tag, the field of its checkpoint; of pending writes, those of segments."""
    plain: int = 0
    """Of a chunk, its plain bytes; of a directory of pending writes, how many it counts."""
    segments: tuple[bytes, ...] = ()
    """The other fields of pending writes that stand in several: the directory and the segments."""
    problem: str = ""
    content: bytes = b""
    """Of what belongs to the statement of the thread, its content."""
    lost: list[str] = field(default_factory=list)
    """Of a delta history, the channels that it cannot rebuild."""


@dataclass
class ThreadSnapshot(ThreadState):
    """A thread at one revision."""

    address: Address
    deleted: set[CheckpointKey] = field(default_factory=set)
    """Absent checkpoints to which something belongs and which the tombstone names."""
    fields: dict[bytes, Field] = field(default_factory=dict)
    fresh: bool = False
    """Whether the statement of the thread is looked at, and made anew when something goes."""
    unstated: bool = False
    """A thread without a statement is accepted."""
    restated: bool = False
    """Whether a new statement is to be made."""
    unknown: set[bytes] = field(default_factory=set)
    """Names of fields that this version does not write."""
    index: dict[bytes, float] = field(default_factory=dict)

    def copy(self) -> ThreadSnapshot:
        return replace(
            self,
            wrong=list(self.wrong),
            fields=dict(self.fields),
            unknown=set(self.unknown),
            index=dict(self.index),
            runs=set(self.runs),
            metadata=set(self.metadata),
        )

    @property
    def thread(self) -> bytes:
        return self.address.keys.name

    @property
    def size(self) -> int:
        return sum(each.size for each in self.fields.values())

    def holds(self, checkpoint: bytes) -> bool:
        """Whether the hash or the index has this field of a checkpoint."""
        return checkpoint in self.fields or checkpoint in self.index

    def records(self, kind: bytes) -> Iterator[Record]:
        return (record for name, each in self.fields.items() if name[:1] == kind for record in each.records)

    def highest(self, kind: bytes) -> int:
        """The highest version or revision that one of these records has from the server."""
        return max((record.header.version for record in self.records(kind)), default=0)

    def used_runs(self) -> set[bytes]:
        return {keys.run_entry(record.header.run.encode()) for record in self.records(b"C") if record.header.run}

    def headers(self) -> dict[CheckpointKey, Header]:
        """The headers of all checkpoints. A checkpoint that is damaged or lost has an empty header."""
        named = {name for name in (*self.fields, *self.index) if name[:1] == b"C" and is_field(name)}
        held = {name: self.fields[name].records for name in named & self.fields.keys()}
        return {_checkpoint_key(name): held[name][0].header if held.get(name) else Header() for name in named}

    def early(self) -> dict[CheckpointKey, int]:
        """Pending writes without their checkpoint, and when they were stored."""
        return {
            _checkpoint_key(name): max(record.header.created_at for record in each.records)
            for name, each in self.fields.items()
            if name[:1] == b"W" and not self.holds(b"C" + name[1:])
            if each.records and not any(record.problem for record in each.records)
        }

    def left_over(self) -> set[CheckpointKey]:
        tagged = {_checkpoint_key(name) for each in self.fields.values() for name in each.refers if name[:1] == b"C"}
        return left_over(self.headers(), self.early(), self.deleted, tagged)

    def parts(self, record: Record) -> Iterator[bytes]:
        """The pages and chunks to which a record refers. The chunks of a page that is gone are not known."""
        for name in record.header.pages:
            page = self.fields.get(b"P" + name)
            yield from (b"P" + name, *(page.refers if page else ()))
        yield from (b"D" + name for name in record.header.loose)

    def users(self) -> Counter[bytes]:
        """How many records refer to each page and chunk."""
        return Counter(part for kind in RECORDS for record in self.records(kind) for part in set(self.parts(record)))

    # --- what a repair does ---

    def drop(self, name: bytes) -> None:
        """Removes a field with its index entries; of a checkpoint, its pending writes and its delta history too."""
        for each in (name, b"W" + name[1:], b"H" + name[1:]) if name[:1] == b"C" else (name,):
            self.restated = self.restated or each[:1] in RECORDS
            self.fields.pop(each, None)
        for member in keys.members_of(name):
            self.index.pop(member, None)

    def drop_write(self, name: bytes, record: Record | None) -> None:
        each = self.fields.get(name)
        staying = [other for other in each.records if other is not record] if each else []
        if each and staying:  # in one list
            size = len(self.address.keys.names.field(name)) + 4
            self.fields[name] = replace(each, size=size, records=staying, segments=(), problem="")
            self.restated = True
        else:
            self.drop(name)

    def drop_settings(self) -> None:
        self.settings = None
        self.drop(b"T")

    def drop_thread(self) -> None:
        self.index, self.active, self.expiry, self.runs, self.metadata = {}, None, None, set(), set()

    def drop_key(self, n: int) -> None:
        self.wrong.remove(n)
        self.there = self.there and n != 1

    def restate(self) -> None:
        self.restated = True

    def gathered(self) -> Gathered:
        """What the statement of the thread speaks of."""
        found = Gathered()
        for name, each in self.fields.items():
            where = keys.split_field(name)
            if name[:1] == b"C":
                found.records[where] = each.records[0].checksum if each.records else b""
            elif name[:1] == b"W":
                for record in each.records:
                    marker = records.write_marker(record.header.index, record.header.task.encode())
                    found.writes[where].append((record.header.version, marker, record.checksum))
            elif each.content:
                found.add(name, each.content, self.address.place(name[:1], *where))
        return found

    def add_to_index(self, *members: bytes) -> None:
        """Adds the members whose field still exists."""
        self.index |= {member: 0 for member in members if field_of(member) in self.fields}

    def expire_with_hash(self) -> None:
        self.index_left, self.bucket_left = self.left, -1
        self.expiry = None if self.left < 0 else self.now + self.left

    def activate(self) -> None:
        self.active = self.now


# --- fields, verified ---


def examine(address: Address, name: bytes, content: bytes) -> Field:
    """A field, verified as far as no serializer is needed."""
    by, named = address.seal, len(address.keys.names.field(name))
    found = Field(named + len(content))
    kind = name[:1]
    spoken = kind in RECORDS or kind == b"F"
    place = address.place(name if kind == b"G" else kind, *(keys.split_field(name) if spoken else (b"", b"")))
    try:
        if kind == b"D":
            found.plain = plain_size(content)
            Parts(chunks={name[1:]: content}, by=by).chunk(name[1:], place)
        elif kind == b"P":
            found.refers = tuple(b"D" + chunk for chunk in Parts(pages={name[1:]: content}).page(name[1:], place))
        elif kind == b"G":
            found.refers = (keys.checkpoint_field(*thread_fields.open_tag(content, place, by)),)
        elif kind == b"F" or name == b"Z":
            found.content = content
            statements.open_frozen(content, place, by) if kind == b"F" else statements.Statement.open(content, place, by)
        elif kind in (b"C", b"H"):
            found.records, found.size = [_examine_record(0, content, place, by, found)], named
        elif kind == b"W":
            fields, names = keys.writes_field(*keys.split_field(name)), b""
            if keys.segment_of(name) == b"":
                found.plain, names = thread_fields.open_directory(content, place)
            else:
                names, blob = thread_fields.as_list(content)
                raws = enumerate(list(thread_fields.split_writes(blob, place)))
                found.size = named + 4 + len(names)
                found.records = [_examine_record(n, raw, place, by, found) for n, raw in raws]
                found.problem = _strangers(found.records, keys.segment_of(name))
            each = range(0, len(names), thread_fields.NAME)
            found.refers = tuple(fields + b"\0" + names[at : at + thread_fields.NAME] for at in each)
    except CheckpointCorruptError as error:
        found.problem = _message(error, place)
    return found


def join_writes(fields: dict[bytes, Field]) -> None:
    """Puts the pending writes of each checkpoint into one field, under the name of their list, wherever they stand."""
    spread: dict[bytes, list[bytes]] = defaultdict(list)
    for name in fields:
        if name[:1] == b"W":
            spread[keys.writes_field(*keys.split_field(name))].append(name)
    for head, names in spread.items():
        parts = [fields.pop(name) for name in sorted(names)]
        records = [replace(record, at=n) for n, record in enumerate(record for each in parts for record in each.records)]
        whole = fields[head] = Field(sum(each.size for each in parts), records)
        whole.problem = "; ".join(each.problem for each in parts if each.problem)
        if names != [head]:
            whole.segments = tuple(name for name in sorted(names) if name != head)
            named, told = {head, head + b"\0"}.union(*(each.refers for each in parts)), sum(each.plain for each in parts)
            if not whole.problem and (named != {head, *names} or told != len(records)):
                whole.problem = f"{len(records)} pending writes where another number was stored"
        _find_twice(records)


def _find_twice(writes: Sequence[Record]) -> None:
    markers = set()
    for record in writes:
        record.size += 4  # its length precedes each
        marker = (record.header.index, record.header.task)
        if not record.problem and marker in markers:
            record.problem = f"write {marker[0]} of task {marker[1]!r} stands there twice"
        markers.add(marker)


def _examine_record(at: int, raw: bytes, place: records.RecordKey, by: Seal, found: Field) -> Record:
    head = raw[STAMP : STAMP + FIXED]
    record = Record(at, len(raw), int.from_bytes(head[10:15], "big"), int.from_bytes(head[15:20], "big"))
    try:
        header, plain = records.open_record(raw, place, by)
        record.checksum = statements.record_checksum(raw, place)
        values: Sequence[bodies.Entry | bodies.Write | bodies.History]
        places = 0
        if place.kind == b"C":
            values = bodies.open_checkpoint(header, plain, place)[2]
        elif place.kind == b"W":
            values = [bodies.open_write(header, plain, place)]
        else:
            history = bodies.open_history(header, plain, place)
            values, places, found.lost = [history], history.places, history.lost
        places += sum(chunks.count(each.content) for each in values if not isinstance(each.content, bytes))
        record.header, record.places = header, places
    except CheckpointCorruptError as error:
        record.problem = _message(error, place)
    return record


def _strangers(writes: Sequence[Record], segment: bytes | None) -> str:
    """A put would not find the writes of tasks that have another segment, and store them twice."""
    tasks = {write.header.task for write in writes if not write.problem} if segment else ()
    strange = sorted(task for task in tasks if thread_fields.segment_name(task) != segment)
    return f"pending writes of task {strange[0]!r} stand in another segment than its own" if strange else ""


def _message(error: Exception, place: records.RecordKey) -> str:
    return str(error).removeprefix(f"{place}: ")


# --- names ---


def where_of(name: bytes) -> str:
    """A description of a field of the hash."""
    kind = name[:1]
    if kind in (*RECORDS, b"F") and is_field(name):
        ns, checkpoint = map(keys.shown, keys.split_field(name))
        of = {b"W": "pending writes of ", b"H": "delta history of ", b"F": "statement on "}.get(kind, "")
        return f"{of}checkpoint {checkpoint!r} of namespace {ns!r}"
    if kind in PARTS and is_field(name):
        return f"{'chunk' if kind == b'D' else 'page of references'} {name[1:].hex()}"
    if kind == b"G":
        return f"tag {keys.shown(name[1:])!r}"
    return {b"S": "counts (field S)", b"T": "TTL settings (field T)", b"Z": "statement (field Z)"}.get(name, f"field {name!r}")


def where_of_member(member: bytes) -> str:
    return where_of(field_of(member)) if is_field(field_of(member)) else f"member {member!r} of the index"


def is_field(name: bytes) -> bool:
    """Whether this version writes fields of that name."""
    kind, text = name[:1], name[1:]
    if kind in PARTS:
        return len(text) == DIGEST
    if name in (b"S", b"T", b"O", b"Z"):
        return True
    parts = text.split(b"\0")
    if kind == b"W" and len(parts) == 3 and len(parts[2]) in (0, thread_fields.NAME):
        parts.pop()
    shaped = len(parts) == 2 and parts[1] if kind in (*RECORDS, b"F") else len(parts) == 1 and text if kind == b"G" else False
    return bool(shaped) and is_text(text)


def is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def field_of(member: bytes) -> bytes:
    """The field that a member of the index names."""
    checkpoint, _, ns = member[1:].partition(b"\0")
    return keys.checkpoint_field(ns, checkpoint) if member[:1] == b"A" else member


def _checkpoint_key(field: bytes) -> CheckpointKey:
    ns, checkpoint = keys.split_field(field)
    return ns.decode(), checkpoint.decode()
