"""tag, untag, tags: names for checkpoints."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..effects import Operation
from ..errors import CheckpointNotFoundError, InvalidConfigError, ThreadNotFoundError
from ..operations.engine import Engine
from ..operations.reading import START, read_page
from ..scripts import commands
from ..serialization.decode import StoredCheckpoint
from ..storage import keys, thread_fields
from .resolving import check_whole, read_one, read_tags, resolve


def tag(
    engine: Engine, serde: SerializerProtocol, thread: Any, name: str, checkpoint: str | int | None, ns: str
) -> Operation[None]:
    target = engine.address(thread, ns)
    about = target.about(f"tag {name!r}")
    tag = b"G" + keys.encode(name, "tag")
    if tag == b"G":
        raise InvalidConfigError(f"{about}: a tag needs a name")
    yield from engine.check_layout(True, commands.TAG, commands.LIST, commands.WALK_ANCESTORS)
    if checkpoint is None:
        page = yield from read_page(engine, target, ns, START, 1, whole=False)
        if not page.found:
            raise ThreadNotFoundError(f"{about}: there is no such thread, or nothing in that namespace")
        stored: StoredCheckpoint | None = page.found[0]
    else:
        stored = yield from read_one(engine, target, (yield from resolve(engine, target, checkpoint, about)).encode())
    if stored is None:
        raise CheckpointNotFoundError(f"{about}: the checkpoint {checkpoint!r} is not there any more")
    at = stored.checkpoint
    if stored.header.depth:
        yield from check_whole(engine, serde, target, at, about)
    yield from engine.unlock(target)
    content = thread_fields.seal_tag(target.ns, at, target.place(tag, b"", b""), target.seal)
    if (yield from commands.tag(target.keys, about, tag, content, engine.settings.ttl)) is None:
        raise CheckpointNotFoundError(f"{about}: the checkpoint {at.decode()!r} is not there any more")


def untag(engine: Engine, thread: Any, name: str) -> Operation[bool]:
    target = engine.address(thread)
    about = target.about(f"untag {name!r}")
    yield from engine.check_layout(True, commands.TAG)
    return bool((yield from commands.tag(target.keys, about, b"G" + keys.encode(name, "tag"), b"", 0)))


def tags(engine: Engine, thread: Any) -> Operation[dict[str, str]]:
    tags = yield from read_tags(engine, engine.address(thread))
    return {name: checkpoint for name, (_, checkpoint) in sorted(tags.items())}
