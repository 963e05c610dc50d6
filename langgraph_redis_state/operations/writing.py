"""put and put_writes: what is taken over from the parent, what is sent, and what happens if the server lacks parts of it.

Serialization happens before the first effect, so that a state may change as soon as `aput` waits for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions, Checkpoint, CheckpointMetadata, get_checkpoint_metadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..address import Address, configurable
from ..caching.manifests import Manifest
from ..caching.messages import SerializedList
from ..effects import Argument, Note, Operation, compute
from ..errors import CheckpointerError, CheckpointLostError, InvalidConfigError, ThreadDeletedError
from ..scripts import commands
from ..scripts.following import Tip
from ..scripts.replies import PartsMissingError
from ..serialization import deltas, encode
from ..serialization.encode import EncodedCheckpoint, NewCheckpoint, dumped, refusal, stored_rest
from ..storage import bodies, keys
from ..storage.bodies import Value
from . import freshness, retention
from .buckets import sweep
from .engine import Engine, logger
from .reading import read_manifest
from .removing import remove_surely, retain
from .uploading import upload

TRIES = 3

WARN_BYTES = 64 * 1024 * 1024

T = TypeVar("T")

_MISSING = object()


def put(
    engine: Engine,
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Operation[RunnableConfig]:
    target = engine.target(config)
    parent, target.checkpoint = target.checkpoint, keys.encode(checkpoint["id"], "the checkpoint's id")
    if not target.checkpoint:
        raise InvalidConfigError(f"{target.about('put')}: the checkpoint has an empty id")
    about = target.about("put")
    known = engine.manifests.get(target.keys.name, target.ns, parent) if parent else None
    full = get_checkpoint_metadata(config, metadata)
    draft = _new_checkpoint(engine, serde, target, checkpoint, full, new_versions, parent, known)
    values, ttl = dict(checkpoint["channel_values"]), engine.ttl_of(config)
    absent = [name for name in draft.versions if name not in values]
    unresolved, uncounted = [name for name in absent if name not in new_versions], absent and not deltas.counted(full)
    result = target.config(target.ns, target.checkpoint.decode())
    guards, indexed = _guards(target.ns, parent, full.get("parents")), engine.indexed(full)
    # from here on the caller may change what it gave
    yield from engine.check_layout(True, commands.PUT, commands.STAGE)
    if (
        parent and known is None and (unresolved or uncounted)
    ):  # what only the parent's record says, which this process never saw
        known = yield from read_manifest(engine, serde, target, parent)
        draft.carried.update(_carried_over(known, draft.versions, unresolved))
        if known and uncounted:
            draft.rebuilt = deltas.supersteps({}, draft.versions, values, known.rebuilt)

    def again() -> Operation[None]:
        return _serialize_again(engine, serde, target, values, draft)

    expected = parent if engine.settings.conflict else None
    try:
        done, _ = yield from send(
            engine,
            target,
            about,
            draft,
            ttl,
            expected=expected,
            known=known,
            guards=guards,
            indexed=indexed,
            again=again,
            say="roots" if engine.settings.max_versions or engine.settings.max_age else "",
        )
    except ThreadDeletedError:
        if not target.ns:
            with suppress(CheckpointerError):  # what overtook it may be there; else it goes with a later removal
                yield from remove_surely(engine, serde, target, retention.everything, "put")
        raise
    _report(engine, about, parent, target.checkpoint, done)
    if not target.ns:
        yield from retain(engine, serde, target, done.roots, about)
    return result


def _report(engine: Engine, about: str, parent: bytes, checkpoint: bytes, done: commands.Put) -> None:
    """Logs what is unusual about a put that succeeded."""
    if parent and done.version == 1:  # what it builds on is gone; if the server was emptied, so is the layout
        engine.forget_layout()
    if done.purged:
        logger.error("%s: the thread's data had vanished (evicted?) and only its index was left; a new run begins", about)
    if done.newest == parent and parent > checkpoint:
        logger.warning(
            "%s: its parent %s is newer by id, so it is not the latest checkpoint; is a clock behind?",
            about,
            keys.shown(parent),
        )
    if done.stored > WARN_BYTES:
        logger.warning("%s: the thread takes %d bytes; consider max_versions or prune", about, done.stored)


def send(
    engine: Engine,
    target: Address,
    about: str,
    draft: NewCheckpoint,
    ttl: Argument,
    *,
    expected: bytes | None,
    known: Manifest | None = None,
    guards: Sequence[bytes],
    indexed: Sequence[tuple[bytes, bytes]] = (),
    again: Callable[[], Operation[None]] | None = None,
    say: Literal["", "roots", "all"] = "all",
) -> Operation[tuple[commands.Put, EncodedCheckpoint]]:
    """Encodes a checkpoint and puts it as `commands.put` does, sending only parts that the server is not known to have.

    `known`: what the parent has. If the server names parts that it lacks, they are sent; `again` makes what was taken over.
    """
    yield from engine.unlock(target)
    encoded = yield from compute(lambda: encode_checkpoint(engine, target, draft), draft.size)
    chunks = _without(encoded.fresh, known.chunks if known else ())
    pages = _without(encoded.pages, known.pages if known else ())
    parent = known.checksum if known is not None and not indexed and draft.parent < target.checkpoint else None
    for attempt in range(TRIES):
        call = partial(
            commands.put,
            target.keys,
            about,
            ns=target.ns,
            checkpoint=target.checkpoint,
            record=encoded.record,
            ttl=ttl,
            run=draft.run,
            expected=expected,
            max_bytes=engine.settings.max_bytes,
            metadata=indexed,
            guards=guards,
            upload=(yield from upload(engine, target, about, pages, chunks)),
            say=say,
            tip=tip_of(engine, target, ttl),
            checksums=(parent, encoded.known.checksum),
        )
        try:
            done = yield from freshness.put(engine, target, encoded.record, call)
            break
        except PartsMissingError as error:
            if attempt == TRIES - 1:
                raise
            logger.info("%s: the server lacks %d parts, sending them again", about, len(error.names))
            parent, lacking = None, error.names - encoded.fresh.keys() - encoded.pages.keys()
        if again is not None and draft.carried and (lacking or attempt):
            yield from again()
            encoded = yield from compute(lambda: encode_checkpoint(engine, target, draft), draft.size)
        pages, chunks = encoded.pages, encoded.fresh
    engine.manifests.put(target.keys.name, target.ns, target.checkpoint, encoded.known, draft.parent)
    remember(engine, target, done.tip)
    yield Note(lambda: _counts(encoded, len(pages) + len(chunks), attempt))
    yield from sweep(engine)
    return done, encoded


def _without(parts: dict[bytes, T], names: Iterable[bytes]) -> dict[bytes, T]:
    return {name: parts[name] for name in parts.keys() - names}


def tip_of(engine: Engine, target: Address, ttl: Argument) -> Tip | None:
    """The thread as this process left it at its last write, if a write with this TTL may follow that."""
    return engine.tips.get(target.keys.name) if ttl == 0 and not engine.settings.fresh else None


def remember(engine: Engine, target: Address, tip: Tip | None) -> None:
    """The thread as a write left it; None: writes do not follow this one."""
    if tip is None:
        engine.tips.take(target.keys.name)
    else:
        engine.tips.put(target.keys.name, tip)


def _counts(encoded: EncodedCheckpoint, sent: int, resent: int) -> Mapping[str, int]:
    parts = len(encoded.known.chunks) + len(encoded.known.pages)
    return {"parts_sent": sent, "parts_shared": parts - sent, "resent": resent}


def encode_checkpoint(engine: Engine, target: Address, draft: NewCheckpoint) -> EncodedCheckpoint:
    place = target.place(b"C", target.ns, target.checkpoint)
    return encode.encode_checkpoint(draft, place, target.seal, engine.settings.compression, engine.messages)


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
            name: _serialize(engine, serde, value, (target.keys.name, target.ns, name), about, name)
            for name, value in values.items()
            if name not in carried
        },
        carried=carried,
        versions=versions,
        flags=flags,
        rebuilt=deltas.supersteps(metadata, versions, values, known.rebuilt if known else {}),
        parent=parent,
        root=keys.encode(root, "metadata['parents']['']") if target.ns and isinstance(root, str) else b"",
        run=engine.run_name(run),
    )


def _serialize(
    engine: Engine, serde: SerializerProtocol, value: Any, place: Hashable, about: str, channel: str
) -> tuple[str, bytes | SerializedList]:
    try:
        elements = engine.messages.serialized(serde, value, place)
    except Exception as error:
        raise refusal(error, about, channel) from error
    return dumped(serde, value, about, channel) if elements is None else ("msgpack", elements)


def _serialize_again(
    engine: Engine, serde: SerializerProtocol, target: Address, values: Mapping[str, Any], draft: NewCheckpoint
) -> Operation[None]:
    """The parent's chunks are gone from the server, so what was taken over is made again from the values. What was not given is
    taken over again from the parent as it stands now, since `rekey` gives its chunks other names."""
    stored = [name for name, value in draft.carried.items() if value.digests]
    if absent := [name for name in stored if name not in values]:
        parent = (yield from read_manifest(engine, serde, target, draft.parent)) if draft.parent else None
        anew = _carried_over(parent, draft.versions, absent)
        for name in absent:
            if name not in anew or anew[name] == draft.carried[name]:
                raise CheckpointLostError(
                    f"{target.about('put')}, channel {name!r}: its value is stored only with an earlier checkpoint, which "
                    "is gone from the server (expired, deleted or evicted); nothing was written"
                )
        draft.carried.update(anew)
    for name in stored:
        if name in absent:
            continue
        type_, blob = dumped(serde, values[name], target.about("put"), name)
        # the state may have changed since this call began: only what is still the same may stand for it, under whichever key
        same = (bodies.chunked(type_, blob, type_ == "msgpack", {}, name=each) for each in target.seal.namings)
        if draft.carried[name] not in same:
            raise CheckpointLostError(
                f"{target.about('put')}, channel {name!r}: parts of its value are gone from the server (expired, deleted "
                "or evicted) and the value has changed meanwhile; nothing was written"
            )
        draft.serialized[name] = type_, blob
        del draft.carried[name]


def put_writes(
    engine: Engine,
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Operation[None]:
    target = engine.target(config)
    if not target.checkpoint:
        raise InvalidConfigError(
            f"{target.about('put_writes')}: the config names no checkpoint_id; pass the config that put returned"
        )
    about = f"{target.about('put_writes')}, task {task_id!r}"
    task = keys.encode(task_id, "task_id")
    serialized = [
        (WRITES_IDX_MAP.get(channel, at), channel, *dumped(serde, value, about, channel))
        for at, (channel, value) in enumerate(writes)
    ]
    if not serialized:
        return
    ttl, guards = engine.ttl_of(config), _guards(target.ns, b"", configurable(config).get("checkpoint_map"))
    yield from engine.check_layout(True, commands.PUT_WRITES, commands.STAGE)
    yield from engine.unlock(target)
    place = target.place(b"W", target.ns, target.checkpoint)
    settings = engine.settings
    encoded = yield from compute(
        lambda: encode.encode_writes(serialized, task, task_path, place, target.seal, settings.compression),
        sum(len(blob) for *_, blob in serialized),
    )
    call = partial(
        commands.put_writes,
        target.keys,
        about,
        ns=target.ns,
        checkpoint=target.checkpoint,
        ttl=ttl,
        max_bytes=settings.max_bytes,
        guards=guards,
        writes=encoded.writes,
        upload=(yield from upload(engine, target, about, encoded.pages, encoded.fresh)),
        tip=tip_of(engine, target, ttl),
    )
    remember(engine, target, (yield from freshness.put_writes(engine, target, encoded.writes, call)))


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
