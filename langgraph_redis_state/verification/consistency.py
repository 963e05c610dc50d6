"""Finds the problems of a snapshot, and their fixes. Pure functions: no effects, no I/O.

A fix changes the snapshot as the repair will change the server, so that `find_problems` can be called again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Literal, NamedTuple

from ..effects import new_token
from ..errors import CheckpointCorruptError
from ..storage import keys
from ..storage.statements import Statement
from ..storage.thread_fields import Counts, opened_line
from .findings import REPAIRABLE, Finding, Kind, Repair
from .snapshot import PARTS, RECORDS, Record, ThreadSnapshot, field_of, is_field, where_of, where_of_member

WRONG_TYPE = "the key is not of the type that belongs there"


class Problem(NamedTuple):
    """A problem, and the function that fixes it in the snapshot (None: nothing can fix it)."""

    kind: Kind
    where: str
    problem: str
    done: str
    fix: Callable[[], object] | None = None

    def found(self, thread: str | None) -> Finding:
        return Finding(self.kind, thread, self.where, self.problem, self.kind in REPAIRABLE)

    def mended(self, thread: str | None) -> Repair:
        return Repair(self.kind, thread, self.where, self.done)


BrokenRecords = Mapping[bytes, Sequence[tuple[Record, Literal["damaged", "lost"], str]]]
"""The records that cannot be read, and why, by field."""


def find_problems(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    """All problems. While a record is damaged or lost, counts and unused chunks are not compared, since they would differ for
    that reason alone."""
    for n in set(snapshot.wrong) & {1, 2, 7}:
        key = keys.shown(snapshot.address.keys.all[n - 1])
        yield Problem("unknown", key, WRONG_TYPE, "removed", partial(snapshot.drop_key, n))
    if 1 in snapshot.wrong:
        return
    if not snapshot.there:
        yield from _check_absent(snapshot)
        return
    broken = _broken_records(snapshot)
    found = [*_check_fields(snapshot, broken), *(() if 2 in snapshot.wrong else _check_index(snapshot, broken))]
    yield from found
    yield from _check_delta_channels(snapshot)
    yield from _check_statement(snapshot, broken)
    whole = not any(problem.kind in ("damaged", "lost") for problem in found)
    yield from _check_left_over(snapshot)
    yield from _check_counts(snapshot, whole)
    if whole:
        used = snapshot.users()
        for name in snapshot.fields:
            if name[:1] in PARTS and name not in used:
                yield Problem("orphan", where_of(name), "nothing refers to it", "removed", partial(snapshot.drop, name))
    if snapshot.settings is not None:
        try:
            opened_line(snapshot.settings, snapshot.thread, "", "")
        except CheckpointCorruptError:
            done = "removed; the saver's TTL applies from the next write"
            yield Problem("settings", where_of(b"T"), "they are damaged", done, snapshot.drop_settings)
    yield from _check_expiry(snapshot)
    yield from _check_bucket(snapshot)


def _check_absent(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    if snapshot.index:
        problem = f"its hash is gone, while its index has {len(snapshot.index)} entries (evicted?)"
        yield Problem("lost", "the thread", problem, "what was left of it was removed", snapshot.drop_thread)
    elif snapshot.expiry is not None and snapshot.expiry <= snapshot.now:
        return  # it expired, and the next writes to the bucket remove its entries
    elif snapshot.runs or snapshot.metadata or snapshot.active is not None or snapshot.expiry is not None:
        problem = "they name the thread, which is not there"
        yield Problem("bucket", "the bucket's indexes", problem, "its entries were removed", snapshot.drop_thread)


# --- fields ---


def _broken_records(snapshot: ThreadSnapshot) -> BrokenRecords:
    found = defaultdict(list)
    for name, each in snapshot.fields.items():
        for record in each.records:
            kind, problem = _check_record(snapshot, record)
            if kind is not None:
                found[name].append((record, kind, problem))
    return found


def _check_record(snapshot: ThreadSnapshot, record: Record) -> tuple[Literal["damaged", "lost"] | None, str]:
    if record.problem:
        return "damaged", record.problem
    parts = {part: snapshot.fields.get(part) for part in snapshot.parts(record)}
    if part := next((part for part, each in parts.items() if each is None), b""):
        return "lost", f"{where_of(part)}, to which it refers, is gone"
    if any(each.problem for each in parts.values() if each):
        return None, ""
    chunks = [snapshot.fields[part].plain for part in snapshot.parts(record) if part[:1] == b"D"]
    if len(chunks) != record.places:
        return "damaged", f"{len(chunks)} references to chunks for {record.places} places"
    if sum(chunks) != record.chunked:
        return "damaged", f"its chunks take {sum(chunks)} bytes instead of the {record.chunked} that it declares"
    return None, ""


def _check_fields(snapshot: ThreadSnapshot, broken: BrokenRecords) -> Iterator[Problem]:
    for name in snapshot.unknown:
        problem = "no field that this version writes"
        yield Problem("unknown", where_of(name), problem, "removed", partial(snapshot.unknown.discard, name))
    users = snapshot.users() if any(each.problem for each in snapshot.fields.values()) else Counter[bytes]()
    for name, each in snapshot.fields.items():
        where, kind, drop = where_of(name), name[:1], partial(snapshot.drop, name)
        if each.problem and each.segments:
            drop = partial(snapshot.drop_write, name, None)
            yield Problem("damaged", where, each.problem, "what can be read was kept in one list", drop)
        elif each.problem:
            of_whom = f"; {users[name]} records refer to it" if kind in PARTS else ""
            yield Problem("damaged", where, each.problem + of_whom, "removed", drop)
        elif kind == b"G" and not snapshot.holds(each.refers[0]):
            yield Problem("lost", where, f"{where_of(each.refers[0])}, which it names, is gone", "removed", drop)
        for record, what, problem in broken.get(name, ()):
            if kind == b"W":
                problem = f"write {record.at + 1} of {len(each.records)}: {problem}"
                fix = partial(snapshot.drop_write, name, record)
                yield Problem(what, where, problem, f"write {record.at + 1} was removed", fix)
            else:
                done = "removed, with its pending writes" if kind == b"C" else "removed"
                yield Problem(what, where, problem, done, drop)


def _check_statement(snapshot: ThreadSnapshot, broken: BrokenRecords) -> Iterator[Problem]:
    """What the statement of the thread contradicts. Where it is damaged itself, nothing is held against it; and nothing that
    is damaged or lost, since it would differ for that reason alone."""
    fields = snapshot.fields
    unread = [*broken, *(name for name, each in fields.items() if each.problem), *(snapshot.index.keys() - fields.keys())]
    spared = {keys.split_field(name) for name in unread if name[:1] in RECORDS}
    if not snapshot.fresh or snapshot.restated or any(each.problem and each.content for each in fields.values()):
        return
    done, gathered = "what is there was accepted, under a new statement", snapshot.gathered()
    if gathered.sealed is None:
        if not snapshot.unstated:
            yield Problem("replayed", where_of(b"Z"), "it is gone", done, snapshot.restate)
        return
    address = snapshot.address
    statement = Statement.open(gathered.sealed, address.place(b"Z", b"", b""), address.seal)
    for place, error in gathered.check(statement, address.place(b"C", b"", b""), address.seal, spared):
        problem = str(error).partition("replayed or removed: ")[2].partition(". ")[0] or str(error)
        yield Problem("replayed", where_of(place.field), problem, done, snapshot.restate)


def _check_delta_channels(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    """Checkpoints whose DeltaChannels cannot be rebuilt, and delta histories without a checkpoint. The former have no fix: if
    they were removed, their children could not be rebuilt either."""
    for name, each in snapshot.fields.items():
        kind, rest = name[:1], name[1:]
        if each.problem or any(record.problem for record in each.records):
            continue
        if kind == b"H" and each.lost:
            problem = f"channels {each.lost} cannot be rebuilt: what they were rebuilt from was gone before"
            yield Problem("lost", where_of(name), problem, "nothing")
        if kind == b"H" and not snapshot.holds(b"C" + rest):
            yield Problem("orphan", where_of(name), "its checkpoint is not there", "removed", partial(snapshot.drop, name))
        if kind != b"C" or b"H" + rest in snapshot.fields:
            continue
        header = each.records[0].header
        if header.depth and header.parent:
            parent = keys.checkpoint_field(keys.split_field(name)[0], header.parent.encode())
            if parent not in snapshot.fields:
                problem = f"DeltaChannels are rebuilt from ancestors, and its parent {header.parent!r} is gone"
                yield Problem("lost", where_of(name), problem, "nothing")


def _check_left_over(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    for ns, checkpoint in snapshot.left_over():
        name = keys.checkpoint_field(ns.encode(), checkpoint.encode())
        whose, done = "its root", "removed, with its pending writes"
        if name not in snapshot.fields:
            name, whose, done = b"W" + name[1:], "their", "removed"
        problem = f"{whose} checkpoint is not there, and does not come any more"
        yield Problem("orphan", where_of(name), problem, done, partial(snapshot.drop, name))


def _check_index(snapshot: ThreadSnapshot, broken: BrokenRecords) -> Iterator[Problem]:
    sound: list[bytes] = []
    unsure: list[bytes] = []
    for name, each in snapshot.fields.items():
        (unsure if each.problem or name in broken else sound).extend(keys.members_of(name))
    if not snapshot.index and (sound or unsure):
        fix = partial(snapshot.add_to_index, *sound, *unsure)
        yield Problem("index", "the index", "it is gone, while the hash holds checkpoints", "written from the hash", fix)
        return
    for member in sound:
        if snapshot.index.get(member, 1) != 0:
            problem, fix = "it is not in the index, or not in its order", partial(snapshot.add_to_index, member)
            yield Problem("index", where_of_member(member), problem, "its entry was written", fix)
    done = "the entry was removed"
    for member in snapshot.index.keys() - {*sound, *unsure}:
        checkpoint = field_of(member)
        if member[:1] == b"G" or (member[:1] == b"C" and is_field(member)):
            problem, drop = "it is gone, but for its entry in the index", partial(snapshot.drop, member)
            yield Problem("lost", where_of(member), problem, done, drop)
        elif member[:1] != b"A" or checkpoint not in snapshot.index or checkpoint in snapshot.fields:
            problem, remove = "the index has it, and there is nothing of that name", partial(snapshot.index.pop, member, None)
            yield Problem("index", where_of_member(member), problem, done, remove)


# --- counts ---


def true_counts(snapshot: ThreadSnapshot) -> tuple[Counts | None, Counts]:
    """The counts in field S (None if it is damaged or gone), and the correct counts."""
    try:
        stated = Counts.of(snapshot.counts, snapshot.thread, "")
    except CheckpointCorruptError:
        stated = None
    born, changes, versions = stated[:3] if stated else (snapshot.now * 1000, 0, 0)
    by_kind = Counter(name[:1] for name in snapshot.fields)
    both = [record for kind in RECORDS for record in snapshot.records(kind)]
    return stated, Counts(
        born=born,
        changes=max(changes, snapshot.highest(b"W")),
        versions=max(versions, snapshot.highest(b"C")),
        checkpoints=by_kind[b"C"],
        writes=sum(1 for _ in snapshot.records(b"W")),
        chunks=by_kind[b"D"],
        stored=sum(each.size for name, each in snapshot.fields.items() if name[:1] in (*RECORDS, *PARTS, b"G"))
        + sum(record.size for record in both),
        logical=sum(record.logical for record in both),
        unique=sum(each.plain for name, each in snapshot.fields.items() if name[:1] == b"D"),
        referred=sum(record.chunked for record in both),
        by=stated.by if stated else 0,
    )


def _check_counts(snapshot: ThreadSnapshot, whole: bool) -> Iterator[Problem]:
    stated, right = true_counts(snapshot)
    problem = "they are damaged or gone"
    if stated is not None:
        differing = [name for name in Counts._fields if getattr(stated, name) != getattr(right, name)] if whole else []
        problem = "; ".join(f"{name} {getattr(stated, name)} instead of {getattr(right, name)}" for name in differing)
    if problem:
        yield Problem("counts", where_of(b"S"), problem, "counted anew", partial(recount, snapshot))


def recount(snapshot: ThreadSnapshot) -> None:
    """Writes the correct counts and the next revision into field S."""
    right = true_counts(snapshot)[1]
    snapshot.counts = right._replace(changes=right.changes + 1, by=int(new_token())).line(snapshot.thread)


# --- expiry and the indexes of the bucket ---


def _check_expiry(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    fix = snapshot.expire_with_hash
    left, of_index = (None if ms < 0 else ms for ms in (snapshot.left, snapshot.index_left))
    if 2 not in snapshot.wrong and snapshot.index_left != -2 and _differ(left, of_index):
        problem = f"the hash expires {_moment(left)}, the index {_moment(of_index)}"
        yield Problem("expiry", "the thread's two keys", problem, "the index expires with the hash", fix)
    said = None if snapshot.expiry is None else snapshot.expiry - snapshot.now
    if 4 not in snapshot.wrong and _differ(left, said):
        problem = f"the thread expires {_moment(left)}, and they say {_moment(said)}"
        yield Problem("bucket", "the bucket's moments of expiry", problem, "its moment was written", fix)
    if snapshot.bucket_left >= 0 and (left is None or snapshot.bucket_left < left - 1000):
        problem = f"the thread expires {_moment(left)}, a key of the bucket {_moment(snapshot.bucket_left)}"
        yield Problem("bucket", "the bucket's indexes", problem, "they expire after the thread", fix)


def _differ(left: float | None, other: float | None) -> bool:
    return left != other if left is None or other is None else abs(left - other) > 1000


def _moment(left: float | None) -> str:
    return "never" if left is None else f"in {left / 1000:.3f} seconds"


def _check_bucket(snapshot: ThreadSnapshot) -> Iterator[Problem]:
    if 3 not in snapshot.wrong and snapshot.active is None:
        yield Problem("bucket", "the bucket's threads", "the thread is not among them", "it was added", snapshot.activate)
    if 5 not in snapshot.wrong:
        yield from _check_pairs(snapshot.thread, snapshot.runs, "run", b"R", snapshot.used_runs())
    if 6 not in snapshot.wrong:
        values = {paired(member, snapshot.thread) for member in snapshot.metadata if member[:1] == b"T"}
        yield from _check_pairs(snapshot.thread, snapshot.metadata, "value", b"V", values)


def _check_pairs(thread: bytes, there: set[bytes], what: str, letter: bytes, needed: Set[bytes]) -> Iterator[Problem]:
    """The indexes of runs and of metadata have two entries for each run or value of a thread: one begins with the run or value,
    one with the thread. A run whose checkpoints were all replaced keeps its pair, which does no harm; half a pair is wrong."""
    where = f"the bucket's {'runs' if what == 'run' else 'metadata'}"

    def pair(text: bytes) -> set[bytes]:
        return {letter + text + b"\0" + thread, b"T" + thread + b"\0" + text}

    for text in needed:
        if lacking := pair(text) - there:
            problem = f"{what} {keys.shown_run(text)!r} lacks an entry"
            yield Problem("bucket", where, problem, "it was added", partial(there.update, lacking))
    for member in there:
        text = paired(member, thread)
        if text not in needed and not pair(text) <= there:
            problem = f"an entry for {what} {keys.shown_run(text)!r}, which the thread does not have"
            yield Problem("bucket", where, problem, "it was removed", partial(there.discard, member))


def paired(member: bytes, thread: bytes) -> bytes:
    """The run, or the key and value, that an entry names."""
    return member[len(thread) + 2 :] if member[:1] == b"T" else member[1 : -len(thread) - 1]
