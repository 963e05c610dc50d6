"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions, Checkpoint, CheckpointMetadata, get_checkpoint_metadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..address import Address, configurable
from ..caching.manifests import Manifest
from ..caching.messages import SerializedList
from ..effects import Argument, Operation, Script, compute, counted
from ..errors import CheckpointerError, CheckpointLostError, InvalidConfigError
from ..serialization import deltas
from ..serialization.encode import dumped, refusal, stored_rest
from ..storage import bodies, keys, records
from ..storage.bodies import Value
from . import retention
from .buckets import sweep
from .engine import Engine, logger, raise_for_reply
from .reading import read_manifest
from .removing import remove_surely, retain
from .uploading import STAGE, upload

PUT = Script("put", writes=True)

PUT_WRITES = Script("put_writes", writes=True)

TRIES = 3

WRITE_INLINE_MAX = 1024
"""A pending write is shared with nothing, so it stays in its record up to this many serialized bytes."""

WARN_BYTES = 64 * 1024 * 1024

_MISSING = object()


@dataclass(slots=True)
class NewCheckpoint:
    """A checkpoint on its way in: what was serialized, what is taken over from the parent."""

    rest: tuple[str, bytes]
    serialized: dict[str, tuple[str, bytes | SerializedList]]
    carried: dict[str, Value]
    versions: dict[str, Any]
    flags: int
    depth: int
    parent: bytes
    root: bytes
    run: bytes
    fork: bytes = b""
    """Of a fork: the id of its head."""
    fine: bool = False
    """Cut so that little changes alone (chunks.py)."""

    @property
    def size(self) -> int:
        return len(self.rest[1]) + sum(len(blob) for _, blob in self.serialized.values())


@dataclass(slots=True)
class EncodedCheckpoint:
    """A record ready to send, with the parts it refers to."""

    record: bytes
    pages: dict[bytes, bytes]
    fresh: bodies.Fresh
    known: Manifest


def put(
    engine: Engine,
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Operation[RunnableConfig]:
    target = Address.of(engine.settings.prefix, config)
    parent, target.checkpoint = target.checkpoint, keys.encode(checkpoint["id"], "the checkpoint's id")
    if not target.checkpoint:
        raise InvalidConfigError(f"{target.about('put')}: the checkpoint has an empty id")
    about = target.about("put")
    known = engine.manifests.get(target.keys.name, target.ns, parent) if parent else None
    full = get_checkpoint_metadata(config, metadata)
    draft = _new_checkpoint(engine, serde, target, checkpoint, full, new_versions, parent, known)
    values, ttl = dict(checkpoint["channel_values"]), engine.ttl_of(config)
    unresolved = [name for name in draft.versions if name not in new_versions and name not in values]
    result = target.config(target.ns, target.checkpoint.decode())
    guards, indexed = _guards(target.ns, parent, full.get("parents")), engine.indexed(full)
    # from here on the caller may change what it gave
    yield from engine.check_layout(True, PUT, STAGE)
    if parent and known is None and unresolved:  # values only the parent's record holds, and this process never saw it
        known = yield from read_manifest(engine, serde, target, parent)
        draft.carried.update(_carried_over(known, draft.versions, unresolved))

    def again() -> None:
        _serialize_again(engine, serde, target, values, draft)

    expected = parent if engine.settings.conflict else None
    reply, _ = yield from send(
        engine, target, about, draft, ttl, expected=expected, known=known, guards=guards, indexed=indexed, again=again
    )
    if reply[0] == b"deleted" and not target.ns:
        with suppress(CheckpointerError):  # what overtook it may be there; else it goes with a later removal
            yield from remove_surely(engine, serde, target, retention.everything, "put")
    raise_for_reply(engine, reply, about)
    newest, stored = reply[1].decode(errors="replace"), int(reply[4])
    if parent and int(reply[2]) == 1:  # what it builds on is gone; if the server was emptied, so is the layout
        engine.layout_seen = engine.layout_written = False
    if int(reply[3]):
        logger.error("%s: the thread's data had vanished (evicted?) and only its index was left; a new run begins", about)
    if newest.encode() == parent and parent > target.checkpoint:
        logger.warning(
            "%s: its parent %s is newer by id, so it is not the latest checkpoint; is a clock behind?",
            about,
            newest,
        )
    if stored > WARN_BYTES:
        logger.warning("%s: the thread takes %d bytes; consider max_versions or prune", about, stored)
    if not target.ns:
        yield from retain(engine, serde, target, int(reply[5]), about)
    return result


def send(
    engine: Engine,
    target: Address,
    about: str,
    draft: NewCheckpoint,
    ttl: Argument,
    *,
    expected: bytes | None,
    known: Manifest | None = None,
    guards: Sequence[bytes] | None = None,
    indexed: Sequence[tuple[bytes, bytes]] = (),
    again: Callable[[], None] | None = None,
) -> Operation[tuple[list[Any], EncodedCheckpoint]]:
    """Seals a draft and puts it, sending only parts that the server is not known to have; the reply of the last try, and what
    was sent.

    `expected`: the id that must be the newest of the namespace, else the reply is `conflict`; None: any. `indexed`:
    metadata to index, '' as a value removes it. `known` is what the parent has. `guards`: what must be there, None: the
    parent.

    The server names the parts it lacks (collected, expired, lost in a fail-over) and writes nothing; then they are sent,
    and if they were taken over from the parent, `again` makes them from the values.
    """
    guards = _guards(target.ns, draft.parent, None) if guards is None else guards
    sealed: EncodedCheckpoint = yield from compute(lambda: encode_checkpoint(engine, target, draft), draft.size)
    chunks, pages = set(sealed.fresh), set(sealed.pages)
    if known:
        chunks -= known.chunks
        pages.difference_update(known.pages)
    reply: list[Any] = []
    for attempt in range(TRIES):
        reply = yield from upload(
            engine,
            PUT,
            target,
            about,
            [
                target.ns,
                target.checkpoint,
                sealed.record,
                ttl,
                draft.run,
                b"-" if expected is None else expected,
                engine.settings.max_bytes,
                *counted(indexed),
                *counted(guards),
            ],
            {name: sealed.pages[name] for name in pages},
            {name: sealed.fresh[name] for name in chunks},
        )
        if reply[0] != b"missing":
            break
        logger.info("%s: the server lacks %d parts, sending them again", about, len(reply) - 1)
        lacking = {name[1:] for name in reply[1:]} - set(sealed.fresh) - set(sealed.pages)
        if again is not None and draft.carried and (lacking or attempt):
            again()
            sealed = yield from compute(lambda: encode_checkpoint(engine, target, draft), draft.size)
        pages, chunks = set(sealed.pages), set(sealed.fresh)
    if reply[0] == b"ok":
        engine.manifests.put(target.keys.name, target.ns, target.checkpoint, sealed.known, draft.parent)
        yield from sweep(engine)
    return reply, sealed


def _new_checkpoint(
    engine: Engine,
    serde: SerializerProtocol,
    target: Address,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    parent: bytes,
    known: Manifest | None,
) -> NewCheckpoint:
    """Serializes what is new. A channel is taken over from the parent only if it is absent from `new_versions` and the
    parent's record holds the same version of it: `update_state(as_node="__copy__")` passes the grandparent as parent
    and no new versions, and must not get the grandparent's values."""
    rest, flags = stored_rest(checkpoint)
    versions = dict(checkpoint.get("channel_versions") or {})
    values = checkpoint["channel_values"]
    carried = _carried_over(known, versions, [name for name in versions if name not in new_versions])
    parents = metadata.get("parents")
    root = parents.get("") if isinstance(parents, Mapping) else None
    run = metadata.get("run_id")
    about = target.about("put")
    return NewCheckpoint(
        rest=dumped(serde, [rest, metadata], f"{about}: the checkpoint's metadata"),
        serialized={
            name: _serialize(engine, serde, value, (target.keys.name, target.ns, name), f"{about}, channel {name!r}")
            for name, value in values.items()
            if name not in carried
        },
        carried=carried,
        versions=versions,
        flags=flags,
        depth=max(deltas.supersteps(metadata, versions, values).values(), default=0),
        parent=parent,
        root=keys.encode(root, "metadata['parents']['']") if target.ns and isinstance(root, str) else b"",
        run=keys.encode(keys.id_text(run) or "", "run_id"),
    )


def _serialize(
    engine: Engine, serde: SerializerProtocol, value: Any, place: Hashable, what: str
) -> tuple[str, bytes | SerializedList]:
    try:
        elements = engine.messages.serialized(serde, value, place)
    except Exception as error:
        raise refusal(error, what) from error
    return dumped(serde, value, what) if elements is None else ("msgpack", elements)


def _serialize_again(
    engine: Engine, serde: SerializerProtocol, target: Address, values: Mapping[str, Any], draft: NewCheckpoint
) -> None:
    """The parent's chunks are gone from the server, so what was taken over is made again from the values."""
    for name in [name for name, value in draft.carried.items() if value.digests]:
        if name not in values:
            raise CheckpointLostError(
                f"{target.about('put')}, channel {name!r}: its value is stored only with an earlier checkpoint, which "
                "is gone from the server (expired, deleted or evicted); nothing was written"
            )
        type_, blob = dumped(serde, values[name], f"{target.about('put')}, channel {name!r}")
        # the state may have changed since this call began: only what is still the same may stand for it
        if bodies.chunked(type_, blob, type_ == "msgpack", {}) != draft.carried[name]:
            raise CheckpointLostError(
                f"{target.about('put')}, channel {name!r}: parts of its value are gone from the server (expired, deleted "
                "or evicted) and the value has changed meanwhile; nothing was written"
            )
        draft.serialized[name] = type_, blob
        del draft.carried[name]


def encode_checkpoint(engine: Engine, target: Address, draft: NewCheckpoint) -> EncodedCheckpoint:
    fresh: bodies.Fresh = {}
    values = dict(draft.carried)
    for name, (type_, blob) in draft.serialized.items():
        if isinstance(blob, SerializedList):
            values[name] = engine.messages.chunked(blob, fresh)
        else:
            values[name] = bodies.chunked(type_, blob, type_ == "msgpack", fresh, draft.fine)
    digests = [name for value in values.values() for name in value.digests]
    references = records.References.of(digests)
    tail = b"".join(records.packed_id(part) for part in (draft.parent, draft.root, draft.run, draft.fork))
    record = records.seal(
        engine.settings.integrity,
        target.place(b"C", target.ns, target.checkpoint),
        references,
        tail,
        bodies.checkpoint_body(draft.rest, values, engine.settings.compression),
        flags=draft.flags,
        depth=draft.depth,
        logical=len(draft.rest[1]) + sum(value.size for value in values.values()),
        chunked=sum(value.chunked for value in values.values()),
    )
    known = Manifest(draft.versions, values, references.order)
    return EncodedCheckpoint(record, references.pages, fresh, known)


def put_writes(
    engine: Engine,
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Operation[None]:
    target = Address.of(engine.settings.prefix, config)
    if not target.checkpoint:
        raise InvalidConfigError(
            f"{target.about('put_writes')}: the config names no checkpoint_id; pass the config that put returned"
        )
    about = f"{target.about('put_writes')}, task {task_id!r}"
    task = keys.encode(task_id, "task_id")
    serialized = [
        (index, channel, dumped(serde, value, f"{about}, channel {channel!r}")) for index, (channel, value) in enumerate(writes)
    ]
    if not serialized:
        return
    ttl, guards = engine.ttl_of(config), _guards(target.ns, b"", configurable(config).get("checkpoint_map"))
    yield from engine.check_layout(True, PUT_WRITES, STAGE)
    place = target.place(b"W", target.ns, target.checkpoint)
    integrity, compression = engine.settings.integrity, engine.settings.compression

    def seal() -> tuple[list[Argument], dict[bytes, bytes], bodies.Fresh]:
        arguments: list[Argument] = []
        fresh: bodies.Fresh = {}
        pages: dict[bytes, bytes] = {}
        for index, channel, (type_, blob) in serialized:
            index = WRITES_IDX_MAP.get(channel, index)
            if len(blob) <= WRITE_INLINE_MAX:
                value = Value(type_, blob, (), len(blob))
            else:
                value = bodies.chunked(type_, blob, type_ == "msgpack", fresh)
            references = records.References.of(value.digests)
            pages.update(references.pages)
            marker = records.write_marker(index, task)
            body = bodies.write_body(task_path, channel, value, compression)
            record = records.seal(
                integrity,
                place,
                references,
                marker,
                body,
                flags=records.WRITE,
                depth=0,
                logical=len(blob),
                chunked=value.chunked,
            )
            arguments += ["first" if index >= 0 else "last", marker, record]
        return arguments, pages, fresh

    arguments, pages, fresh = yield from compute(seal, sum(len(blob) for _, _, (_, blob) in serialized))
    reply = yield from upload(
        engine,
        PUT_WRITES,
        target,
        about,
        [
            target.ns,
            target.checkpoint,
            ttl,
            engine.settings.max_bytes,
            *counted(guards),
            len(serialized),
            *arguments,
        ],
        pages,
        fresh,
    )
    if reply[0] == b"missing":
        raise CheckpointLostError(f"{about}: the server lost what was just sent; nothing was written")
    raise_for_reply(engine, reply, about)


def _carried_over(known: Manifest | None, versions: Mapping[str, Any], names: Iterable[str]) -> dict[str, Value]:
    if known is None:
        return {}
    return {
        name: known.values[name]
        for name in names
        if name in known.values and known.versions.get(name, _MISSING) == versions[name]
    }


def _guards(ns: bytes, parent: bytes, parents: Any) -> list[bytes]:
    """The checkpoints that one of this namespace builds on, as fields: its parent, and those that called it, by namespace."""
    guards = [keys.checkpoint_field(ns, parent)] if parent else []
    if isinstance(parents, Mapping):
        for space, checkpoint in parents.items():
            if isinstance(space, str) and isinstance(checkpoint, str) and checkpoint:
                guards.append(keys.checkpoint_field(keys.encode(space, "a namespace"), keys.encode(checkpoint, "a parent id")))
    return guards
