"""What is wrong with a thread, found in one reading of it, and what mends it. Pure functions: no effects, no I/O.

`faults` finds; `apply` does to the reading what a repair will do on the server, so that `faults` can be asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from . import keys, records, retention
from .codec import DIGEST
from .errors import CheckpointCorruptError
from .records import Header
from .target import Target

RECORDS, PARTS = (b"C", b"W", b"H"), (b"D", b"P")
"""Kinds of fields."""
WRONG_TYPE = "the key is not of the type that belongs there"

Kind = Literal[
    "damaged", "lost", "unknown", "index", "bucket", "counts", "settings", "expiry", "orphan", "staging", "busy"
]  # fmt: skip
"""What can be wrong:

- `damaged`: a checkpoint, pending write, tag, chunk or page of references is not what was written, or not signed as it must be
- `lost`: something that an index or a record names is gone
- `unknown`: a field or key that this version did not write, or a key of the wrong type
- `index`, `bucket`: an index of the thread, or one of its bucket, does not say what the thread's hash says
- `counts`, `settings`: the field S or T of a thread is damaged, or the counts are wrong
- `expiry`: a thread's two keys do not expire at one moment
- `orphan`: a chunk or page that nothing refers to; a checkpoint of a subgraph whose root checkpoint is not there and does not
  come any more, or pending writes whose checkpoint is not there likewise. They take space until the next removal in that thread
- `staging`: what an upload, a copy or a removal left, and that does not expire
- `busy`: the thread changed each time it was read, so what must agree in it could not be compared
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `thread_id` is None where no thread is concerned."""

    kind: Kind
    thread_id: str | None
    where: str
    problem: str
    repairable: bool
    """`repair()` mends it, and nothing is lost. Otherwise what it names cannot be had back; `drop_unreadable` removes it."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a finding of that kind."""

    kind: Kind
    thread_id: str | None
    where: str
    done: str


REPAIRABLE = frozenset({"index", "bucket", "counts", "expiry", "orphan", "staging"})
"""What can be mended from what is there. What else `repair()` does takes something away."""


class Fault(NamedTuple):
    """A finding to be, and what mends it. `fixes`: in a thread, pairs of a list of `repair.lua` and what to put there; of what
    belongs to no thread, a command."""

    kind: Kind
    where: str
    problem: str
    done: str
    fixes: tuple[tuple[Any, ...], ...] = ()

    def found(self, thread: str | None) -> Finding:
        return Finding(self.kind, thread, self.where, self.problem, self.kind in REPAIRABLE)

    def mended(self, thread: str | None) -> Repair:
        return Repair(self.kind, thread, self.where, self.done)


@dataclass(slots=True)
class Record:
    """One record: the only one of a checkpoint's field, or one of many pending writes. `logical` and `chunked` as scripts
    take them, from bytes that may not verify."""

    at: int
    size: int
    logical: int
    chunked: int
    header: Header = field(default_factory=Header)
    places: int = 0
    problem: str = ""


@dataclass(slots=True)
class Field:
    """What there is to know of a field of the hash, without its content."""

    size: int
    """Bytes of name and content, but for those of its records."""
    records: list[Record] = field(default_factory=list)
    refers: tuple[bytes, ...] = ()
    """Fields of chunks for a page, the field of the checkpoint for a tag."""
    plain: int = 0
    problem: str = ""
    unknown: bool = False
    lost: list[str] = field(default_factory=list)
    """Of a delta history: channels that it cannot rebuild."""


@dataclass(slots=True)
class Reading:
    """A thread as it was at one moment. The first fields are the reply of `inspect.lua`."""

    wrong: list[int]
    counts: bytes | None
    settings: bytes | None
    there: bool
    indexed: int
    left: int
    index_left: int
    active: float | None
    expiry: float | None
    now: int
    bucket_left: int
    runs: set[bytes]
    meta: set[bytes]
    target: Target
    deleted: set[retention.Place] = field(default_factory=set)
    """Of the checkpoints that something belongs to and that are not there, those in the tombstone."""
    fields: dict[bytes, Field] = field(default_factory=dict)
    index: dict[bytes, float] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: Any, target: Target) -> Reading:
        wrong, counts, settings, there, indexed, left, index_left, active, expiry, now, bucket_left, runs, meta = reply[1:]
        active, expiry = (None if score is None else float(score) for score in (active, expiry))
        times = (left, index_left, active, expiry, int(now), bucket_left)
        return cls(list(wrong), counts, settings, bool(there), indexed, *times, set(runs), set(meta), target)

    @property
    def thread(self) -> bytes:
        return self.target.keys.name

    def records(self, kind: bytes) -> Iterator[Record]:
        return (record for name, each in self.fields.items() if name[:1] == kind for record in each.records)

    def highest(self, kind: bytes) -> int:
        """The highest number that the server gave to one of these records."""
        return max((record.header.version for record in self.records(kind)), default=0)

    def held_runs(self) -> set[bytes]:
        return {record.header.run.encode() for record in self.records(b"C") if record.header.run}

    def headers(self) -> dict[retention.Place, Header]:
        """Of all checkpoints; of those that are damaged or lost there is nothing in it."""
        named = {name for name in (*self.fields, *self.index) if name[:1] == b"C" and is_field(name)}
        held = {name: self.fields[name].records for name in named & self.fields.keys()}
        return {_place(name): held[name][0].header if held.get(name) else Header() for name in named}

    def early(self) -> dict[retention.Place, int]:
        """The pending writes whose checkpoint is not there: when they were stored."""
        return {
            _place(name): max(record.header.created_at for record in each.records)
            for name, each in self.fields.items()
            if name[:1] == b"W" and b"C" + name[1:] not in self.fields and b"C" + name[1:] not in self.index
            if each.records and not any(record.problem for record in each.records)
        }

    def left_over(self) -> set[retention.Place]:
        tagged = {_place(name) for each in self.fields.values() for name in each.refers if name[:1] == b"C"}
        return retention.left_over(self.headers(), self.early(), self.deleted, tagged)

    def parts(self, record: Record) -> Iterator[bytes]:
        """The pages and chunks that a record refers to, as far as its pages are there to tell."""
        for name in record.header.pages:
            page = self.fields.get(b"P" + name)
            yield from (b"P" + name, *(page.refers if page else ()))
        yield from (b"D" + name for name in record.header.loose)

    def users(self) -> Counter[bytes]:
        """How many records refer to each page and chunk."""
        return Counter(part for kind in RECORDS for record in self.records(kind) for part in set(self.parts(record)))


# --- what is wrong with a reading ---


def faults(reading: Reading) -> Iterator[Fault]:
    """Everything that is wrong. Consequences are told of only where they may be something else: counts and chunks that
    nothing refers to say nothing as long as a record is damaged or lost."""
    for n in set(reading.wrong) & {1, 2, 7}:
        key = keys.shown(reading.target.keys.all[n - 1])
        yield Fault("unknown", key, WRONG_TYPE, "removed", (("keys", n),))
    if 1 in reading.wrong:
        return
    if not reading.there:
        yield from _absent(reading)
        return
    found = [*_content(reading), *(() if 2 in reading.wrong else _index(reading))]
    yield from found
    yield from _chains(reading)
    whole = not any(fault.kind in ("damaged", "lost") for fault in found)
    for ns, checkpoint in reading.left_over():
        name = keys.checkpoint_field(ns.encode(), checkpoint.encode())
        if name in reading.fields:
            problem = "its root checkpoint is not there, and does not come any more"
            yield Fault("orphan", where_of(name), problem, "removed, with its pending writes", _dropped(name))
        else:
            problem = "their checkpoint is not there, and does not come any more"
            yield Fault("orphan", where_of(b"W" + name[1:]), problem, "removed", _dropped(b"W" + name[1:]))
    yield from _counts(reading, whole)
    if whole:
        needed = reading.users()
        for name in reading.fields:
            if name[:1] in PARTS and name not in needed and not reading.fields[name].unknown:
                yield Fault("orphan", where_of(name), "nothing refers to it", "removed", _dropped(name))
    if reading.settings is not None:
        try:
            records.opened_line(reading.settings, reading.thread, "", "")
        except CheckpointCorruptError:
            done = "removed; the saver's TTL applies from the next write"
            yield Fault("settings", where_of(b"T"), "they are damaged", done, _dropped(b"T"))
    yield from _expiry(reading)
    yield from _entries_of_bucket(reading)


def _absent(reading: Reading) -> Iterator[Fault]:
    strays = (*(("-runs", each) for each in reading.runs), *(("-meta", each) for each in reading.meta))
    if reading.index:
        problem = f"its hash is gone, while its index has {len(reading.index)} entries (evicted?)"
        yield Fault("lost", "the thread", problem, "what was left of it was removed", (("gone", b""), *strays))
    elif reading.expiry is not None and reading.expiry <= reading.now:
        return  # it expired, and the next writes to the bucket tidy up
    elif strays or reading.active is not None or reading.expiry is not None:
        problem = "they name the thread, which is not there"
        yield Fault("bucket", "the bucket's indexes", problem, "its entries were removed", (("gone", b""), *strays))


def _content(reading: Reading) -> Iterator[Fault]:
    users = reading.users() if any(each.problem for each in reading.fields.values()) else Counter[bytes]()
    for name, each in reading.fields.items():
        where, kind, drop = where_of(name), name[:1], _dropped(name)
        if each.unknown:
            yield Fault("unknown", where, "no field that this version writes", "removed", (("-fields", name),))
        elif each.problem:
            of_whom = f"; {users[name]} records refer to it" if kind in PARTS else ""
            yield Fault("damaged", where, each.problem + of_whom, "removed", drop)
        elif kind == b"G" and each.refers[0] not in reading.fields and each.refers[0] not in reading.index:
            yield Fault("lost", where, f"{where_of(each.refers[0])}, which it names, is gone", "removed", drop)
        for record in each.records:
            what, problem = _broken(reading, record)
            if what and kind == b"C":
                yield Fault(what, where, problem, "removed, with its pending writes", drop)
            elif what and kind == b"H":
                yield Fault(what, where, problem, "removed", drop)
            elif what:
                problem = f"write {record.at + 1} of {len(each.records)}: {problem}"
                yield Fault(what, where, problem, f"write {record.at + 1} was removed", (("writes", name),))


def _chains(reading: Reading) -> Iterator[Fault]:
    """Checkpoints whose DeltaChannels cannot be rebuilt, and delta histories of none. Nothing mends the former: removing it
    would only move the end of the chain to its children."""
    for name, each in reading.fields.items():
        kind, rest = name[:1], name[1:]
        if each.unknown or each.problem or any(record.problem for record in each.records):
            continue
        if kind == b"H" and each.lost:
            problem = f"channels {each.lost} cannot be rebuilt: what they were rebuilt from was gone before"
            yield Fault("lost", where_of(name), problem, "nothing")
        if kind == b"H" and b"C" + rest not in reading.fields and b"C" + rest not in reading.index:
            yield Fault("orphan", where_of(name), "its checkpoint is not there", "removed", _dropped(name))
        if kind != b"C" or b"H" + rest in reading.fields:
            continue
        header = each.records[0].header
        if header.depth and header.parent:
            parent = keys.checkpoint_field(keys.split_field(name)[0], header.parent.encode())
            if parent not in reading.fields:
                problem = f"DeltaChannels are rebuilt from ancestors, and its parent {header.parent!r} is gone"
                yield Fault("lost", where_of(name), problem, "nothing")


def _broken(reading: Reading, record: Record) -> tuple[Literal["damaged", "lost"] | None, str]:
    if record.problem:
        return "damaged", record.problem
    parts = {part: reading.fields.get(part) for part in reading.parts(record)}
    if part := next((part for part, each in parts.items() if each is None), b""):
        return "lost", f"{where_of(part)}, to which it refers, is gone"
    if any(each.problem for each in parts.values() if each):
        return None, ""
    chunks = [reading.fields[part].plain for part in reading.parts(record) if part[:1] == b"D"]
    if len(chunks) != record.places:
        return "damaged", f"{len(chunks)} references to chunks for {record.places} places"
    if sum(chunks) != record.chunked:
        return "damaged", f"its chunks take {sum(chunks)} bytes instead of the {record.chunked} that it declares"
    return None, ""


def _index(reading: Reading) -> Iterator[Fault]:
    sound: list[bytes] = []
    unsure: list[bytes] = []
    for name, each in reading.fields.items():
        if members := () if each.unknown else keys.members_of(name):
            torn = each.problem or any(_broken(reading, record)[0] for record in each.records)
            (unsure if torn else sound).extend(members)
    if not reading.index and (sound or unsure):
        fixes = tuple(("+index", member) for member in (*sound, *unsure))
        yield Fault("index", "the index", "it is gone, while the hash holds checkpoints", "written from the hash", fixes)
        return
    for member in sound:
        if reading.index.get(member, 1) != 0:
            problem = "it is not in the index, or not in its order"
            yield Fault("index", _where_of_member(member), problem, "its entry was written", (("+index", member),))
    done = "the entry was removed"
    for member in reading.index.keys() - {*sound, *unsure}:
        checkpoint = _checkpoint_of(member)
        if member[:1] == b"G" or (member[:1] == b"C" and is_field(member)):
            yield Fault("lost", where_of(member), "it is gone, but for its entry in the index", done, _dropped(member))
        elif member[:1] != b"A" or checkpoint not in reading.index or checkpoint in reading.fields:
            problem = "the index has it, and there is nothing of that name"
            yield Fault("index", _where_of_member(member), problem, done, (("-index", member),))


def _counted(reading: Reading) -> tuple[int, ...]:
    """What the field S shall say, from `checkpoints` on (prelude.lua)."""
    both = [record for kind in RECORDS for record in reading.records(kind)]
    chunk = [each for name, each in reading.fields.items() if name[:1] == b"D" and not each.unknown]
    held = [each for name, each in reading.fields.items() if name[:1] in (*RECORDS, *PARTS, b"G") and not each.unknown]
    return (
        sum(name[:1] == b"C" and not each.unknown for name, each in reading.fields.items()),
        sum(1 for _ in reading.records(b"W")),
        len(chunk),
        sum(each.size for each in held) + sum(record.size for record in both),
        sum(record.logical for record in both),
        sum(each.plain for each in chunk),
        sum(record.chunked for record in both),
    )


NAMES = ("checkpoints", "writes", "chunks", "stored bytes", "logical bytes", "unique chunk bytes", "referred chunk bytes")


def _stated(reading: Reading) -> records.Counts | None:
    """What the field S says; None if it is damaged or gone."""
    try:
        return records.Counts.of(reading.counts, reading.thread, "")
    except CheckpointCorruptError:
        return None


def _counts(reading: Reading, whole: bool) -> Iterator[Fault]:
    differing: list[str] = []
    stated = _stated(reading)
    if stated is None:
        differing.append("they are damaged or gone")
    elif whole:
        for name, number, right in zip(NAMES, stated[3:], _counted(reading), strict=True):
            if number != right:
                differing.append(f"{name} {number} instead of {right}")
        if stated.versions < reading.highest(b"C"):
            differing.append(f"{stated.versions} versions, and there is one of a higher number")
        if stated.changes < reading.highest(b"W"):
            differing.append(f"revision {stated.changes}, and there is a write of a higher one")
    if differing:
        yield Fault("counts", where_of(b"S"), "; ".join(differing), "counted anew", (("counts", b""),))


def counts_line(reading: Reading) -> bytes:
    """The field S as it shall be, of the next revision."""
    born, changes, versions, *_ = _stated(reading) or (reading.now * 1000, 0, 0)
    changes, versions = max(changes, reading.highest(b"W")) + 1, max(versions, reading.highest(b"C"))
    return records.sealed_line(b" ".join(b"%d" % n for n in (1, born, changes, versions, *_counted(reading))), reading.thread)


def _expiry(reading: Reading) -> Iterator[Fault]:
    fix = (("expiry", b""),)
    left, of_index = (None if ms < 0 else ms for ms in (reading.left, reading.index_left))
    if 2 not in reading.wrong and reading.index_left != -2 and _differ(left, of_index):
        problem = f"the hash expires {_moment(left)}, the index {_moment(of_index)}"
        yield Fault("expiry", "the thread's two keys", problem, "the index expires with the hash", fix)
    said = None if reading.expiry is None else reading.expiry - reading.now
    if 4 not in reading.wrong and _differ(left, said):
        problem = f"the thread expires {_moment(left)}, and they say {_moment(said)}"
        yield Fault("bucket", "the bucket's moments of expiry", problem, "its moment was written", fix)
    if reading.bucket_left >= 0 and (left is None or reading.bucket_left < left - 1000):
        problem = f"the thread expires {_moment(left)}, a key of the bucket {_moment(reading.bucket_left)}"
        yield Fault("bucket", "the bucket's indexes", problem, "they expire after the thread", fix)


def _differ(left: float | None, other: float | None) -> bool:
    return left != other if left is None or other is None else abs(left - other) > 1000


def _moment(left: float | None) -> str:
    return "never" if left is None else f"in {left / 1000:.3f} seconds"


def _entries_of_bucket(reading: Reading) -> Iterator[Fault]:
    if 3 not in reading.wrong and reading.active is None:
        yield Fault("bucket", "the bucket's threads", "the thread is not among them", "it was added", (("active", b""),))
    indexed = {paired(member, reading.thread) for member in reading.meta if member[:1] == b"T"}
    if 5 not in reading.wrong:
        yield from _pairs(reading, "runs", "run", b"R", reading.held_runs())
    if 6 not in reading.wrong:
        yield from _pairs(reading, "meta", "value", b"V", indexed)


def _pairs(reading: Reading, index: str, what: str, letter: bytes, needed: Set[bytes]) -> Iterator[Fault]:
    """Two indexes of a bucket have two entries for each run or value of a thread: one begins with it, one with the thread. A
    run whose checkpoints were all replaced keeps its pair, which does no harm; half a pair was never written."""
    thread, there = reading.thread, _members_in(reading, index)
    where = f"the bucket's {'runs' if index == 'runs' else 'metadata'}"

    def pair(text: bytes) -> set[bytes]:
        return {letter + text + b"\0" + thread, b"T" + thread + b"\0" + text}

    for text in needed:
        if lacking := pair(text) - there:
            fixes = tuple(("+" + index, member) for member in lacking)
            yield Fault("bucket", where, f"{what} {keys.shown(text)!r} lacks an entry", "it was added", fixes)
    for member in there:
        text = paired(member, thread)
        if text not in needed and not pair(text) <= there:
            problem = f"an entry for {what} {keys.shown(text)!r}, which the thread does not have"
            yield Fault("bucket", where, problem, "it was removed", (("-" + index, member),))


def paired(member: bytes, thread: bytes) -> bytes:
    """The run, or key and value, of such an entry."""
    return member[len(thread) + 2 :] if member[:1] == b"T" else member[1 : -len(thread) - 1]


def _members_in(reading: Reading, index: str) -> set[bytes]:
    return reading.runs if index == "runs" else reading.meta


def apply(reading: Reading, plan: dict[str, dict[Any, None]], what: str, item: Any) -> None:
    """Does to a reading, and to the plan, what mends a fault."""
    if what == "+index" and _checkpoint_of(item) not in reading.fields:
        return  # what it is to name was dropped since
    plan[what][item] = None
    if what == "keys":
        reading.wrong.remove(item)
        reading.there = reading.there and item != 1
    elif what == "-fields":
        reading.fields.pop(item, None)
        if item == b"T":
            reading.settings = None
    elif what == "writes":
        each = reading.fields[item]
        each.records = [record for record in each.records if not _broken(reading, record)[0]]
        if not each.records:
            apply(reading, plan, "-fields", item)
    elif what == "gone":
        reading.index, reading.active, reading.expiry = {}, None, None
    elif what == "expiry":
        reading.index_left = reading.left
        reading.expiry = None if reading.left < 0 else reading.now + reading.left
        reading.bucket_left = -1
    elif what == "active":
        reading.active = reading.now
    elif what == "+index":
        reading.index[item] = 0
    elif what == "-index":
        reading.index.pop(item, None)
    elif what != "counts":
        members = _members_in(reading, what[1:])
        (members.add if what[0] == "+" else members.discard)(item)


# --- names ---


def where_of(name: bytes) -> str:
    """What a field of the hash holds, in words."""
    kind = name[:1]
    if kind in RECORDS and is_field(name):
        ns, checkpoint = map(keys.shown, keys.split_field(name))
        of = {b"W": "pending writes of ", b"H": "delta history of "}.get(kind, "")
        return f"{of}checkpoint {checkpoint!r} of namespace {ns!r}"
    if kind in PARTS and is_field(name):
        return f"{'chunk' if kind == b'D' else 'page of references'} {name[1:].hex()}"
    if kind == b"G":
        return f"tag {keys.shown(name[1:])!r}"
    return {b"S": "counts (field S)", b"T": "TTL settings (field T)"}.get(name, f"field {name!r}")


def _where_of_member(member: bytes) -> str:
    return where_of(_checkpoint_of(member)) if is_field(_checkpoint_of(member)) else f"member {member!r} of the index"


def is_field(name: bytes) -> bool:
    """Whether this version writes fields of that name."""
    kind, text = name[:1], name[1:]
    if kind in PARTS:
        return len(text) == DIGEST
    if name in (b"S", b"T", b"O"):
        return True
    parts = text.split(b"\0")
    shaped = len(parts) == 2 and parts[1] if kind in RECORDS else len(parts) == 1 and text if kind == b"G" else False
    return bool(shaped) and is_text(text)


def is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _place(field: bytes) -> retention.Place:
    ns, checkpoint = keys.split_field(field)
    return ns.decode(), checkpoint.decode()


def _checkpoint_of(member: bytes) -> bytes:
    """The field that a member of the index names."""
    checkpoint, _, ns = member[1:].partition(b"\0")
    return keys.checkpoint_field(ns, checkpoint) if member[:1] == b"A" else member


def _dropped(name: bytes) -> tuple[tuple[str, bytes], ...]:
    """What removing a field takes: of a checkpoint, its pending writes and delta history too."""
    fields = (name, b"W" + name[1:], b"H" + name[1:]) if name[:1] == b"C" else (name,)
    return (*(("-fields", each) for each in fields), *(("-index", member) for member in keys.members_of(name)))
