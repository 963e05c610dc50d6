"""The operations behind `RedisStore`: generators of effects, no I/O.

Rule 1: a batch reads before it writes, as `InMemoryStore` does, and of several writes to one item the last one counts.
Rule 2: values are serialized, and everything is checked, before the first effect.
Rule 3: what goes to several buckets goes together, in one round trip; in each bucket it happens or it does not.
Rule 4: scripts that read write nothing. TTLs that are due are refreshed by a call of their own, after the answer was verified.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.base import GetOp, Item, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp

from .. import validation
from ..effects import Argument, Call, Operation, compute, portion
from ..errors import CheckpointCorruptError, CheckpointerError, CheckpointLostError, SerializationError, ServerRefusedError
from ..operations.engine import Engine, logger
from ..scripts import store_commands as scripts
from ..serialization.decode import loads
from ..serialization.encode import dumped
from ..storage.seals import Seal
from . import items, matching, vectors
from .items import Bounds, Place
from .vectors import Index, Vectors
from .walk import Entry, Walk

T = TypeVar("T")

AnyItem = TypeVar("AnyItem", bound=Item)

PAGE_ITEMS, PAGE_BYTES = 1000, 256 * 1024
"""Most members of the order that one script of a search reads, and bytes of records, which the buckets of a search share."""

READ_ITEMS = 200
"""Most items whose records are read and deserialized at a time, before the next are looked at."""

PAGE_SPACES, PAGE_LOOK_UPS = 500, 1000
"""Most namespaces that one script names, and look-ups that it makes for them: a millisecond or two."""

SCRIPT_ITEMS, WRITE_BYTES = 1000, 8 * 1024 * 1024
"""Most items that one script reads, refreshes or writes, and bytes that it writes. A batch that asks more of one bucket is cut,
and each part happens or does not."""

COMPARED, SIMILAR_MOST = 10_000, 10_000
"""Up to so many vectors of a bucket are all compared, and so many are looked at in a graph; and most that one search ranks."""

SWEEP_ITEMS = 500


@dataclass
class Batch:
    """What a batch asks of each bucket, and what came."""

    reads: dict[int, dict[bytes, None]] = field(default_factory=lambda: defaultdict(dict))
    writes: dict[int, dict[bytes, tuple[bytes, ...]]] = field(default_factory=lambda: defaultdict(dict))
    refresh: set[bytes] = field(default_factory=set)
    """Fields whose TTL a get may refresh."""
    found: dict[bytes, Item | None] = field(default_factory=dict)
    due: dict[int, dict[bytes, None]] = field(default_factory=lambda: defaultdict(dict))
    """Fields whose TTL is refreshed."""

    def parts(self, bucket: int) -> Iterator[list[tuple[bytes, ...]]]:
        """The writes to a bucket, removals first, cut where one script would take too long. At least one part, maybe empty."""
        part: list[tuple[bytes, ...]] = []
        size = 0
        for name, write in sorted(self.writes.get(bucket, {}).items(), key=lambda each: bool(each[1][0])):
            more = sum(map(len, write))
            if part and (len(part) == SCRIPT_ITEMS or size + more > WRITE_BYTES):
                yield part
                part, size = [], 0
            part.append((name, *write))
            size += more
        yield part


def portions(listed: list[T]) -> list[list[T]]:
    """A list in parts that one script may take."""
    return [listed[at : at + SCRIPT_ITEMS] for at in range(0, len(listed), SCRIPT_ITEMS)]


class Items:
    """The operations of one store. Between them it remembers only which bucket is swept next, and when."""

    def __init__(
        self, engine: Engine, serde: SerializerProtocol, sweep_seconds: float, index: Index | None, seal: Seal
    ) -> None:
        self._engine, self._serde, self._index = engine, serde, index
        self._prefix = engine.settings.prefix
        self._seal = seal
        self._pause = sweep_seconds / items.BUCKETS
        self._swept, self._sweep_due = 0, time.monotonic() + self._pause

    # --- a batch ---

    def batch(self, ops: Iterable[Op], embedded: Vectors) -> Operation[list[Result]]:
        """The results of several operations, in their order. Raises before anything is sent if one of them is not possible."""
        listed, batch = list(ops), Batch()
        for op in listed:
            self._prepare(op, batch, embedded)
        yield from self._check(bool(batch.writes))
        results: list[Result] = []
        for op in listed:
            if isinstance(op, SearchOp):
                similar = self._index is not None and op.query
                vector = embedded.queries[op.query or ""] if similar else b""
                results.append((yield from (self._similar(op, batch, vector) if similar else self._search(op, batch))))
            elif isinstance(op, ListNamespacesOp):
                results.append((yield from self._spaces(op)))
            else:
                results.append(None)
        yield from self._exchange(batch)
        for at, op in enumerate(listed):
            if isinstance(op, GetOp):
                results[at] = batch.found[items.field_name(items.labels(op.namespace), str(op.key))]
        yield from self._touch(batch.due)
        if batch.writes:
            yield from self._sweep_next()
        return results

    def _check(self, write: bool) -> Operation[None]:
        needed = [scripts.WRITE] if write else []
        if self._index is None or self._engine.settings.read_only:
            yield from self._engine.check_layout(write, *needed)
            return
        try:
            yield from self._engine.check_layout(write, *needed, scripts.SIMILAR)
        except ServerRefusedError as error:
            if "VSIM" not in str(error):
                raise
            raise ServerRefusedError(
                f"prefix {self._prefix!r}: a store with index= needs vector sets, which Redis has from 8.0 on, and this server "
                "or user has not; nothing was written. Use another server, grant +vadd +vcard +vdim +vrem +vsim, or drop index="
            ) from error

    def _prepare(self, op: Op, batch: Batch, embedded: Vectors) -> None:
        if isinstance(op, GetOp | PutOp):
            namespace = items.labels(op.namespace)
            name, bucket = items.field_name(namespace, str(op.key)), items.bucket_of(namespace)
            if isinstance(op, PutOp):
                batch.writes[bucket][name] = self._write(self._place(name), namespace, op, embedded)
                return
            batch.reads[bucket][name] = None
            if op.refresh_ttl:
                batch.refresh.add(name)
            return
        if isinstance(op, SearchOp):
            items.labels(op.namespace_prefix)
            matching.check_filter(op.filter or {})
        elif isinstance(op, ListNamespacesOp):
            for condition in op.match_conditions or ():
                items.labels(tuple(condition.path))
                validation.one_of(condition.match_type, ("prefix", "suffix"), "match_type")
            validation.at_most(op.max_depth, "max_depth")
        else:
            raise ValueError(f"a batch takes GetOp, PutOp, SearchOp and ListNamespacesOp, not {op!r}")
        validation.whole(op.limit, "limit", 0)
        validation.whole(op.offset, "offset", 0)

    def _write(self, place: Place, namespace: tuple[str, ...], op: PutOp, embedded: Vectors) -> tuple[bytes, ...]:
        """The record of an item, and with vectors their attributes and each of them."""
        if op.value is None:
            return (b"",)
        if not isinstance(op.value, Mapping):
            raise ValueError(f"{place}: the value must be a mapping, or None to delete the item, not {type(op.value).__name__}")
        ttl = 0
        if op.ttl is not None:
            validation.ttl_ms(op.ttl, f"{place}: ttl", "minutes")
            ttl = validation.ttl_ms(op.ttl * 60, f"{place}: ttl")
        type_, blob = dumped(self._serde, dict(op.value), str(place))
        settings = self._engine.settings
        texts = self._index.texts(op) if self._index is not None else []
        record = items.sealed(place, type_, blob, ttl, len(texts), self._seal, settings.compression)
        return (record, vectors.attributes(namespace), *(embedded.documents[text] for text in texts)) if texts else (record,)

    def _exchange(self, batch: Batch) -> Operation[None]:
        """All gets and writes: one script a bucket; before them gets that are too many for one, behind them such writes."""
        calls: list[tuple[int, list[bytes], Call]] = []
        earlier: list[tuple[int, list[bytes], Call]] = []
        later: list[Call] = []
        for bucket in sorted(batch.reads.keys() | batch.writes.keys()):
            *others, fields = portions(list(batch.reads.get(bucket, ()))) or [[]]
            first, *more = batch.parts(bucket)
            about, keys = self._about(fields or [write[0] for write in first]), self._keys(bucket)
            call = scripts.write(keys, about, fields, first) if first else scripts.read(keys, about, fields)
            calls.append((bucket, fields, call))
            earlier += [(bucket, part, scripts.read(keys, about, part)) for part in others]
            later += [scripts.write(keys, about, (), part) for part in more]
        replies = yield from scripts.together([call for _, _, call in earlier])
        replies += yield from scripts.together([call for _, _, call in calls])
        for call in later:
            yield from scripts.together([call])
        for (bucket, fields, _), reply in zip(earlier + calls, replies, strict=True):
            records, due = scripts.found(reply)
            there = {name: record for name, record in zip(fields, records, strict=True) if record is not None}
            batch.found.update(dict.fromkeys(fields))
            batch.found.update(zip(there, (yield from self._made(Item, there.items())), strict=True))
            batch.due[bucket].update({fields[at]: None for at in due if fields[at] in batch.refresh})

    def _made(
        self,
        kind: type[AnyItem],
        records: Iterable[tuple[bytes, bytes]],
        wanted: Mapping[str, object] | None = None,
        most: int = sys.maxsize,
    ) -> Operation[list[AnyItem | None]]:
        """Items of stored records, verified, decompressed and deserialized: None for those that a filter does not select, and
        no more after so many that it does."""
        listed = list(records)
        if not listed:
            return []
        size = sum(len(record) for _, record in listed)
        return (yield from compute(partial(self._make, kind, listed, wanted, most), size))

    def _make(
        self, kind: type[AnyItem], records: Sequence[tuple[bytes, bytes]], wanted: Mapping[str, object] | None, most: int
    ) -> list[AnyItem | None]:
        made: list[AnyItem | None] = []
        for name, record in records:
            place = self._place(name)
            try:
                value = loads(self._serde, *items.opened(record, place, self._seal), "its value")
                if not isinstance(value, dict):
                    raise CheckpointCorruptError(f"the value is {type(value).__name__}, not a dict; something else wrote it")
                if not matching.selects(wanted, value):
                    made.append(None)
                    continue
                created, updated = items.times(record, place)
            except (CheckpointCorruptError, SerializationError) as error:
                raise type(error)(f"{place}: {error}") from error
            namespace, key = place.names
            made.append(kind(namespace=namespace, key=key, value=value, created_at=created, updated_at=updated))
            most -= 1
            if not most:
                break
        return made

    # --- search ---

    def _search(
        self, op: SearchOp, batch: Batch, without: Collection[bytes] = (), unranked: Collection[int] = ()
    ) -> Operation[list[SearchItem]]:
        """The items below a prefix that the filter selects, from `offset` on, without some fields. In buckets that are
        `unranked` no item may have vectors."""
        prefix, wanted = items.labels(op.namespace_prefix), op.offset + op.limit
        buckets = items.buckets_below(prefix)
        walk = Walk(buckets, items.below(prefix))
        # without a filter an item before the offset is only counted; with one, every item must be looked at
        skipped = 0 if op.filter or len(buckets) > 1 else op.offset
        most = PAGE_ITEMS if op.filter else min(wanted, PAGE_ITEMS)
        about = f"search below {prefix!r} (prefix {self._prefix!r})"
        found: list[SearchItem] = []
        passed = 0
        while len(found) < op.limit and walk.goes_on:
            skip = max(skipped - passed, 0)
            ask = partial(self._page, about, most, skip, PAGE_BYTES // len(buckets))
            entries = yield from walk.more(ask, partial(self._entries, skip))
            if without:
                entries = [entry for entry in entries if entry.field not in without]
            if not op.filter:
                first, passed = max(op.offset - passed, 0), passed + len(entries)
                entries = entries[first : first + op.limit - len(found)]
            size = min(2 * op.limit, READ_ITEMS)  # few, since the first ones may be all that is needed
            while entries and len(found) < op.limit:
                there = yield from self._with_records(entries[:size], about)
                del entries[:size]
                size = READ_ITEMS
                records = ((entry.field, entry.record or b"") for entry in there)
                left = wanted - passed if op.filter else len(there)
                made = yield from self._made(SearchItem, records, op.filter, left)
                for entry, item in zip(there, made, strict=False):  # what is behind the last one is not needed
                    if entry.bucket in unranked and items.has_vectors(entry.record or b""):
                        raise CheckpointLostError(
                            f"{self._place(entry.field)}: its vectors are gone, the server evicted them; put the item again"
                        )
                    if item is None:
                        continue
                    if op.filter:
                        passed += 1
                        if passed <= op.offset:
                            continue
                    found.append(item)
                    if entry.due and op.refresh_ttl:
                        batch.due[entry.bucket][entry.field] = None
        return found

    def _page(self, about: str, most: int, skipped: int, max_bytes: int, bucket: int, bounds: Bounds) -> Call:
        return scripts.search(self._keys(bucket), about, bounds, most, skipped, max_bytes)

    def _entries(self, skipped: int, bucket: int, page: scripts.Page) -> list[Entry]:
        """Those of a page. The order and a record must agree, since one script read both."""
        named = [items.field_of(name) for name in page.names]
        entries = [Entry(name, bucket, at) for name, (at, _) in zip(page.names, named, strict=True)]
        for entry, (_, moment), record in zip(entries[skipped:], named[skipped:], page.records, strict=False):
            place = self._place(entry.field)
            if record is None:
                raise CheckpointLostError(f"{place}: the order names it, and it is gone; repair() forgets it")
            if moment != items.updated_us(record):
                raise CheckpointCorruptError(
                    f"{place}: the order has it for another time than its record; one of them was damaged. "
                    "put or delete the item; if this goes on, repair()"
                )
            entry.record = record
        for at in page.due:
            entries[skipped + at].due = True
        return entries

    def _with_records(self, entries: Sequence[Entry], about: str) -> Operation[list[Entry]]:
        """Those that are still there, with the records that were not read yet."""
        absent: dict[int, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.record is None:
                absent[entry.bucket].append(entry)
        parts = [part for there in absent.values() for part in portions(there)]
        replies = yield from scripts.together(
            [scripts.read(self._keys(there[0].bucket), about, [each.field for each in there]) for there in parts]
        )
        for there, reply in zip(parts, replies, strict=True):
            records, due = scripts.found(reply)
            for entry, record in zip(there, records, strict=True):
                entry.record = record
            for at in due:
                there[at].due = True
        return [entry for entry in entries if entry.record is not None]

    def _similar(self, op: SearchOp, batch: Batch, vector: bytes) -> Operation[list[SearchItem]]:
        """The items below a prefix that the filter selects, by the similarity of their most similar text; then those without a
        vector, as `InMemoryStore` has it."""
        prefix, wanted = items.labels(op.namespace_prefix), op.offset + op.limit
        buckets, only = items.buckets_below(prefix), vectors.below(prefix)
        about = f"semantic search below {prefix!r} (prefix {self._prefix!r})"
        most = 2 * wanted + 10
        while True:
            calls = [scripts.similar(self._keys(each), about, vector, most, only, COMPARED) for each in buckets]
            replies = [scripts.similarities(reply) for reply in (yield from scripts.together(calls))]
            best: dict[bytes, tuple[float, int]] = {}
            for bucket, (names, _) in zip(buckets, replies, strict=True):
                for name, score in names:
                    best[name[2:]] = max(best.get(name[2:], (0.0, 0)), (score, bucket))
            # below this, a bucket may have others that are more similar
            bound = max((names[-1][1] for names, _ in replies if len(names) == most), default=0.0)
            ranked = sorted((-score, field, bucket) for field, (score, bucket) in best.items() if score >= bound)
            there = yield from self._with_records([Entry(field, bucket, field) for _, field, bucket in ranked], about)
            records = ((entry.field, entry.record or b"") for entry in there)
            made = yield from self._made(SearchItem, records, op.filter)
            found = [(entry, item) for entry, item in zip(there, made, strict=True) if item is not None][:wanted]
            if len(found) >= wanted or not bound or most >= SIMILAR_MOST:
                break
            most *= 8
        for entry, item in found:
            item.score = 2 * best[entry.field][0] - 1  # the cosine
            if entry.due and op.refresh_ttl:
                batch.due[entry.bucket][entry.field] = None
        results = [item for _, item in found]
        if len(found) < wanted:
            rest = op._replace(offset=0, limit=wanted - len(found))
            unranked = {bucket for bucket, (_, total) in zip(buckets, replies, strict=True) if not total}
            results += yield from self._search(rest, batch, {entry.field for entry, _ in found}, unranked)
        return results[op.offset :]

    # --- namespaces ---

    def _spaces(self, op: ListNamespacesOp) -> Operation[list[tuple[str, ...]]]:
        """The namespaces that hold items and meet the conditions, in order."""
        prefix, wanted = matching.fixed_prefix(op.match_conditions), op.offset + op.limit
        walk = Walk(items.buckets_below(prefix), items.below(prefix))
        # if what is below `max_depth` decides nothing, one look-up passes all of it
        depth, most = op.max_depth or 0, min(wanted, PAGE_SPACES)
        if any(each.match_type != "prefix" or len(each.path) > depth for each in op.match_conditions or ()):
            depth = 0
        about = f"list namespaces below {prefix!r} (prefix {self._prefix!r})"
        found: dict[tuple[str, ...], None] = {}
        while len(found) < wanted and walk.goes_on:
            for entry in (
                yield from walk.more(
                    lambda bucket, bounds: scripts.spaces(self._keys(bucket), about, bounds, most, PAGE_LOOK_UPS, depth),
                    lambda bucket, page: [Entry(name + b"\0\0", bucket) for name in page.names],
                )
            ):
                namespace = items.namespace_of(entry.name[:-2])
                if matching.belongs(namespace, op.match_conditions):
                    found[namespace[: op.max_depth]] = None
        return list(found)[op.offset : wanted]

    # --- TTL and upkeep ---

    def _touch(self, due: Mapping[int, Iterable[bytes]]) -> Operation[None]:
        """Refreshes TTLs after a read. A read is not refused because its refresh is."""
        if self._engine.settings.read_only:
            return
        about = f"refreshing TTLs of prefix {self._prefix!r}"
        parts = [(bucket, part) for bucket, fields in due.items() for part in portions(list(fields))]
        calls = [scripts.touch(self._keys(bucket), about, part) for bucket, part in parts]
        try:
            yield from scripts.together(calls)
        except CheckpointerError as error:
            logger.warning("prefix %r: the TTLs of items that were read are not refreshed: %s", self._prefix, error)

    def _sweep_next(self) -> Operation[None]:
        """After a write, when it is due: removes what expired in one more bucket, where perhaps nobody writes."""
        if time.monotonic() < self._sweep_due:
            return
        self._sweep_due = time.monotonic() + self._pause
        bucket, self._swept = self._swept, (self._swept + 1) % items.BUCKETS
        try:
            call = scripts.sweep(self._keys(bucket), f"sweeping prefix {self._prefix!r}", SWEEP_ITEMS)
            yield from scripts.together([call])
        except CheckpointerError as error:  # the write itself is done
            logger.warning("prefix %r: items that expired are removed another time: %s", self._prefix, error)

    def sweep(self) -> Operation[int]:
        """Removes all items that expired: how many there were."""
        yield from self._engine.check_layout(True, scripts.SWEEP)
        removed, left = 0, list(range(items.BUCKETS))
        while left:
            calls = [scripts.sweep(self._keys(bucket), f"sweeping prefix {self._prefix!r}", SWEEP_ITEMS) for bucket in left]
            swept = [scripts.swept(reply) for reply in (yield from scripts.together(calls))]
            removed += sum(count for count, _ in swept)
            left = [bucket for bucket, (_, more) in zip(left, swept, strict=True) if more]
        return removed

    def repair(self) -> Operation[int]:
        """Makes the order of each bucket what its items say: how many entries were wrong or absent."""
        yield from self._engine.check_layout(True, scripts.REPAIR)
        changed = 0
        for bucket in range(items.BUCKETS):
            keys, about = self._keys(bucket), f"repair of bucket {bucket} of prefix {self._prefix!r}"
            for command, key, listed in (("ZSCAN", keys[1], 0), ("HSCAN", keys[0], 1)):
                cursor = -1
                while cursor:
                    cursor, found = yield from portion(command, key, cursor, SWEEP_ITEMS, about)
                    names: list[list[Argument]] = [[], []]
                    names[listed] += [name for name, _ in found]
                    if found:
                        changed += yield from scripts.repair(keys, about, *names)  # type: ignore[arg-type]
        return changed

    def _keys(self, bucket: int) -> tuple[bytes, ...]:
        return items.bucket_keys(self._prefix, bucket)

    def _place(self, name: bytes) -> Place:
        return Place(self._prefix.encode(), name)

    def _about(self, fields: Sequence[bytes]) -> str:
        others = f" and {len(fields) - 1} more" if len(fields) > 1 else ""
        return f"{self._place(fields[0])}{others}"
