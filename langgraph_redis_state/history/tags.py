"""TODO"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..effects import Call, Operation, Script
from ..errors import CheckpointNotFoundError, InvalidConfigError, ThreadNotFoundError
from ..operations.engine import Engine, raise_for_reply
from ..operations.reading import START, StoredCheckpoint, read_header, read_page
from ..storage import keys, thread_fields
from .resolving import _stored, check_whole, read_tags, resolve

TAG = Script("tag", writes=True)


def tag(
    engine: Engine, serde: SerializerProtocol, thread: Any, name: str, checkpoint: str | int | None, ns: str
) -> Operation[None]:
    target = engine.address(thread, ns)
    about = target.about(f"tag {name!r}")
    tag = b"G" + keys.encode(name, "tag")
    if tag == b"G":
        raise InvalidConfigError(f"{about}: a tag needs a name")
    yield from engine.check_layout(True, TAG)
    if checkpoint is None:
        page = yield from read_page(engine, target, ns, START, 1, whole=False)
        if not page.found:
            raise ThreadNotFoundError(f"{about}: there is no such thread, or nothing in that namespace")
        stored: StoredCheckpoint | None = page.found[0]
    else:
        stored = yield from _stored(engine, target, (yield from resolve(engine, target, checkpoint, about)).encode())
    if stored is None:
        raise CheckpointNotFoundError(f"{about}: the checkpoint {checkpoint!r} is not there any more")
    at = stored.checkpoint
    if read_header(engine, target, stored).depth:
        yield from check_whole(engine, serde, target, at, about)
    content = thread_fields.seal_tag(target.ns, at, target.place(tag, b"", b""), engine.settings.integrity)
    reply = yield Call(TAG, target.keys.all, [target.keys.name, tag, content, engine.settings.ttl], about)
    if reply[0] == b"none":
        raise CheckpointNotFoundError(f"{about}: the checkpoint {at.decode()!r} is not there any more")
    raise_for_reply(engine, reply, about)


def untag(engine: Engine, thread: Any, name: str) -> Operation[bool]:
    target = engine.address(thread)
    about = target.about(f"untag {name!r}")
    yield from engine.check_layout(True, TAG)
    reply = yield Call(TAG, target.keys.all, [target.keys.name, b"G" + keys.encode(name, "tag"), b"", 0], about)
    raise_for_reply(engine, reply, about, also=b"none")
    return reply[0] == b"ok" and bool(reply[1])


def tags(engine: Engine, thread: Any) -> Operation[dict[str, str]]:
    tags = yield from read_tags(engine, engine.address(thread))
    return {name: checkpoint for name, (_, checkpoint) in sorted(tags.items())}
