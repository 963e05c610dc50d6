"""`ArchiveSaver`: LangGraph's checkpointer on a file, for reading. No server is needed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from ..address import Address, configurable
from ..caching.parts import Parts
from ..errors import ArchiveDamagedError, CheckpointCorruptError, CheckpointLostError, InvalidConfigError
from ..operations.delta_channels import histories, refuse_broken
from ..operations.engine import Engine, Settings
from ..operations.reading import decode_tuple
from ..options import serializer
from ..serialization import deltas
from ..serialization.decode import StoredCheckpoint, loaded
from ..storage import keys, thread_fields
from ..storage.codec import CompressionType
from ..storage.names import PLAIN_NAMES
from ..storage.seals import PLAIN, Integrity, Keyring
from .crossing import Crossing, archived
from .frames import End
from .reading import ArchiveReader

_SETTINGS = Settings(
    "", 0, False, CompressionType.NONE, Keyring(Integrity((), False)), PLAIN_NAMES, 0, None, None, 0, False, (), 0, True
)


class _Thread:
    """The fields of one thread, verified."""

    def __init__(self, reader: ArchiveReader, thread: str) -> None:
        self.address = archived(thread)
        crossing, fields = Crossing.within(thread), dict[bytes, bytes]()
        try:
            for part in reader.section(reader.entries[thread]):
                if not isinstance(part, End):
                    fields.update(crossing.resealed(part)[0])
            crossing.check()
        except (CheckpointCorruptError, CheckpointLostError) as error:
            raise reader.wrong(thread, error) from error
        self.fields = fields
        self.parts = Parts(
            {name[1:]: content for name, content in fields.items() if name[:1] == b"P"},
            {name[1:]: content for name, content in fields.items() if name[:1] == b"D"},
        )
        self.places = sorted(
            (keys.split_field(name) for name in fields if name[:1] == b"C"), key=lambda at: at[::-1], reverse=True
        )
        """(namespace, id), newest first by id."""
        self._writes: dict[bytes, dict[bytes, bytes]] = {}
        for name, content in fields.items():
            if name[:1] == b"W":
                self._writes.setdefault(keys.writes_field(*keys.split_field(name)), {})[name] = content

    def at(self, ns: bytes, checkpoint: bytes) -> StoredCheckpoint | None:
        record = self.fields.get(keys.checkpoint_field(ns, checkpoint))
        if record is None:
            return None
        place = self.address.place(b"W", ns, checkpoint)
        writes = thread_fields.joined_writes(thread_fields.gathered_writes(self._writes.get(place.field, {}), place))
        return StoredCheckpoint(place._replace(kind=b"C"), PLAIN, record, writes or None)


class ArchiveSaver(BaseCheckpointSaver[str]):
    """Reads the threads of an archive as a checkpointer: `graph.get_state_history`, `migrate` to another saver, or `list`.

    It keeps one thread in memory, the one that was asked for last. Verbs that write raise `InvalidConfigError`.

    Args:
        path: the file. An increment has only the threads that changed.
        passphrase: that with which it was written, if it is encrypted.
        serde: LangGraph serializer; None: `JsonPlusSerializer`.

    Raises:
        FormatError, InvalidConfigError, OSError: as `import_threads`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        passphrase: str | bytes | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serializer(serde))
        self._reader = ArchiveReader(path, passphrase)
        self._offline = Engine(_SETTINGS)
        self._last: tuple[str, _Thread] | None = None

    @property
    def threads(self) -> list[str]:
        """Ids of the threads in the file."""
        return [entry.thread for entry in self._reader.entries.values() if entry.size]

    @property
    def problems(self) -> Sequence[ArchiveDamagedError]:
        """Damage that was found when the file was opened. A thread that is damaged raises when it is read."""
        return self._reader.problems

    def _thread(self, name: str) -> _Thread | None:
        if self._last is None or self._last[0] != name:
            entry = self._reader.entries.get(name)
            for problem in self._reader.problems:
                if problem.thread_id == name:
                    raise problem
            if entry is None:
                return None
            if not entry.size:
                raise CheckpointLostError(
                    f"{self._reader.path}: thread {name!r}: {entry.note or 'its content is in an earlier file'}"
                )
            self._last = name, _Thread(self._reader, name)
        return self._last[1]

    def _tuple(self, thread: _Thread, given: Address, stored: StoredCheckpoint) -> CheckpointTuple:
        return decode_tuple(self._offline, self.serde, given, stored, thread.parts)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = self._find(config)
        if found is None:
            return None
        thread, given, stored = found
        tup = self._tuple(thread, given, stored)
        return tup._replace(config=config) if given.checkpoint else tup

    def _find(self, config: RunnableConfig) -> tuple[_Thread, Address, StoredCheckpoint] | None:
        given = Address.of("", config)
        thread = self._thread(given.thread)
        if thread is None:
            return None
        checkpoint = given.checkpoint or next((at for ns, at in thread.places if ns == given.ns), b"")
        stored = thread.at(given.ns, checkpoint)
        return None if stored is None else (thread, given, stored)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Newest first by id, of one thread or (None) of all, thread by thread."""
        targets = [archived(name) for name in self.threads] if config is None else [Address.of("", config)]
        space = None if config is None else configurable(config).get("checkpoint_ns")
        below = ((before or {}).get("configurable") or {}).get("checkpoint_id")
        left = limit
        for target in targets:
            thread = self._thread(target.thread)
            for ns, checkpoint in thread.places if thread is not None else ():
                if left == 0:
                    return
                skipped = (
                    (space is not None and ns != target.ns)
                    or (target.checkpoint and checkpoint != target.checkpoint)
                    or (below is not None and checkpoint >= below.encode())
                )
                stored = None if skipped or thread is None else thread.at(ns, checkpoint)
                if stored is None or thread is None:
                    continue
                tup = self._tuple(thread, target, stored)
                if all(tup.metadata.get(key) == value for key, value in (filter or {}).items()):
                    left = None if left is None else left - 1
                    yield tup

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `RedisSaver` gives it, also where a removal has cut the ancestors."""
        lineage, found = deltas.Lineage(dict.fromkeys(channels)), self._find(config)
        if found is not None:
            self._walk(found[0], found[2], lineage)
        refuse_broken(
            self._offline, lineage, f"{self._reader.path}: {Address.of('', config).about('get_delta_channel_history')}"
        )
        return histories(lineage, channels)

    def _walk(self, thread: _Thread, stored: StoredCheckpoint, lineage: deltas.Lineage) -> None:
        take = partial(loaded, self.serde)
        while lineage.remaining:
            raw = thread.fields.get(keys.history_field(stored.ns, stored.checkpoint))
            if raw is not None:
                place = thread.address.place(b"H", stored.ns, stored.checkpoint)
                lineage.cut(deltas.History(raw, place, PLAIN), thread.parts, take)
                return
            parent = stored.header.parent
            if not parent:
                return
            above = thread.at(stored.ns, parent.encode())
            if above is None:
                if stored.header.depth:
                    lineage.broken(parent)
                return
            stored = above
            for task, channel, value in reversed(stored.pending_writes(thread.parts, lineage.remaining, take)):
                lineage.wrote(channel, task, value)
            held = [channel for channel in lineage.remaining if channel in stored.channels]
            values = stored.values(thread.parts) if held else {}
            for channel in held:
                lineage.seeded(channel, take(values[channel], thread.parts, f"{stored.place}, channel {channel!r}"))

    # --- the same, awaited ---

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for tup in self.list(config, filter=filter, before=before, limit=limit):
            yield tup

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self.get_delta_channel_history(config=config, channels=channels)

    # --- what a file does not do ---

    def put(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidConfigError(f"{self._reader.path} is only read; import it into a RedisSaver to continue its threads")

    put_writes = delete_thread = put

    async def aput(self, *_: Any, **__: Any) -> NoReturn:
        self.put()

    aput_writes = adelete_thread = aput

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
