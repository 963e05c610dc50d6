"""TODO"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..address import Address
from ..effects import Argument, Call, Operation, Script, compute, counted
from ..storage import bodies
from ..storage.codec import pack
from .engine import Engine

STAGE = Script("stage")

COMMIT_COPY = Script("commit_copy", writes=True)

UPLOAD_BYTES = 4 * 1024 * 1024
"""New chunks beyond this are staged first, since hosted proxies cap the size of a request."""

STAGING_MS = 600_000


def upload(
    engine: Engine,
    script: Script,
    target: Address,
    about: str,
    args: list[Argument],
    pages: Mapping[bytes, bytes],
    chunks: bodies.Fresh,
) -> Operation[list[Any]]:
    """Runs a writing script with new pages and chunks; many bytes go to staging first."""

    def pack_all() -> dict[bytes, bytes]:
        plain = {name: b"".join(run) for name, run in chunks.items()}
        engine.chunks.sent(pages, plain)
        return {name: pack(content, engine.settings.compression) for name, content in plain.items()}

    packed = yield from compute(pack_all, sum(len(piece) for run in chunks.values() for piece in run))
    all_keys: tuple[bytes, ...] = target.keys.all
    if sum(map(len, packed.values())) > UPLOAD_BYTES:
        staged = target.keys.staging(os.urandom(8).hex().encode())
        yield from stage(engine, target, staged, [(b"D" + name, data) for name, data in packed.items()], (), about)
        all_keys, packed = (*all_keys, staged[0]), {}
    parts = counted(pages.items()) + counted(packed.items())
    reply: list[Any] = yield Call(script, all_keys, [target.keys.name, *args, *parts], about)
    return reply


def stage(
    engine: Engine,
    target: Address,
    staged: tuple[bytes, bytes],
    fields: Iterable[tuple[bytes, bytes]],
    members: Sequence[bytes],
    about: str,
) -> Operation[None]:
    """Sends fields to staging keys in commands of bounded size."""
    batch: list[Argument] = []
    size = 0

    def call(extra: Sequence[bytes]) -> Call:
        arguments: list[Argument] = [target.keys.name, STAGING_MS, len(batch) // 2, *batch, *extra]
        return Call(STAGE, (*target.keys.all, *staged), arguments, about)

    for name, data in fields:
        batch += [name, data]
        size += len(data) + len(name)
        if size >= UPLOAD_BYTES // 2 or len(batch) >= 4000:
            yield call(())
            batch, size = [], 0
    for at in range(0, max(len(members), 1), 2000):
        if batch or members:
            yield call(members[at : at + 2000])
            batch = []
