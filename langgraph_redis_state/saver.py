"""`RedisSaver`: the surface that LangGraph sees, sync and async. Each method is one line: an operation, and its driver.

The operations are in `operations/`, the drivers in `client/driver.py`. Options are checked here, at construction.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from . import validation
from .client.connection import Connection
from .client.driver import arun, astream, run, stream
from .durability import Durability
from .operations import copying, delta_channels, reading, removing, writing
from .operations.engine import CACHE_BYTES, Engine, Settings, Witness
from .options import (
    DEFAULT_URL,
    TTL,
    EncryptionKey,
    Secret,
    compression_option,
    durability_option,
    freshness_option,
    keyring_option,
    metadata_keys,
    name_option,
    serializer,
    ttl_option,
    warn_of_trust,
)
from .saver_history import HistoryMethods
from .spellings import taking_other_spellings
from .storage import keys
from .storage.codec import CompressionType


class RedisSaver(HistoryMethods, BaseCheckpointSaver[str]):
    """Keeps LangGraph checkpoints on plain Redis >= 6.2 or Valkey, for `invoke` and `ainvoke` alike.

    One object serves threads, event loops and forked processes; it needs no running loop to be built and no `setup()`.

    Args:
        url: where the server is: `redis://`, `rediss://`, `unix://`, `redis+cluster://host:port,host:port`,
            `redis+sentinel://host:port,host:port/service/db`. Beside a client a URL other than
            the default serves the side, sync or async, that has no client.
        client: a sync client of redis-py or valkey-py to use instead; it is not closed with the saver.
        async_client: the same for the async methods. It can be used from one event loop only.
        prefix: what all keys begin with. Two prefixes never see each other.
        ttl: seconds (or a timedelta) after the last write that a thread expires, whole and at once. None: never. If
            savers with different options write to a thread, the last one decides.
            "keep": writes leave the expiry of threads as it is, for tools that write now and then.
            `{"default_ttl": minutes, "refresh_on_read": bool}` is taken as langgraph-checkpoint-redis means it.
        refresh_ttl_on_read: reading a thread counts as use. Written only when less than 90 % of the TTL is left.
        max_versions: how many root checkpoints a thread keeps. Every few puts, older ones are removed with the checkpoints of
            their subgraphs and with unreferenced chunks. Unanswered interrupts and tagged checkpoints are kept. None: all.
        max_age: seconds (or a timedelta), by the server's clock, after which root checkpoints are removed in the same way. The
            newest one is always kept.
        max_thread_bytes: a put that would make a thread larger raises `ThreadTooLargeError`. Logged from 64 MB on.
        tombstone: seconds during which late writes of a run under way cannot bring a deleted thread back; 0 or None: none.
        conflict: "raise": a put whose parent is not the newest of its namespace any more raises
            `CheckpointConflictError` and writes nothing. "allow": LangGraph's behaviour, it forks.
        durability: None: a write is done when the primary has it, and a failover can lose the last ones. `Replicas(n)` or
            `Replicas("all")`: when this many replicas have it. `Fsync()`: when it is on disk. If a write is not acknowledged in
            time, it raises `DurabilityError`; the write exists on the primary. Reads do not wait.
        index_metadata: metadata keys by whose values `find_threads` shall find threads, from their next put on.
        compression: "lz4", "zlib" or "none", for what is written from now on. Everything stored stays readable.
        integrity_key: a secret of 16 bytes or more (a text counts as UTF-8), made by `secrets.token_bytes(32)`; or several: the
            first signs the records, all of them verify. None: plain checksums.
        accept_unkeyed: with a key, also read records without a signature. Use it only while you migrate to a key.
        encryption_key: a secret of 32 bytes or more, made by `secrets.token_bytes(32)`; or several: the first encrypts, all of
            them decrypt; or a key provider: a function that is given a thread id and returns the secret or secrets of that
            thread. It is called in a worker thread where an event loop runs, so it is not async; its answer is used for five
            minutes. Equal content of a thread is still stored once. Needs the extra `encryption`. See docs/security.md.
        decrypt_only: `encryption_key` only decrypts. What is written from now on is plain, or signed with `integrity_key`, and
            records without a signature are read, unless there is an `integrity_key`. With `rekey` it turns encryption off.
        name_key: a secret of 32 bytes or more, one for each prefix and for ever: thread ids, namespaces, tags, run ids and
            indexed metadata are stored in a form that only this key gives back.
        freshness: with a key, each write also seals what the thread holds then. So an older record or list of pending writes
            that is put back at its own place, or one that is taken away, raises `CheckpointCorruptError` when it is read. All
            savers that write to a prefix must have it. Writes to one thread go one after the other. See docs/security.md.
        witness: with `freshness`, a function that is given thread id, revision (a growing number) and a digest of 16 bytes
            after each write, in a worker thread where an event loop runs. Keep the last of each thread elsewhere, and compare
            it with `statement()`: that finds a thread that was taken back whole. If it raises, the write raises `WitnessError`.
        cache_bytes: bytes of memory for all that the saver remembers: serialized messages and verified chunks, which are then
            not serialized or read again. What the next puts build on may take 4 MiB more. 0: only that; each read verifies
            every byte.
        serde: LangGraph serializer; None: `JsonPlusSerializer`.
        redis_options: keyword arguments for redis-py's connection pool, over this package's defaults.
        read_only: reads change nothing: they move no expiry, rebuild no index and forget no expired thread. Verbs that write
            raise `InvalidConfigError`. From Redis 7.0 on scripts are run by `EVALSHA_RO`, so the user needs no right to write.

    Raises:
        ValueError, TypeError: an option is not possible; the message says what is.

    Every method raises `ServerUnavailableError` or `ServerRefusedError` when the server does not serve,
    `CheckpointCorruptError` or `CheckpointLostError` when stored bytes are not what was written, and `InvalidConfigError`
    for a config without thread; see `langgraph_redis_state.errors`. A method returns `None`
    only if the server says that nothing is stored there.

    Thread ids that are integers or UUIDs stand for their text. An id may hold any character but NUL. Texts and numbers may be
    of a subclass: a member of `class Role(str, Enum)`, or a scalar of numpy, is taken for what it is equal to.
    """

    @taking_other_spellings
    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        client: Any | None = None,
        async_client: Any | None = None,
        prefix: str = "lgrs",
        ttl: TTL | None = None,
        refresh_ttl_on_read: bool = True,
        max_versions: int | None = None,
        max_age: float | timedelta | None = None,
        max_thread_bytes: int | None = None,
        tombstone: float | timedelta | None = 600,
        conflict: Literal["allow", "raise"] = "allow",
        durability: Durability | None = None,
        index_metadata: Sequence[str] = (),
        compression: CompressionType | str = CompressionType.LZ4,
        integrity_key: Secret | Sequence[Secret] | None = None,
        accept_unkeyed: bool = False,
        encryption_key: EncryptionKey | None = None,
        decrypt_only: bool = False,
        name_key: bytes | None = None,
        freshness: bool = False,
        witness: Witness | None = None,
        cache_bytes: int = CACHE_BYTES,
        serde: SerializerProtocol | None = None,
        redis_options: Mapping[str, Any] | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(serde=serializer(serde))
        milliseconds, refresh = ttl_option(ttl, refresh_ttl_on_read)
        keyring = keyring_option(integrity_key, accept_unkeyed, encryption_key, decrypt_only)
        self._engine = Engine(
            Settings(
                prefix=keys.check_prefix(prefix),
                ttl=milliseconds,
                refresh=refresh,
                compression=compression_option(compression),
                keyring=keyring,
                names=name_option(name_key, keys.check_prefix(prefix)),
                tombstone=validation.ttl_ms(tombstone, "tombstone") if tombstone else 0,
                max_versions=validation.at_most(max_versions, "max_versions"),
                max_age=None if max_age is None else validation.ttl_ms(max_age, "max_age"),
                max_bytes=validation.at_most(max_thread_bytes, "max_thread_bytes") or 0,
                conflict=validation.one_of(conflict, ("allow", "raise"), "conflict") == "raise",
                index=metadata_keys(index_metadata),
                cache=validation.whole(cache_bytes, "cache_bytes (0 for none)", 0),
                read_only=read_only,
                fresh=freshness_option(freshness, witness, keyring.keyed),
                witness=witness,
            )
        )
        injected = client is not None or async_client is not None
        own = None if injected and url == DEFAULT_URL else url
        durable = durability_option(durability)
        self._connection = Connection(
            own, client=client, async_client=async_client, options=redis_options, durability=durable, read_only=read_only
        )
        warn_of_trust(own, client or async_client, serde, keyring.keyed)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A saver for the server at `url`; the same as calling the class. Use it with `with` or `async with`."""
        return cls(url, **options)

    @classmethod
    def from_conn_string(cls, url: str | None = None, **options: Any) -> Self:
        """The name other savers have for `from_url`. The saver itself is the context manager, sync and async."""
        return cls(**options) if url is None else cls(url, **options)

    @classmethod
    def embedded(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """A saver on a private server of its own, for development: a `redis-server` or `valkey-server` on a unix socket.

        With a `path` the server keeps its data there and a second start finds it again; without, it ends with the saver.

        Raises:
            EmbeddedServerError: no server program was found, or it did not start; it says what to do.
        """
        from .embedded import EmbeddedServer

        server = EmbeddedServer.start(path)
        try:
            saver = cls(server.url, **options)
        except BaseException:
            server.close()
            raise
        saver._server = server
        return saver

    # --- life ---

    @property
    def client(self) -> Any:
        """The sync redis client of this saver."""
        return self._connection.client()

    def setup(self) -> None:
        """Nothing is needed before first use; this checks that the server can be reached."""
        self.ping()

    async def asetup(self) -> None:
        """Nothing is needed before first use; this checks that the server can be reached."""
        await self.aping()

    # --- LangGraph's contract: the rules are those of BaseCheckpointSaver ---

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint the config names, or the newest of its namespace (the greatest id); None if there is none."""
        return run(reading.get_tuple(self._engine, self.serde, config), self._connection)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint the config names, or the newest of its namespace (the greatest id); None if there is none."""
        return await arun(reading.get_tuple(self._engine, self.serde, config), self._connection)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints of a thread, newest first by id; all namespaces unless the config names one, "" being the root.

        With config None every thread is walked, the last active first. One round trip for each 100 checkpoints. Threads whose
        key provider gives no key are left out, and `KeyProviderError` is raised at the end.
        """
        return stream(
            reading.list_checkpoints(self._engine, self.serde, config, filter, before, limit), self._connection, "list"
        )

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, awaited page by page."""
        return astream(
            reading.list_checkpoints(self._engine, self.serde, config, filter, before, limit), self._connection, "list"
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint; the config's checkpoint_id is its parent. Returns the config that names it.

        Raises:
            SerializationError: the serializer refuses a value; names the channel, nothing was written.
            ThreadDeletedError: the thread was deleted after this run began.
        """
        return run(writing.put(self._engine, self.serde, config, checkpoint, metadata, new_versions), self._connection)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`, awaited. The state is serialized before this waits for the first time."""
        return await arun(writing.put(self._engine, self.serde, config, checkpoint, metadata, new_versions), self._connection)

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Stores what a task wrote, beside its checkpoint, all of it or nothing.

        If a write with this task id and index exists, it is kept. ERROR, SCHEDULED, INTERRUPT and RESUME replace the stored
        one.
        """
        run(writing.put_writes(self._engine, self.serde, config, writes, task_id, task_path), self._connection)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`, awaited."""
        await arun(writing.put_writes(self._engine, self.serde, config, writes, task_id, task_path), self._connection)

    def delete_thread(self, thread_id: str) -> None:
        """Deletes everything of a thread. For `tombstone` seconds, writes that build on a deleted checkpoint raise
        `ThreadDeletedError`. No clocks are compared."""
        run(removing.delete_thread(self._engine, thread_id), self._connection)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, awaited."""
        await arun(removing.delete_thread(self._engine, thread_id), self._connection)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of these runs, and their writes, in every thread and namespace.

        Checkpoints that are kept keep the values of their DeltaChannels, as with `prune`.
        """
        run(removing.delete_for_runs(self._engine, self.serde, run_ids), self._connection)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs`, awaited."""
        await arun(removing.delete_for_runs(self._engine, self.serde, run_ids), self._connection)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a whole thread to a new id. It becomes visible at once, or not at all.

        Raises:
            ThreadNotFoundError: there is no such source.
            ThreadExistsError: the target exists; it is not touched.
            ThreadBusyError: the source kept changing while it was read.
        """
        run(copying.copy_thread(self._engine, source_thread_id, target_thread_id), self._connection)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread`, awaited."""
        await arun(copying.copy_thread(self._engine, source_thread_id, target_thread_id), self._connection)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep_last: int | None = None) -> None:
        """Removes old checkpoints of threads, each thread atomically.

        `keep_latest`: keeps the newest checkpoint of each namespace with the values of its DeltaChannels. `keep_last=N`: keeps
        the newest N root checkpoints, like `max_versions`. `delete`, or `delete_all` as LangGraph's agent server says: deletes
        the threads, like `delete_thread`. A member of an enum stands for its value.

        Raises:
            ValueError: another strategy, or `keep_last` below 1 or with `delete`.
            TypeError: one text, or a config, in place of several ids.
            ThreadBusyError: a thread kept changing; nothing of it was removed.
        """
        run(removing.prune(self._engine, self.serde, thread_ids, strategy, keep_last), self._connection)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep_last: int | None = None) -> None:
        """`prune`, awaited."""
        await arun(removing.prune(self._engine, self.serde, thread_ids, strategy, keep_last), self._connection)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The writes from which DeltaChannels are rebuilt, back to the nearest ancestor that stores a value. Reads 100
        ancestors per round trip.

        Raises:
            CheckpointLostError: an ancestor that is needed is gone, and not by a removal of this package.
        """
        return run(delta_channels.get_delta_channel_history(self._engine, self.serde, config, channels), self._connection)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history`, awaited."""
        return await arun(
            delta_channels.get_delta_channel_history(self._engine, self.serde, config, channels), self._connection
        )

    def get_next_version(self, current: Any, channel: None = None) -> Any:
        """The version after `current`: 32 digits for a new channel; a version of another saver continues in its form."""
        if current is None:
            return f"{1:032d}"
        if isinstance(current, str):
            number, dot, _ = current.partition(".")
            following = f"{int(number) + 1:0{len(number)}d}"
            # InMemorySaver and the SQL savers append a random part, which keeps versions of forks apart
            return f"{following}.{random.random():016}" if dot else following
        return current + 1
