"""Finds the checkpoint that a caller means by an id, a tag, or a number of steps back from the newest."""

from __future__ import annotations

from collections.abc import Mapping

from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address
from ..effects import Operation
from ..errors import CheckpointNotFoundError, InvalidConfigError
from ..operations import freshness
from ..operations.delta_channels import read_lineage, refuse_broken
from ..operations.engine import Engine
from ..operations.reading import PAGE_CHECKPOINTS, START, check_absent, read_page
from ..operations.surveying import open_tags
from ..operations.thread_headers import CheckpointKey
from ..scripts import commands
from ..serialization.decode import StoredCheckpoint
from ..storage import keys


def resolve(engine: Engine, target: Address, to: str | int, about: str) -> Operation[str]:
    """The id of the checkpoint that `to` means: an id, a tag, or a negative number of steps back from the newest."""
    steps = validation.plain(to)
    if isinstance(steps, int) and not isinstance(steps, bool):
        return (yield from _ancestor(engine, target, steps, about))
    if isinstance(to, Mapping):
        raise InvalidConfigError(f"{about}: this is a config; pass the id: config['configurable']['checkpoint_id']")
    wanted = keys.encode(to, "checkpoint id or tag")
    tags = yield from read_tags(engine, target)
    if wanted.decode() in tags:
        ns, checkpoint = tags[wanted.decode()]
        if ns != target.ns.decode():
            raise CheckpointNotFoundError(f"{about}: the tag {to!r} is for a checkpoint of the namespace {ns!r}")
        return checkpoint
    if not wanted or (yield from read_one(engine, target, wanted)) is None:
        raise CheckpointNotFoundError(
            f"{about}: {to!r} is neither a checkpoint nor a tag of it; tags are {sorted(tags) or 'none'}"
        )
    return wanted.decode()


def _ancestor(engine: Engine, target: Address, steps: int, about: str) -> Operation[str]:
    if steps >= 0:
        raise ValueError(f"{about}: steps back are a negative number, not {steps!r}")
    cursor, left = b"", -steps
    while True:
        most = min(left, PAGE_CHECKPOINTS)
        fresh = engine.settings.fresh
        walk = yield from commands.walk_ancestors(target.keys, about, target.ns, cursor, most, 1 << 40, False, fresh)
        if walk is not None:
            yield from engine.unlock(target)
            read = [walk.start, *walk.found]
            freshness.check(engine, target, walk.statement, read, () if cursor else [target.ns], freshness.nothing_more)
        if walk is None and not cursor:
            yield from check_absent(engine, target, b"")
            raise CheckpointNotFoundError(f"{about}: there is no such thread, or nothing in that namespace")
        if walk is None or not walk.found:
            break
        left -= len(walk.found)
        cursor = walk.found[-1][1]
        if not left:
            return cursor.decode()
        if not walk.following_exists:
            break
    raise CheckpointNotFoundError(f"{about}: the newest checkpoint has fewer than {-steps} ancestors")


def read_one(engine: Engine, target: Address, checkpoint: bytes) -> Operation[StoredCheckpoint | None]:
    """One checkpoint without its chunks; None if the index does not have it."""
    below = checkpoint + b"\x01"  # ids hold no NUL, so nothing lies between
    page = yield from read_page(engine, target, target.ns.decode(), (below, None), 1, whole=False)
    return page.found[0] if page.found and page.found[0].checkpoint == checkpoint else None


def read_tags(engine: Engine, target: Address) -> Operation[dict[str, CheckpointKey]]:
    yield from engine.check_layout(False)
    page = yield from read_page(engine, target, "", START, 1, whole=False)
    return open_tags(target, page.tags)


def check_whole(engine: Engine, serde: SerializerProtocol, target: Address, checkpoint: bytes, about: str) -> Operation[None]:
    """Raises CheckpointLostError if the DeltaChannels of a checkpoint cannot be rebuilt."""
    target.checkpoint = checkpoint
    lineage = yield from read_lineage(engine, serde, target, about, None, None)
    refuse_broken(engine, lineage, about)
