"""What people do with a thread's history: look at it, name, compare, go back, expire, find. Operations, like those in
operations.py and built on them; no I/O here either.

Going back by *fork* adds a new head that holds the target's values, and loses nothing. Its parent is the target's parent,
because the writes stored at a checkpoint produce its child: as a child of the target it would replay them in DeltaChannels.
Going back by *truncate* removes what came after the target, and of the target's own writes what came after its interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME, _DeltaSnapshot

from . import checks, keys, records, retention
from .checkpoints import Known, dumped, loaded, stored_rest
from .effects import Argument, Call, Operation, Read, Script, compute, counted, portion
from .errors import (
    CheckpointNotFoundError,
    InvalidConfigError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from .ids import id_above
from .operations import (
    ANCESTORS,
    BUSY_TRIES,
    PAGE_CHECKPOINTS,
    REMOVE,
    START,
    Cursor,
    Draft,
    Found,
    Operations,
    logger,
    metadata_text,
    stored_text,
)
from .retention import Survey, Written
from .target import Target

FORK, TAG = Script("fork", writes=True), Script("tag", writes=True)
EXPIRE, TIDY = Script("expire", writes=True), Script("tidy")

THREADS_PAGE = 200

Back = Callable[[SerializerProtocol, Target, Survey, str], Operation[str | None]]
"""One try to go back to a checkpoint, as a survey shows it: the new head, or None if the thread changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Version:
    """One checkpoint in the history of a thread, without its values."""

    number: int
    """From the thread's own counter, never reused."""
    checkpoint_id: str
    parent_id: str | None
    checkpoint_ns: str
    created_at: datetime
    """When the server stored it, UTC."""
    source: str | None
    step: int | None
    next: tuple[str, ...]
    """Nodes it hands over to, as far as its channels tell (`branch:to:<node>`)."""
    tags: tuple[str, ...]
    new_bytes: int
    """What storing it added on the server, compressed, without what it shares."""
    logical_bytes: int
    """What its values take serialized."""


@dataclass(frozen=True, slots=True)
class ChannelDiff:
    """How one channel differs between two checkpoints. For lists also which elements."""

    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None
    appended: list[Any] = field(default_factory=list)
    """Elements only the second list has, between what both begin and end with."""
    dropped: list[Any] = field(default_factory=list)
    """Elements only the first list has, likewise."""


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread, from the indexes and its counts."""

    thread_id: str
    last_activity: datetime
    checkpoints: int
    stored_bytes: int
    logical_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored. Bytes are those of fields and their names, without the server's own overhead."""

    threads: int
    checkpoints: int
    writes: int
    chunks: int
    stored_bytes: int
    logical_bytes: int
    unique_chunk_bytes: int
    """Plain bytes of all chunks, each once."""
    referred_chunk_bytes: int
    """Plain bytes of all chunks, as often as checkpoints and writes refer to them."""
    server: Mapping[str, Any] | None = None
    """`INFO memory` of the server, where it may be asked and no thread was named."""

    @property
    def ratio(self) -> float:
        """Logical bytes for each stored byte."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0

    @property
    def dedup_share(self) -> float:
        """The share of what chunks hold that did not have to be stored, because it was there already: 0 to 1."""
        return 1 - self.unique_chunk_bytes / self.referred_chunk_bytes if self.referred_chunk_bytes else 0.0


class History:
    """Operations on the past of threads."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    # --- looking ---

    def page(
        self, serde: SerializerProtocol, target: Target, cursor: Cursor, most: int
    ) -> Operation[tuple[list[Version], Cursor | None]]:
        """Versions below a cursor, and where the next page begins."""
        operations = self.operations
        yield from operations.check_layout(False)
        page = yield from operations.page(target, target.ns.decode(), cursor, most, whole=False)
        tags = (yield from self._tags(target)) if cursor[0] else operations.opened_tags(target, page.tags)
        named: dict[retention.Place, list[str]] = {}
        for name, place in tags.items():
            named.setdefault(place, []).append(name)
        return [self._version(serde, target, each, named) for each in page.found], page.following

    def _version(
        self, serde: SerializerProtocol, target: Target, found: Found, named: Mapping[retention.Place, Sequence[str]]
    ) -> Version:
        opened = self.operations.opened(target, found)
        _, metadata = opened.load(serde)
        header = opened.header
        at = (found.ns.decode(), found.checkpoint.decode())
        handed = [name.removeprefix("branch:to:") for name in sorted(opened.channels) if name.startswith("branch:to:")]
        return Version(
            number=header.version,
            checkpoint_id=at[1],
            parent_id=header.parent,
            checkpoint_ns=at[0],
            created_at=datetime.fromtimestamp(header.created_at / 1000, timezone.utc),
            source=metadata.get("source"),
            step=metadata.get("step"),
            next=tuple(handed),
            tags=tuple(sorted(named.get(at, ()))),
            new_bytes=header.new_bytes,
            logical_bytes=header.logical,
        )

    def resolve(self, target: Target, to: str | int, about: str) -> Operation[str]:
        """The id of the checkpoint that `to` means: an id, a tag, or a negative number of steps up from the newest."""
        operations = self.operations
        steps = checks.plain(to)
        if isinstance(steps, int) and not isinstance(steps, bool):
            if steps >= 0:
                raise ValueError(f"{about}: steps back are a negative number, not {to!r}")
            cursor, left = b"", -steps
            while True:
                most = min(left, PAGE_CHECKPOINTS)
                reply = yield Call(ANCESTORS, target.keys.all, [target.keys.name, target.ns, cursor, most, 1 << 40, 0], about)
                if reply[0] != b"none":
                    operations.refuse(reply, about)
                    if len(reply[1]) == left:
                        found: bytes = reply[1][-1][1]
                        return found.decode()
                    if reply[1] and int(reply[5]):
                        left -= len(reply[1])
                        cursor = reply[1][-1][1]
                        continue
                if not cursor and reply[0] == b"none":
                    raise CheckpointNotFoundError(f"{about}: there is no such thread, or nothing in that namespace")
                raise CheckpointNotFoundError(f"{about}: the newest checkpoint has fewer than {-steps} ancestors")
        if isinstance(to, Mapping):
            raise InvalidConfigError(f"{about}: this is a config; pass the id: config['configurable']['checkpoint_id']")
        wanted = keys.encode(to, "checkpoint id or tag")
        tags = yield from self._tags(target)
        if wanted.decode() in tags:
            ns, checkpoint = tags[wanted.decode()]
            if ns != target.ns.decode():
                raise CheckpointNotFoundError(f"{about}: the tag {to!r} is for a checkpoint of the namespace {ns!r}")
            return checkpoint
        if not wanted or (yield from self._stored(target, wanted)) is None:
            raise CheckpointNotFoundError(
                f"{about}: {to!r} is neither a checkpoint nor a tag of it; tags are {sorted(tags) or 'none'}"
            )
        return wanted.decode()

    def _stored(self, target: Target, checkpoint: bytes) -> Operation[Found | None]:
        """One checkpoint without what it refers to; None if the index does not know it."""
        below = checkpoint + b"\x01"  # ids hold no NUL, so nothing lies between
        page = yield from self.operations.page(target, target.ns.decode(), (below, None), 1, whole=False)
        return page.found[0] if page.found and page.found[0].checkpoint == checkpoint else None

    def _tags(self, target: Target) -> Operation[dict[str, retention.Place]]:
        yield from self.operations.check_layout(False)
        page = yield from self.operations.page(target, "", START, 1, whole=False)
        return self.operations.opened_tags(target, page.tags)

    def diff(
        self, serde: SerializerProtocol, thread: Any, a: str | int, b: str | int, ns: str
    ) -> Operation[dict[str, ChannelDiff]]:
        """Channel by channel, what `b` has that `a` has not. Equal digests say equal; others are compared decoded, since a
        set may serialize differently each time."""
        target = self.operations.target(thread, ns)
        operations, about = self.operations, target.about("diff")
        ids = []
        for each in (a, b):
            ids.append((yield from self.resolve(target, each, about)).encode())
        found, parts = yield from operations.fetch(target, [(target.ns, each) for each in ids])
        if len(found) != 2:
            raise CheckpointNotFoundError(f"{about}: a checkpoint went away while it was read")

        def compare() -> dict[str, ChannelDiff]:
            places, stored = [], []
            for each in found:
                opened = operations.opened(target, each)
                places.append(opened.place)
                stored.append(opened.known(parts, {}).values)

            def value(side: int, name: str) -> Any:
                return loaded(serde, stored[side][name], parts, f"{places[side]}, channel {name!r}")

            old, new = stored
            result: dict[str, ChannelDiff] = {}
            for name in [*old, *(name for name in new if name not in old)]:
                if name in old and name in new:
                    if old[name] != new[name]:
                        before, after = _whole(value(0, name)), _whole(value(1, name))
                        if not _equal(serde, before, after):
                            result[name] = _changed(serde, before, after)
                    continue
                only = value(0 if name in old else 1, name)
                if isinstance(only, _DeltaSnapshot):
                    continue  # between two snapshots of a DeltaChannel nothing is stored here, which says nothing of it
                result[name] = ChannelDiff("removed", before=only) if name in old else ChannelDiff("added", after=only)
            return result

        return (yield from compute(compare, sum(len(chunk) for chunk in parts.chunks.values())))

    # --- tags ---

    def tag(self, serde: SerializerProtocol, thread: Any, name: str, checkpoint: str | int | None, ns: str) -> Operation[None]:
        target = self.operations.target(thread, ns)
        about = target.about(f"tag {name!r}")
        tag = b"G" + keys.encode(name, "tag")
        if tag == b"G":
            raise InvalidConfigError(f"{about}: a tag needs a name")
        yield from self.operations.check_layout(True, TAG)
        if checkpoint is None:
            page = yield from self.operations.page(target, ns, START, 1, whole=False)
            if not page.found:
                raise ThreadNotFoundError(f"{about}: there is no such thread, or nothing in that namespace")
            stored: Found | None = page.found[0]
        else:
            stored = yield from self._stored(target, (yield from self.resolve(target, checkpoint, about)).encode())
        if stored is None:
            raise CheckpointNotFoundError(f"{about}: the checkpoint {checkpoint!r} is not there any more")
        at = stored.checkpoint
        if self.operations.header(target, stored).depth:
            yield from self._check_whole(serde, target, at, about)
        content = records.seal_tag(target.ns, at, target.place(tag, b"", b""), self.operations.settings.integrity)
        reply = yield Call(TAG, target.keys.all, [target.keys.name, tag, content, self.operations.settings.ttl], about)
        if reply[0] == b"none":
            raise CheckpointNotFoundError(f"{about}: the checkpoint {at.decode()!r} is not there any more")
        self.operations.refuse(reply, about)

    def untag(self, thread: Any, name: str) -> Operation[bool]:
        target = self.operations.target(thread)
        about = target.about(f"untag {name!r}")
        yield from self.operations.check_layout(True, TAG)
        reply = yield Call(TAG, target.keys.all, [target.keys.name, b"G" + keys.encode(name, "tag"), b"", 0], about)
        self.operations.refuse(reply, about, also=b"none")
        return reply[0] == b"ok" and bool(reply[1])

    def tags(self, thread: Any) -> Operation[dict[str, str]]:
        tags = yield from self._tags(self.operations.target(thread))
        return {name: checkpoint for name, (_, checkpoint) in sorted(tags.items())}

    # --- going back ---

    def fork(self, serde: SerializerProtocol, thread: Any, to: str | int) -> Operation[RunnableConfig]:
        return (yield from self._back(serde, thread, to, self._fork, FORK))

    def truncate(self, serde: SerializerProtocol, thread: Any, to: str | int) -> Operation[RunnableConfig]:
        return (yield from self._back(serde, thread, to, self._truncate, REMOVE))

    def _back(
        self, serde: SerializerProtocol, thread: Any, to: str | int, go: Back, script: Script
    ) -> Operation[RunnableConfig]:
        target = self.operations.target(thread)
        about = target.about("rollback")
        yield from self.operations.check_layout(True, script)
        goal = yield from self.resolve(target, to, about)
        for _ in range(BUSY_TRIES):
            survey = yield from self.operations.survey(target, use=True)
            if survey is None:
                continue
            if ("", goal) not in survey.headers:
                raise CheckpointNotFoundError(f"{about}: the checkpoint {goal!r} is not there any more")
            for ns, origin in _origins(survey, goal).items():
                if origin and survey.headers[(ns, origin)].depth:
                    yield from self._check_whole(serde, self.operations.target(thread, ns), origin.encode(), about)
            head = yield from go(serde, target, survey, goal)
            if head is not None:
                return target.config(b"", head)
        raise ThreadBusyError(f"{about}: the thread changed each of {BUSY_TRIES} times; nothing was changed, try again")

    def _check_whole(self, serde: SerializerProtocol, target: Target, checkpoint: bytes, about: str) -> Operation[None]:
        """Raises CheckpointLostError if the DeltaChannels of a checkpoint cannot be rebuilt."""
        target.checkpoint = checkpoint
        lineage = yield from self.operations.lineage(serde, target, about, None, None)
        self.operations.refuse_broken(lineage, about)

    def _fork(self, serde: SerializerProtocol, target: Target, survey: Survey, goal: str) -> Operation[str | None]:
        operations, about = self.operations, target.about("rollback")
        origins = _origins(survey, goal)
        wanted = [(ns.encode(), origin.encode()) for ns, origin in origins.items() if origin]
        found, parts = yield from operations.fetch(target, wanted)
        fields = [keys.history_field(*each) for each in wanted]
        (contents,) = yield Read([("HMGET", target.keys.hash, *fields)], about)
        histories = {ns.decode(): content for (ns, _), content in zip(wanted, contents, strict=True) if content}
        origin_of = {each.ns.decode(): each for each in found}
        newest = retention.newest_of_each(survey.headers)
        heads = {ns: id_above(newest[ns], about) for ns in origins}
        pages: dict[bytes, bytes] = {}
        known: list[tuple[str, Known]] = []
        filed = yield from self._filed(serde, target, goal)
        args: list[Argument] = [survey.revision, operations.settings.ttl, operations.settings.max_bytes, len(origins)]
        for ns, head in heads.items():
            there = self.operations.target(target.given, ns)
            there.checkpoint = head.encode()
            draft = self._forked(serde, there, origin_of.get(ns), parts, heads[""])
            sealed = operations.seal(there, draft)
            args += [there.ns, there.checkpoint, sealed.record, b""]
            if ns in histories:
                here, new = (there.place(b"H", there.ns, each.encode()) for each in (origins[ns], heads[ns]))
                args[-1] = records.moved(histories[ns], here, new, operations.settings.integrity)[1]
            pages |= sealed.pages
            known.append((ns, sealed.known))
        args += counted(filed)
        reply = yield from operations.upload(FORK, target, about, args, pages, {})
        if reply[0] == b"stale":
            return None
        if reply[0] == b"none":
            raise ThreadNotFoundError(f"{about}: the thread went away while it was read")
        operations.refuse(reply, about)
        for ns, each in known:
            operations.memory.put(target.keys.name, ns.encode(), heads[ns].encode(), each)
        return heads[""]

    def _forked(
        self, serde: SerializerProtocol, target: Target, origin: Found | None, parts: records.Parts, root: str
    ) -> Draft:
        """The checkpoint of a fork in the namespace of `target`: that of `origin` again, or an empty one. `root` is the
        fork's head."""
        about = target.about("rollback")
        checkpoint: Mapping[str, Any] = empty_checkpoint()
        metadata: dict[str, Any] = {"step": -2}  # what LangGraph takes for granted where nothing is stored
        header = records.Header()
        values: dict[str, records.Value] = {}
        if origin is not None:
            opened = self.operations.opened(target, origin)
            checkpoint, stored = opened.load(serde)
            header = opened.header
            metadata = {name: value for name, value in stored.items() if name != "run_id"}
            metadata |= {"step": (stored.get("step") or 0) + 1, "forked_from": origin.checkpoint.decode()}
            values = dict(opened.known(parts, {}).values)
        metadata["source"] = "fork"
        if target.ns:
            metadata["parents"] = {**metadata.get("parents", {}), "": root}
        rest, flags = stored_rest({**checkpoint, "ts": datetime.now(timezone.utc).isoformat()})
        return Draft(
            rest=dumped(serde, [rest, metadata], f"{about}: the checkpoint's metadata"),
            serialized={},
            carried=values,
            versions=dict(checkpoint["channel_versions"]),
            flags=flags,
            depth=header.depth,
            parent=(header.parent or "").encode(),
            root=root.encode() if target.ns else b"",
            run=b"",
            fork=root.encode(),
        )

    def _truncate(self, serde: SerializerProtocol, target: Target, survey: Survey, goal: str) -> Operation[str | None]:
        dropped, replaced = _taken_back(survey, goal)
        if not dropped and not replaced:
            return goal
        filed = yield from self._filed(serde, target, goal)
        removed = yield from self.operations.remove(serde, target, survey, dropped, replaced, filed)
        return goal if removed else None

    def _filed(self, serde: SerializerProtocol, target: Target, goal: str) -> Operation[list[tuple[bytes, bytes]]]:
        """Under what metadata a thread is found that stands at `goal`: of each key, what the newest checkpoint up to there said
        that had it; '' where none had."""
        operations = self.operations
        missing = dict.fromkeys((name.encode() for name in operations.settings.index), b"")
        filed: dict[bytes, bytes] = {}
        cursor: Cursor | None = (goal.encode() + b"\x01", None)
        most = 1  # nearly always that one has them all
        while missing and cursor is not None:
            page = yield from operations.page(target, "", cursor, most, whole=False)
            for each in page.found:
                told = dict(operations.indexed(operations.opened(target, each).load(serde)[1]))
                filed = told | filed
                for name in told:
                    missing.pop(name, None)
            cursor, most = page.following, PAGE_CHECKPOINTS
        return [*(missing | filed).items()]

    # --- expiry ---

    def expire(self, thread: Any, how: Literal["own", "persist", "default"], seconds: Any = None) -> Operation[None]:
        target = self.operations.target(thread)
        about = target.about("set_ttl" if how != "persist" else "persist")
        own = checks.ttl_ms(seconds, f"{about}: seconds") if how == "own" else 0
        ttl = self.operations.settings.ttl if how == "default" else own
        yield from self.operations.check_layout(True, EXPIRE)
        reply = yield Call(EXPIRE, target.keys.all, [target.keys.name, how, ttl], about)
        if reply[0] == b"none":
            raise ThreadNotFoundError(f"{about}: there is no such thread")
        self.operations.refuse(reply, about)

    def apply_ttl(self, threads: Sequence[Any] | None, progress: Callable[[int], None] | None) -> Operation[int]:
        """Bucket by bucket, or the threads that are named. Each is one script: a call that was cut short is repeated whole."""
        operations, done = self.operations, 0
        yield from operations.check_layout(True, EXPIRE)
        if threads is not None:
            keys.check_several(threads, "apply_ttl: thread_ids")
            targets = [operations.target(thread) for thread in threads]
            for at in range(0, len(targets), THREADS_PAGE):
                done = yield from self._apply_ttl(targets[at : at + THREADS_PAGE], done, progress)
            return done
        for bucket in range(keys.BUCKETS):
            key, cursor, seen = keys.bucket_key(operations.settings.prefix, bucket, "threads"), -1, set[bytes]()
            while cursor:
                cursor, there = yield from portion("ZSCAN", key, cursor, THREADS_PAGE, "apply_ttl")
                fresh = {name for name, _ in there} - seen
                seen |= fresh
                targets = [operations.target(stored_text(name, "the index of threads")) for name in sorted(fresh)]
                done = yield from self._apply_ttl(targets, done, progress)
        return done

    def _apply_ttl(self, targets: Sequence[Target], done: int, progress: Callable[[int], None] | None) -> Operation[int]:
        for target in targets:
            about = target.about("apply_ttl")
            reply = yield Call(EXPIRE, target.keys.all, [target.keys.name, "apply", self.operations.settings.ttl], about)
            if reply[0] not in (b"ok", b"none"):
                logger.warning("%s: left as it is: its %s; see verify", about, _UNFIT.get(reply[0], "reply is unknown"))
            done += reply[0] == b"ok" and bool(reply[1])
        if progress is not None and targets:
            progress(done)
        return done

    # --- finding ---

    def infos(self, threads: Sequence[tuple[str, float]]) -> Operation[list[ThreadInfo]]:
        """Threads that live, with their counts; what the indexes still say of expired ones is dropped.

        One whose hash the server evicted is left out and logged: the others are right, and reading it says that it is lost.
        """
        targets = [self.operations.target(thread) for thread, _ in threads]
        about = "listing threads"
        replies = yield Read([("HGET", target.keys.hash, "S") for target in targets], about)
        result: list[ThreadInfo] = []
        for target, raw, (_, active) in zip(targets, replies, threads, strict=True):
            if raw is None:
                with suppress(ServerRefusedError):  # a replica refuses to tidy; the listing is right all the same
                    reply = yield Call(TIDY, target.keys.all, [target.keys.name], about)
                    if reply[1] < 0:
                        logger.warning("%s: its hash is gone under a living index (evicted?), see verify", target.about(about))
                continue
            counts = records.Counts.of(raw, target.keys.name, about)
            if counts.checkpoints:  # writes alone are no thread yet, or what a deleted run left until the tombstone goes
                when = datetime.fromtimestamp(active / 1000, timezone.utc)
                result.append(ThreadInfo(target.thread, when, counts.checkpoints, counts.stored, counts.logical))
        return result

    def find(self, wanted: Mapping[str, Any]) -> Operation[list[tuple[str, float]]]:
        """Threads whose indexed metadata have all these values, with their last activity."""
        matching: set[str] | None = None
        for name, value in wanted.items():
            entry = b"V" + name.encode() + b"\0" + metadata_text(value) + b"\0"
            found = set((yield from self.operations.threads_indexed("m", entry, f"find_threads: {name}={value!r}")))
            matching = found if matching is None else matching & found
        targets = [self.operations.target(name) for name in sorted(matching or ())]
        commands: list[tuple[Argument, ...]] = [("ZSCORE", target.keys.all[2], target.keys.name) for target in targets]
        scores = (yield Read(commands, "find_threads")) if commands else []
        return [(target.thread, float(score or 0)) for target, score in zip(targets, scores, strict=True)]

    def stats(self, thread: Any) -> Operation[Stats]:
        if thread is not None:
            target = self.operations.target(thread)
            about = target.about("stats")
            (raw,) = yield Read([("HGET", target.keys.hash, "S")], about)
            if raw is None:
                yield from self.operations.fetch(target, [(b"", b"")])  # raises if there was one and it got lost
                raise ThreadNotFoundError(f"{about}: there is no such thread")
            return _stats(1, records.Counts.of(raw, target.keys.name, about)[3:])
        names = yield from self.operations.threads()
        totals = [0] * 7
        living = 0
        for at in range(0, len(names), THREADS_PAGE):
            targets = [self.operations.target(name) for name, _ in names[at : at + THREADS_PAGE]]
            replies = yield Read([("HGET", target.keys.hash, "S") for target in targets], "stats")
            for target, raw in zip(targets, replies, strict=True):
                if raw is not None:
                    living += 1
                    counts = records.Counts.of(raw, target.keys.name, "stats")[3:]
                    totals = [total + count for total, count in zip(totals, counts, strict=True)]
        try:
            info = yield from server_info("memory")
        except ServerRefusedError:
            info = None  # many managed servers do not allow it: the totals are still right
        return _stats(living, totals, info)


def server_info(section: str) -> Operation[dict[str, Any]]:
    """A section of what the server says of itself; numbers as such."""
    (reply,) = yield Read([("INFO", section)], "stats")
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    info: dict[str, Any] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            try:
                info[name] = float(value) if "." in value else int(value)
            except ValueError:
                info[name] = value
    return info


class ThreadListing:
    """One `list_threads` or `find_threads` call, page by page; None at the end."""

    def __init__(
        self, history: History, prefix: str | None, limit: int | None, newest_first: bool, wanted: Mapping[str, Any] | None
    ) -> None:
        self._history, self._newest_first, self._wanted = history, newest_first, wanted
        self._prefix = checks.begin(prefix, "list_threads: prefix")
        self._limit = checks.limit(limit, "list_threads")
        self._left: list[tuple[str, float]] | None = None

    def next_page(self) -> Operation[list[ThreadInfo] | None]:
        operations = self._history.operations
        if self._left is None:
            yield from operations.check_layout(False)
            if self._wanted is not None:
                _check_indexed(self._wanted, operations.settings.index)
                left = yield from self._history.find(self._wanted)
            else:
                left = yield from operations.threads()
            if self._prefix:
                left = [each for each in left if each[0].startswith(self._prefix)]
            self._left = sorted(left, key=lambda each: (each[1], each[0]), reverse=self._newest_first)
        while self._left and (self._limit is None or self._limit > 0):
            size = THREADS_PAGE if self._limit is None else min(THREADS_PAGE, self._limit)
            batch, self._left = self._left[:size], self._left[size:]
            infos = yield from self._history.infos(batch)
            if self._limit is not None:
                self._limit -= len(infos)
            if infos:
                return infos
        return None


class VersionListing:
    """One `history` call, page by page; None at the end."""

    def __init__(self, history: History, serde: SerializerProtocol, thread: Any, ns: str, limit: int | None) -> None:
        self._history, self._serde, self._limit = history, serde, checks.limit(limit, "history")
        self._target = history.operations.target(thread, ns)
        self._cursor: Cursor | None = START

    def next_page(self) -> Operation[list[Version] | None]:
        if self._cursor is None or (self._limit is not None and self._limit <= 0):
            return None
        most = PAGE_CHECKPOINTS if self._limit is None else min(PAGE_CHECKPOINTS, self._limit)
        versions, self._cursor = yield from self._history.page(self._serde, self._target, self._cursor, most)
        if self._limit is not None:
            self._limit -= len(versions)
        return versions or None


_RESUMED = WRITES_IDX_MAP[RESUME]
_UNFIT = {b"lost": "data is gone", b"counts": "counts are damaged", b"settings": "TTL settings are damaged"}
"""What stops one thread of many."""


def _whole(value: Any) -> Any:
    return value.value if isinstance(value, _DeltaSnapshot) else value


def _before(survey: Survey, goal: str) -> tuple[set[retention.Place], dict[str, str]]:
    """The checkpoints that were there when the thread stood at `goal`, and for each namespace that asked something in the
    step after it, which checkpoint asked first.

    Checkpoints that subgraphs made while the target's own step ran are taken back to where its interrupt was first asked: in
    the namespace that asked, those up to the asking one stay; in others, those from before the answer. If the step ended
    without asking they all go, and if nothing came after the target they all stay. So a subgraph asks where it asked before,
    also one that remembers earlier calls, which LangGraph would take for finished without that checkpoint.
    """
    thread = survey.headers
    own = [header for header, _ in survey.writes.get(("", goal), ())]
    resumed = [header.created_at for header in own if header.index == _RESUMED]
    asked = any(header.index == retention.INTERRUPTED for header in own)
    untouched = ("", goal) not in survey.parents() and not resumed
    asking: dict[str, str] = {}
    for (ns, checkpoint), header in thread.items():
        if header.root == goal and survey.interrupted((ns, checkpoint)):
            asking[ns] = min(asking.get(ns, checkpoint), checkpoint)

    def stays(ns: str, checkpoint: str, header: records.Header) -> bool:
        if ns == "":
            return checkpoint <= goal
        if header.root is None or header.root < goal:
            return True
        if header.root > goal:
            return False
        if untouched or header.fork:  # made with the target, not by the step after it
            return True
        if not asked:
            return False
        return checkpoint <= asking[ns] if ns in asking else not resumed or header.created_at < min(resumed)

    return {place for place, header in thread.items() if stays(*place, header)}, asking


def _origins(survey: Survey, goal: str) -> dict[str, str]:
    """What a fork to `goal` holds again: for the root namespace the target, and for each namespace that remembers earlier
    calls and has moved on since, its newest checkpoint from then; "" if there was none."""
    there, _ = _before(survey, goal)
    then, now = retention.newest_of_each(there), retention.newest_of_each(survey.headers)
    return {"": goal} | {ns: then.get(ns, "") for ns in now if ns and ":" not in ns and then.get(ns) != now[ns]}


def _taken_back(survey: Survey, goal: str) -> tuple[list[retention.Place], dict[retention.Place, Written]]:
    """What a truncation to `goal` removes: checkpoints; and of those after which nothing is left, the writes that stay."""
    parents = survey.parents()
    there, asking = _before(survey, goal)
    dropped = [place for place in survey.headers if place not in there]
    touched = {"", *(ns for ns, _ in dropped), *asking}
    replaced: dict[retention.Place, Written] = {}
    for place in {**retention.newest_of_each(there), "": goal}.items():
        writes = survey.writes.get(place, [])
        kept = _writes_kept(place[1], [header for header, _ in writes], place in parents)
        if place[0] in touched and len(kept) < len(writes):
            replaced[place] = [writes[at] for at in kept]
    return dropped, replaced


def _writes_kept(goal: str, headers: Sequence[records.Header], continued: bool) -> list[int]:
    """Which pending writes of a truncation's target stay, as positions; `continued`: it had a child.

    They stay as they were when its interrupt was first asked: the interrupt, and the results that were saved beside it by
    tasks that had finished. What came with or after the answer goes; so do a RESUME, what the interrupted tasks wrote once
    answered, and what LangGraph keeps here for the next checkpoint: graph input and `update_state`, under ids made of the
    checkpoint's (langgraph/pregel/_loop.py, main.py). Without an interrupt, all that a step left for its child goes.
    """
    if not continued and not any(header.index == _RESUMED for header in headers):
        return list(range(len(headers)))
    interrupted = {header.task for header in headers if header.index == retention.INTERRUPTED}
    if not interrupted:
        return []
    answered = min((header.version for header in headers if header.index == _RESUMED), default=1 << 40)
    foreign: set[str] = set()
    with suppress(ValueError):  # not a UUID: not LangGraph's id, and no ids are made of it
        foreign = {str(uuid5(UUID(goal), name)) for name in ("__input__", INTERRUPT)}
    return [
        at
        for at, header in enumerate(headers)
        if header.index == retention.INTERRUPTED
        or (
            header.index != _RESUMED
            and header.task not in interrupted
            and header.task not in foreign
            and header.version < answered
        )
    ]


def _equal(serde: SerializerProtocol, a: Any, b: Any) -> bool:
    """Whether two values are the same to their user: 1, 1.0 and True are three, NaN is itself, mappings and sets have no order.

    What does not say by itself whether it is equal (arrays, objects without `__eq__`) is compared as it serializes.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return _typed(a) == _typed(b) and all(_equal(serde, value, b[key]) for key, value in a.items())
    if isinstance(a, set | frozenset):
        return _typed(a) == _typed(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(serde, one, other) for one, other in zip(a, b, strict=True))
    with suppress(ValueError, TypeError, ArithmeticError):  # some refuse to be compared
        if (a == b) is True:  # and arrays give an array
            return True
    if isinstance(a, str | bytes | int):
        return False
    return serde.dumps_typed(a) == serde.dumps_typed(b)


def _typed(items: Iterable[Any]) -> set[tuple[type, Any]]:
    """As a set in which 1, 1.0 and True are three."""
    return {(type(each), each) for each in items}


def _changed(serde: SerializerProtocol, old: Any, new: Any) -> ChannelDiff:
    if not (isinstance(old, list) and isinstance(new, list)):
        return ChannelDiff("changed", before=old, after=new)
    start = 0
    while start < min(len(old), len(new)) and _equal(serde, old[start], new[start]):
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and _equal(serde, old[-1 - end], new[-1 - end]):
        end += 1
    return ChannelDiff(
        "changed", before=old, after=new, appended=new[start : len(new) - end], dropped=old[start : len(old) - end]
    )


def _check_indexed(wanted: Mapping[str, Any], index: Sequence[str]) -> None:
    if not wanted:
        raise ValueError("find_threads: by what? Name a key of index_metadata and its value; list_threads has all threads")
    if unknown := set(wanted) - set(index):
        raise ValueError(f"find_threads: {sorted(unknown)} is not indexed; this saver was told index_metadata={index!r}")
    for name, value in wanted.items():
        if checks.plain(value) is None:
            raise ValueError(f"find_threads: {name}={value!r}: values are text, numbers or booleans")


def _stats(threads: int, counts: Sequence[int], server: Mapping[str, Any] | None = None) -> Stats:
    checkpoints, writes, chunks, stored, logical, unique, referred = counts
    return Stats(threads, checkpoints, writes, chunks, stored, logical, unique, referred, server)
