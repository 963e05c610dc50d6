"""New chunks on their way to the server: with the script that refers to them, or in staging keys before it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from ..address import Address
from ..effects import Operation, compute
from ..scripts import commands
from ..scripts.commands import Upload
from ..storage import bodies
from .engine import Engine

UPLOAD_BYTES = 4 * 1024 * 1024
"""New chunks beyond this are staged first, since hosted proxies cap the size of a request."""

STAGING_MS = 600_000


def upload(
    engine: Engine, target: Address, about: str, pages: Mapping[bytes, bytes], chunks: bodies.Fresh
) -> Operation[Upload]:
    """New pages and chunks as writing scripts take them; many bytes go to staging."""
    if not chunks:
        engine.chunks.sent(pages, {})
        return Upload(pages, {})

    def pack_all() -> dict[bytes, bytes]:
        plain = {name: b"".join(run) for name, run in chunks.items()}
        engine.chunks.sent(pages, plain)
        return {name: target.seal.pack(name, content, engine.settings.compression) for name, content in plain.items()}

    packed = yield from compute(pack_all, sum(len(piece) for run in chunks.values() for piece in run))
    if sum(map(len, packed.values())) <= UPLOAD_BYTES:
        return Upload(pages, packed)
    staging = target.keys.staging(os.urandom(8).hex().encode())
    yield from stage(target, staging, [(b"D" + name, data) for name, data in packed.items()], (), about)
    return Upload(pages, {}, staging[:1])


def stage(
    target: Address,
    staging: tuple[bytes, bytes],
    fields: Iterable[tuple[bytes, bytes]],
    members: Sequence[bytes],
    about: str,
) -> Operation[None]:
    """Sends fields to staging keys in commands of bounded size."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for name, data in fields:
        batch.append((name, data))
        size += len(data) + len(name)
        if size >= UPLOAD_BYTES // 2 or len(batch) >= 2000:
            yield from commands.stage(target.keys, about, staging, STAGING_MS, batch)
            batch, size = [], 0
    for at in range(0, max(len(members), 1), 2000):
        if batch or members:
            yield from commands.stage(target.keys, about, staging, STAGING_MS, batch, members[at : at + 2000])
            batch = []
