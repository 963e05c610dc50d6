"""Freshness under a key: statements of what a thread holds, made with each write and checked with each read.

On the server, before and after: `storage/statements.py`. A write brings the statement that holds after it, and the script
takes it only if the one that the client began with is still there (lib/statement.lua). If it is not, the reply has what is
there, and the client verifies that, and begins anew. So a write is one round trip where this process wrote or read the thread
last, and a read always is. Cut in the middle: a script is atomic, and if its reply was lost, the repeated call finds another
statement, and brings the same state once more. A second process sees thread and statement together, before or after.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from ..address import Address
from ..caching.standings import Standing
from ..effects import Await, Operation, Read, compute
from ..errors import CheckpointCorruptError, ThreadBusyError, WitnessError
from ..scripts.commands import Restatement
from ..scripts.replies import StatedError, StatementChangedError, Stored
from ..storage import keys
from ..storage.names import Names
from ..storage.records import STAMP, RecordKey
from ..storage.statements import (
    COLD,
    NEWEST,
    Entry,
    Frozen,
    Gathered,
    Markers,
    Statement,
    Where,
    checksum_of,
    extended,
    in_order,
    mark_of,
    record_checksum,
    replayed,
    seal_frozen,
    writes_digest,
)
from ..storage.thread_fields import split_writes
from .engine import Engine
from .thread_headers import CheckpointKey, StoredWrites, ThreadHeaders
from .unlocking import ASKING

TRIES = 100
"""Of writers in other processes that are faster each time."""

T = TypeVar("T")


class Changed(NamedTuple):
    """What a write makes of a statement."""

    statement: Statement
    frozen: Frozen
    writes: Mapping[Where, tuple[bytes, Markers]] = {}
    """The pending writes of its checkpoint, with their digest."""


Change = Callable[[Standing], Changed | None]
"""None: the pending writes that are there must be known, and are not."""


Call = Callable[..., Operation[T]]
"""A typed caller of a script that takes `statement`, with all its other arguments."""


def put(engine: Engine, target: Address, record: bytes, call: Call[T]) -> Operation[T]:
    """A put of the checkpoint of `target`; `record` is without its stamp."""
    if not engine.settings.fresh:
        return (yield from call())
    where = target.ns, target.checkpoint
    checksum = record_checksum(bytes(STAMP) + record, target.place(b"C", *where))

    def change(known: Standing) -> Changed:
        return Changed(*known.statement.put(where, checksum, known.frozen.get(where)))

    return (yield from _stated(engine, target, change, call))


def put_writes(engine: Engine, target: Address, writes: Iterable[tuple[str, bytes, bytes]], call: Call[T]) -> Operation[T]:
    """Pending writes that come to the checkpoint of `target`, as the script takes them."""
    if not engine.settings.fresh:
        return (yield from call())
    where = target.ns, target.checkpoint
    place = target.place(b"W", *where)
    new = [(policy, marker, record_checksum(bytes(STAMP) + record, place)) for policy, marker, record in writes]

    def change(known: Standing) -> Changed | None:
        before = known.markers(where)
        if before is None:
            return None
        came = {marker: checksum for policy, marker, checksum in new if policy == "last" or marker not in before}
        entry = known.statement.entries.get(where) or known.frozen.get(where)
        after, digest = extended(before, entry.writes if entry else b"", came)
        return Changed(known.statement.wrote(where, digest, known.frozen.get(where)), {}, {where: (digest, after)})

    return (yield from _stated(engine, target, change, call))


def _in_turn(engine: Engine, name: bytes, writing: Call[T]) -> Operation[T]:
    """A write to a thread, after those that other tasks of this process have begun."""
    turn = engine.turns.take(name)
    try:
        while not turn.done():
            first = engine.turns.first(name)
            yield Await(turn)
            if first is not None and first is engine.turns.first(name) and not turn.done():
                engine.turns.end(name, first)  # it stands still: passed over
        return (yield from writing())
    finally:
        engine.turns.end(name, turn)


def _stated(engine: Engine, target: Address, change: Change, call: Call[T]) -> Operation[T]:
    """A write to a checkpoint, with the statement that holds after it."""
    return (yield from _in_turn(engine, target.keys.name, partial(_write, engine, target, change, call)))


def _write(engine: Engine, target: Address, change: Change, call: Call[T]) -> Operation[T]:
    where = target.ns, target.checkpoint
    known = engine.standings.get(target.keys.name) or Standing()
    for _ in range(TRIES):
        changed = None if known.unstated else change(known)
        told: Restatement = [b"?", b""]  # no statement has this checksum, so the reply says what is there
        if known.unstated:
            told = ()
        elif changed is not None:
            told = restatement(target, known.sealed, changed.statement, changed.frozen, known.frozen)
            if where not in known.statement.entries and where not in known.frozen:
                told += [b"", b""]  # nothing is there
        try:
            done = yield from call(statement=told)
        except StatementChangedError as error:
            known = _learnt(engine, target, where, error)
            continue
        except StatedError:
            if not known.unstated:
                raise
            known = Standing()  # somebody made a statement meanwhile
            continue
        if changed is not None:
            yield from stands(engine, target, told, changed.statement, {**known.writes, **changed.writes})
        return done
    raise ThreadBusyError(f"{target.about('writing')}: other writers were faster {TRIES} times; nothing was written, try again")


def remove(
    engine: Engine,
    target: Address,
    survey: ThreadHeaders,
    gone: Collection[CheckpointKey],
    replaced: Mapping[CheckpointKey, StoredWrites],
    call: Call[bool],
) -> Operation[bool]:
    """A removal from a thread that was surveyed: checkpoints that are gone, and of others the pending writes that stay."""
    if not engine.settings.fresh or survey.statement is None:
        return (yield from call())
    before = Statement.open(survey.statement, statement_place(target), target.seal)
    went = set(map(_where, gone))
    entries = {where: entry for where, entry in before.entries.items() if where not in went}
    back: list[Where] = []
    for place, writes in replaced.items():
        where = _where(place)
        if place not in survey.headers:  # pending writes whose checkpoint does not come any more
            entries.pop(where, None)
            back.append(where)
        elif where not in went:
            if where not in entries:
                back.append(where)
            entry = (entries.get(where) or survey.entries[where]._replace(round=before.round)).touched
            at = target.place(b"W", *where)
            entries[where] = entry._replace(writes=writes_digest(in_order((mark_of(raw, at) for _, raw in writes), at)))
    newest = keys.newest_of_each(where for where in map(_where, survey.headers) if where not in went)
    changed = Changed(before.left(entries, newest), {})
    return (yield from _restate(engine, target, survey.statement, changed, back, call))


def fork(
    engine: Engine, target: Address, survey: ThreadHeaders, made: Iterable[tuple[bytes, bytes, bytes]], call: Call[bool]
) -> Operation[bool]:
    """New checkpoints in a thread that was surveyed: namespace, id, and record without stamp."""
    if not engine.settings.fresh or survey.statement is None:
        return (yield from call())
    after, frozen = Statement.open(survey.statement, statement_place(target), target.seal), Frozen()
    revision = after.revision
    cold = {where for where, entry in after.entries.items() if entry.state == COLD}
    for ns, checkpoint, record in made:
        place = target.place(b"C", ns, checkpoint)
        after, more = replace(after, revision=revision).put((ns, checkpoint), record_checksum(bytes(STAMP) + record, place))
        frozen |= more
    entries = {where: entry for where, entry in frozen.items() if where not in cold}  # nobody knows yet that they are
    after = replace(after, entries={**entries, **after.entries})
    frozen = {where: frozen[where] for where in frozen.keys() & cold}
    return (yield from _restate(engine, target, survey.statement, Changed(after, frozen), (), call))


def remove_known(engine: Engine, target: Address, gone: Sequence[Where], call: Call[bool]) -> Operation[bool]:
    """A removal of checkpoints that are not the newest, from a thread that this process wrote last."""
    if not engine.settings.fresh:
        return (yield from call())
    known = engine.standings.get(target.keys.name)
    if known is None:
        return False  # then it is surveyed
    entries = {where: entry for where, entry in known.statement.entries.items() if where not in gone}
    changed = Changed(known.statement.left(entries, known.statement.heads), {})
    return (yield from _restate(engine, target, known.sealed, changed, gone, call))


def _restate(
    engine: Engine, target: Address, before: bytes, changed: Changed, back: Iterable[Where], call: Call[bool]
) -> Operation[bool]:
    told = restatement(target, before, changed.statement, changed.frozen, back)

    def writing() -> Operation[bool]:
        if not (yield from call(statement=told)):
            return False
        known = engine.standings.get(target.keys.name)
        yield from stands(engine, target, told, changed.statement, {} if known is None else known.writes)
        return True

    return (yield from _in_turn(engine, target.keys.name, writing))


def _where(place: CheckpointKey) -> Where:
    return place[0].encode(), place[1].encode()


def restatement(
    target: Address, before: bytes | None, after: Statement, frozen: Frozen, back: Iterable[Where] = ()
) -> list[bytes]:
    """A new statement and what it freezes, as lib/statement.lua takes it. `back`: what is frozen no more."""
    found = [checksum_of(before or b""), after.seal(statement_place(target), target.seal)]
    for where in back:
        found += [target.keys.names.field(keys.frozen_field(*where)), b""]
    for where, entry in frozen.items():
        place = target.place(b"F", *where)
        found += [target.keys.names.field(place.field), seal_frozen(after.life, entry, place, target.seal)]
    return found


def statement_place(target: Address) -> RecordKey:
    return target.place(b"Z", b"", b"")


def stands(
    engine: Engine, target: Address, told: Restatement, after: Statement, writes: Mapping[Where, tuple[bytes, Markers]]
) -> Operation[None]:
    """After a write: what this process knows now, and what the witness is told."""
    known = {where: each for where in after.entries if (each := writes.get(where)) is not None}
    engine.standings.put(target.keys.name, Standing(told[1], after, known))
    witness = engine.settings.witness
    if witness is not None:
        tell = partial(witness, target.thread, after.revision, checksum_of(told[1]))
        try:
            yield from compute(tell, ASKING)
        except Exception as error:
            raise WitnessError(
                f"{target.about('telling the witness')}: it raised {type(error).__name__}: {error}. What it was to be told, "
                f"revision {after.revision}, is stored"
            ) from error


def _learnt(engine: Engine, target: Address, where: Where, there: StatementChangedError) -> Standing:
    """What is there in place of what was known, verified."""
    place = target.place(b"C", *where)
    if there.statement is None:
        if there.state == b"ok":
            _check_unstated(engine, place)
        return Standing(unstated=there.state == b"ok")
    statement = Statement.open(there.statement, statement_place(target), target.seal)
    entry, markers = _checked(statement, target, (*where, there.record, there.writes, there.frozen))
    cold = where not in statement.entries and there.frozen is not None
    return Standing(there.statement, statement, {where: (entry.writes, markers)}, {where: entry} if cold else {})


def _check_unstated(engine: Engine, place: RecordKey) -> None:
    if not engine.settings.keyring.accepts_unkeyed:
        raise _without_statement(f"{place}")


def _without_statement(about: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{about}: the thread has no statement of what it holds; somebody took it away, or it is from before freshness was set "
        "(accept_unkeyed=True reads such threads for a while, and `rekey` makes their statements)"
    )


def read_statement(engine: Engine, thread: Any) -> Operation[tuple[int, bytes] | None]:
    """Revision and digest of the statement of a thread, verified; None if there is no such thread."""
    target = engine.address(thread)
    about = target.about("statement")
    yield from engine.check_layout(False)
    yield from engine.unlock(target)
    sealed, counts = yield Read([("HGET", target.keys.hash, "Z"), ("HGET", target.keys.hash, "S")], about)
    if sealed is None:
        if counts is not None:
            raise _without_statement(about)
        return None
    return Statement.open(sealed, statement_place(target), target.seal).revision, checksum_of(sealed)


def gathered(engine: Engine, target: Address, here: Gathered | None) -> Statement | None:
    """The statement among all that stands in a thread; None if there is none and that is accepted."""
    if here is None:
        return None
    if here.sealed is None:
        _check_unstated(engine, target.place(b"C", b"", b""))
        return None
    return Statement.open(here.sealed, statement_place(target), target.seal)


def _checked(statement: Statement, target: Address, found: Stored) -> tuple[Entry, Markers]:
    """The entry of a checkpoint and its pending writes, or CheckpointCorruptError if the statement says something else."""
    ns, checkpoint, record, writes, frozen = found
    place = target.place(b"C", ns, checkpoint)
    at = place._replace(kind=b"W")
    markers = in_order((mark_of(raw, at) for raw in (split_writes(writes, at) if writes else ())), at)
    checksum = b"" if record is None else record_checksum(record, place)
    if checksum and b":" not in ns and checkpoint > statement.heads.get(ns, b""):
        raise replayed(place, NEWEST)
    return statement.check(place, Entry(checksum, writes_digest(markers)), frozen, target.seal), markers


def check(
    engine: Engine,
    target: Address,
    sealed: bytes | None,
    found: Sequence[Stored],
    newest: Iterable[bytes],
    due: Callable[[Where], bool],
) -> Mapping[Where, Entry]:
    """The entries of what was read, or CheckpointCorruptError if it is not what the statement says. `newest`: namespaces of
    which the newest checkpoint was asked for, and is the first of them in `found`; `due`: whether a checkpoint is among what
    was asked for, if it is there."""
    if not engine.settings.fresh:
        return {}
    if sealed is None:
        if found:
            _check_unstated(engine, target.place(b"C", *found[0][:2]))
        return {}
    name = target.keys.name
    before = engine.standings.get(name)
    if before is None or before.sealed != sealed:
        known = Standing(sealed, Statement.open(sealed, statement_place(target), target.seal))
    else:
        known = before
    statement = known.statement
    for ns in newest:
        first = next((checkpoint for space, checkpoint, *_ in found if space == ns), None)
        if not statement.is_newest(ns, first):
            raise replayed(target.place(b"C", ns, statement.heads.get(ns) or first or b""), NEWEST)
    read = {each[:2]: _checked(statement, target, each) for each in found}
    there = chain((where for where, entry in statement.entries.items() if entry.record), statement.heads.items())
    for where in there:
        if where not in read and due(where):
            raise replayed(target.place(b"C", *where), "it is gone")
    seen = {where: (entry.writes, markers) for where, (entry, markers) in read.items() if where in statement.entries}
    if any(known.writes.get(where, ("", {}))[0] != digest for where, (digest, _) in seen.items()):
        known = replace(known, writes={**known.writes, **seen})
    if known is not before and (before is None or before.statement.revision <= statement.revision):
        engine.standings.put(name, known)
    return {where: entry for where, (entry, _) in read.items()}


def nothing_more(where: Where) -> bool:
    """For `check`: only what was found was asked for."""
    return False


def among(names: Names, space: bytes | None, cursor: tuple[bytes, bytes | None], last: Where | None) -> Callable[[Where], bool]:
    """For `check`: which checkpoints a page of a list has, that begins below a cursor and ends with `last`; None: with all
    that is left. `space`: None: all namespaces."""

    def rank(where: Where) -> tuple[bytes, bytes]:
        return where[1], names.ns(where[0]) if space is None else b""

    below, beside = cursor
    end = None if last is None else rank(last)

    def due(where: Where) -> bool:
        if space is not None and where[0] != space:
            return False
        at = rank(where)
        if below and (at[0] >= below if beside is None or space is not None else at >= (below, names.ns(beside))):
            return False
        return end is None or at >= end

    return due
