"""`RedisSaver`: the surface LangGraph sees, sync and async. Each method is one line: an operation, and a driver.

What the methods do stands in `operations.py`; who waits, in `drivers.py`. Options are checked here, at construction.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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
from .connected import Connected
from .durability import Durability
from .effects import Operation
from .embedded import EmbeddedServer
from .history import diff, rollback, tags, threads, versions
from .history.diff import ChannelDiff
from .history.threads import Stats, ThreadInfo
from .history.versions import Version
from .operations import copying, delta_channels, reading, removing, writing
from .operations.engine import CACHE_BYTES, Engine, Settings
from .options import (
    DEFAULT_URL,
    TTL,
    Secret,
    compression_option,
    durability_option,
    metadata_keys,
    secrets,
    serializer,
    ttl_option,
)
from .storage import keys
from .storage.codec import CompressionType, Integrity
from .verification import verify
from .verification.findings import Finding, Progress, Repair


class RedisSaver(Connected, BaseCheckpointSaver[str]):
    """Keeps LangGraph checkpoints on plain Redis >= 6.2 or Valkey, for `invoke` and `ainvoke` alike.

    One object serves threads, event loops and forked processes; it needs no running loop to be built and no `setup()`.

    Args:
        url: where the server is: `redis://`, `rediss://`, `unix://`, `redis+cluster://host:port,host:port`,
            `redis+sentinel://host:port,host:port/service/db`. Beside a client a URL other than
            the default serves the side, sync or async, that has no client.
        client: a sync client of redis-py or valkey-py to use instead; it is not closed with the saver.
        async_client: the same for the async methods. It can be used from one event loop only.
        prefix: what all keys begin with. Two prefixes never see each other.
        ttl: seconds (or a timedelta) after the last write that a thread expires, whole and at once. None: never; of savers
            with different options, that which writes last decides.
            `{"default_ttl": minutes, "refresh_on_read": bool}` is taken as langgraph-checkpoint-redis means it.
        refresh_ttl_on_read: reading a thread counts as use. Written only when less than 90 % of the TTL is left.
        max_versions: how many root checkpoints a thread keeps; older ones go, every few puts, with their subgraphs'
            checkpoints and all that only they used. Interrupts that wait stay. None: all.
        max_age: seconds (or a timedelta), by the server's clock, after which root checkpoints go likewise; the newest one
            always stays.
        max_thread_bytes: a put that would make a thread larger raises `ThreadTooLargeError`. Logged from 64 MB on.
        tombstone: seconds during which late writes of a run under way cannot bring a deleted thread back; 0 or None: none.
        conflict: "raise": a put whose parent is not the newest of its namespace any more raises
            `CheckpointConflictError` and writes nothing. "allow": LangGraph's behaviour, it forks.
        durability: None: a write is done when the primary has it, and a fail-over can lose the last ones. `Replicas(n)` or
            `Replicas("all")`: when so many replicas have it, too. `Fsync()`: when it is on disk. What does not get there in
            time raises `DurabilityError`, and exists on the primary. Reads wait for nothing.
        index_metadata: metadata keys by whose values `find_threads` shall find threads, from their next put on.
        compression: "lz4", "zlib" or "none", for what is written from now on. Everything stored stays readable.
        integrity_key: a secret of 16 bytes or more (a text counts as UTF-8), made by `secrets.token_bytes(32)`; or several: the
            first signs the records, all of them verify. None: plain checksums.
        accept_unkeyed: with a key, also read records from before there was one. For a while, during migration.
        cache_bytes: memory in bytes for all that the saver remembers: messages that were serialized before are not serialized
            again, and chunks that were sent or verified before are not read again. What the next puts build on may take 4 MiB
            beside it. 0: only that, and each read verifies all.
        serde: LangGraph serializer; None: `JsonPlusSerializer`.
        redis_options: keyword arguments for redis-py's connection pool, over this package's defaults.

    Raises:
        ValueError, TypeError: an option is not possible; the message says what is.

    Every method raises `ServerUnavailableError` or `ServerRefusedError` when the server does not serve,
    `CheckpointCorruptError` or `CheckpointLostError` when stored bytes are not what was written, and `InvalidConfigError`
    for a config without thread; see `langgraph_redis_state.errors`. "Not found" is `None`, and nothing else is.

    Thread ids that are integers or UUIDs stand for their text. An id may hold any character but NUL. Texts and numbers may be
    of a subclass: a member of `class Role(str, Enum)`, or a scalar of numpy, is taken for what it is equal to.
    """

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
        cache_bytes: int = CACHE_BYTES,
        serde: SerializerProtocol | None = None,
        redis_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(serde=serializer(serde))
        milliseconds, refresh = ttl_option(ttl, refresh_ttl_on_read)
        self._engine = Engine(
            Settings(
                prefix=keys.check_prefix(prefix),
                ttl=milliseconds,
                refresh=refresh,
                compression=compression_option(compression),
                integrity=Integrity(secrets(integrity_key), accept_unkeyed),
                tombstone=validation.ttl_ms(tombstone, "tombstone") if tombstone else 0,
                max_versions=validation.at_most(max_versions, "max_versions"),
                max_age=None if max_age is None else validation.ttl_ms(max_age, "max_age"),
                max_bytes=validation.at_most(max_thread_bytes, "max_thread_bytes") or 0,
                conflict=validation.one_of(conflict, ("allow", "raise"), "conflict") == "raise",
                index=metadata_keys(index_metadata),
                cache=validation.whole(cache_bytes, "cache_bytes (0 for none)", 0),
            )
        )
        injected = client is not None or async_client is not None
        self._connection = Connection(
            None if injected and url == DEFAULT_URL else url,
            client=client,
            async_client=async_client,
            options=redis_options,
            durability=durability_option(durability),
        )

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A saver for the server at `url`; the same as calling the class. Use it with `with` or `async with`."""
        return cls(url, **options)

    @classmethod
    def from_conn_string(cls, url: str, **options: Any) -> Self:
        """The name other savers have for `from_url`. The saver itself is the context manager, sync and async."""
        return cls(url, **options)

    @classmethod
    def embedded(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """A saver on a private server of its own, for development: a `redis-server` or `valkey-server` on a unix socket.

        With a `path` the server keeps its data there and a second start finds it again; without, it ends with the saver.

        Raises:
            EmbeddedServerError: no server program was found, or it did not start; it says what to do.
        """
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

        With config None every thread is walked, the last active first. One round trip for each 100 checkpoints.
        """
        return stream(reading.list_checkpoints(self._engine, self.serde, config, filter, before, limit), self._connection)

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, awaited page by page."""
        return astream(reading.list_checkpoints(self._engine, self.serde, config, filter, before, limit), self._connection)

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

        A write that is there already stays as it came first; ERROR, SCHEDULED, INTERRUPT and RESUME replace their equal.
        """
        run(writing.put_writes(self._engine, self.serde, config, writes, task_id, task_path), self._connection)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`, awaited."""
        await arun(writing.put_writes(self._engine, self.serde, config, writes, task_id, task_path), self._connection)

    def delete_thread(self, thread_id: str) -> None:
        """Deletes everything of a thread. Late writes of a run under way are refused for `tombstone` seconds: those
        that build on a checkpoint that was deleted, whatever the clocks say."""
        run(removing.delete_thread(self._engine, thread_id), self._connection)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, awaited."""
        await arun(removing.delete_thread(self._engine, thread_id), self._connection)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of these runs, and their writes, in every thread and namespace.

        What the DeltaChannels of checkpoints that stay are rebuilt from stays too, as with `prune`: later checkpoints read as
        before.
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
        """`keep_latest`: of each namespace the newest checkpoint stays, and reads as before, also its DeltaChannels.
        `delete`, or `delete_all` as LangGraph's agent server calls it: the threads go, as with `delete_thread`. A member of an
        enum stands for its value. Thread by thread, each atomic. With `keep_last` the newest N root
        checkpoints stay, as with `max_versions`.

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
        """What rebuilds DeltaChannels: their writes on the way from the nearest stored value. 100 ancestors a round trip.

        Raises:
            CheckpointLostError: an ancestor that is needed is gone, and not by a removal of this package.
        """
        return run(delta_channels.delta_history(self._engine, self.serde, config, channels), self._connection)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history`, awaited."""
        return await arun(delta_channels.delta_history(self._engine, self.serde, config, channels), self._connection)

    # --- history: what LangGraph's contract does not have ---

    def history(self, thread_id: str, *, checkpoint_ns: str = "", limit: int | None = None) -> Iterator[Version]:
        """The checkpoints of a namespace, newest first, without their values: cheap to look at however large the state."""
        return stream(versions.list_versions(self._engine, self.serde, thread_id, checkpoint_ns, limit), self._connection)

    def ahistory(self, thread_id: str, *, checkpoint_ns: str = "", limit: int | None = None) -> AsyncIterator[Version]:
        """`history`, awaited page by page."""
        return astream(versions.list_versions(self._engine, self.serde, thread_id, checkpoint_ns, limit), self._connection)

    def rollback(self, thread_id: str, to: str | int, *, mode: Literal["fork", "truncate"] = "fork") -> RunnableConfig:
        """Takes a thread back to a checkpoint: its id, a tag, or a negative number of steps up from the newest.

        `fork` adds a new head with the state of the target; nothing is lost, and an interrupt of the target asks again.
        `truncate` removes what came after the target, with what subgraphs and tags had there; an answered interrupt waits
        again. A graph invoked afterwards continues from there. Returns the config of the checkpoint that is now the newest.

        Raises:
            CheckpointNotFoundError: there is no such checkpoint, tag or distance.
            ThreadBusyError: others kept writing; nothing was changed.
        """
        return run(self._rollback(thread_id, to, mode), self._connection)

    async def arollback(self, thread_id: str, to: str | int, *, mode: Literal["fork", "truncate"] = "fork") -> RunnableConfig:
        """`rollback`, awaited."""
        return await arun(self._rollback(thread_id, to, mode), self._connection)

    def _rollback(self, thread_id: str, to: str | int, mode: str) -> Operation[RunnableConfig]:
        if validation.one_of(mode, ("fork", "truncate"), "rollback: mode") == "fork":
            return rollback.fork_to(self._engine, self.serde, thread_id, to)
        return rollback.truncate_to(self._engine, self.serde, thread_id, to)

    def tag(self, thread_id: str, name: str, checkpoint_id: str | int | None = None, *, checkpoint_ns: str = "") -> None:
        """Names a checkpoint (by default the newest), so that retention and prune keep it and `rollback` finds it. An
        existing tag moves.

        Raises:
            CheckpointNotFoundError, ThreadNotFoundError: there is nothing to name.
        """
        run(tags.tag(self._engine, self.serde, thread_id, name, checkpoint_id, checkpoint_ns), self._connection)

    async def atag(self, thread_id: str, name: str, checkpoint_id: str | int | None = None, *, checkpoint_ns: str = "") -> None:
        """`tag`, awaited."""
        await arun(tags.tag(self._engine, self.serde, thread_id, name, checkpoint_id, checkpoint_ns), self._connection)

    def untag(self, thread_id: str, name: str) -> bool:
        """Removes a tag; whether there was one. The checkpoint stays until retention takes it.

        A call that redis-py repeats, because the reply was lost, finds the tag gone and says False.
        """
        return run(tags.untag(self._engine, thread_id, name), self._connection)

    async def auntag(self, thread_id: str, name: str) -> bool:
        """`untag`, awaited."""
        return await arun(tags.untag(self._engine, thread_id, name), self._connection)

    def tags(self, thread_id: str) -> dict[str, str]:
        """Tags of a thread with their checkpoint ids."""
        return run(tags.tags(self._engine, thread_id), self._connection)

    async def atags(self, thread_id: str) -> dict[str, str]:
        """`tags`, awaited."""
        return await arun(tags.tags(self._engine, thread_id), self._connection)

    def diff(self, thread_id: str, a: str | int, b: str | int, *, checkpoint_ns: str = "") -> dict[str, ChannelDiff]:
        """The channels that differ between two checkpoints (ids, tags or steps back), lists element by element."""
        return run(diff.diff(self._engine, self.serde, thread_id, a, b, checkpoint_ns), self._connection)

    async def adiff(self, thread_id: str, a: str | int, b: str | int, *, checkpoint_ns: str = "") -> dict[str, ChannelDiff]:
        """`diff`, awaited."""
        return await arun(diff.diff(self._engine, self.serde, thread_id, a, b, checkpoint_ns), self._connection)

    # --- expiry and finding ---

    def set_ttl(self, thread_id: str, seconds: float | timedelta | None) -> None:
        """Gives a thread its own TTL, from now on and at each later put, whatever the saver's; None: the saver's again.

        Raises:
            ThreadNotFoundError: there is no such thread.
        """
        run(threads.expire(self._engine, thread_id, "default" if seconds is None else "own", seconds), self._connection)

    async def aset_ttl(self, thread_id: str, seconds: float | timedelta | None) -> None:
        """`set_ttl`, awaited."""
        await arun(threads.expire(self._engine, thread_id, "default" if seconds is None else "own", seconds), self._connection)

    def apply_ttl(self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
        """Gives this saver's `ttl` to threads that are there already, from now on; None: to all threads of the prefix.

        Turns `ttl` on, or changes it, over old data, without waiting for the next write to each thread. A saver without `ttl`
        takes the expiry off. Threads with settings of their own (`set_ttl`, `persist`, the TTL of a run) keep them. Each
        thread is one script; a call that was cut short is repeated, and each call counts the time from now. A thread that is
        damaged is left as it is and logged. `progress` is called with the number of threads done, every 200 threads or each
        bucket. Returns how many threads have the saver's TTL now.
        """
        return run(threads.apply_ttl(self._engine, thread_ids, progress), self._connection)

    async def aapply_ttl(
        self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None
    ) -> int:
        """`apply_ttl`, awaited."""
        return await arun(threads.apply_ttl(self._engine, thread_ids, progress), self._connection)

    def persist(self, thread_id: str) -> None:
        """Keeps a thread until it is deleted; no later put undoes it, `set_ttl` does."""
        run(threads.expire(self._engine, thread_id, "persist"), self._connection)

    async def apersist(self, thread_id: str) -> None:
        """`persist`, awaited."""
        await arun(threads.expire(self._engine, thread_id, "persist"), self._connection)

    def list_threads(
        self, *, prefix: str | None = None, limit: int | None = None, newest_first: bool = True
    ) -> Iterator[ThreadInfo]:
        """Threads by their last activity, those whose id begins with `prefix`. 1024 small reads, without SCAN or KEYS."""
        return stream(threads.list_threads(self._engine, prefix, limit, newest_first, None), self._connection)

    def alist_threads(
        self, *, prefix: str | None = None, limit: int | None = None, newest_first: bool = True
    ) -> AsyncIterator[ThreadInfo]:
        """`list_threads`, awaited page by page."""
        return astream(threads.list_threads(self._engine, prefix, limit, newest_first, None), self._connection)

    def find_threads(self, **metadata: Any) -> Iterator[ThreadInfo]:
        """Threads whose latest metadata have these values, for keys given as `index_metadata`, last active first.

        Raises:
            ValueError: no key, a key that is not indexed, or a value that is neither text, number nor boolean.
        """
        return stream(threads.list_threads(self._engine, None, None, True, metadata), self._connection)

    def afind_threads(self, **metadata: Any) -> AsyncIterator[ThreadInfo]:
        """`find_threads`, awaited page by page."""
        return astream(threads.list_threads(self._engine, None, None, True, metadata), self._connection)

    def stats(self, thread_id: str | None = None) -> Stats:
        """Counts and bytes of a thread, or of all together with the server's `INFO memory` where it may be asked."""
        return run(threads.read_stats(self._engine, thread_id), self._connection)

    async def astats(self, thread_id: str | None = None) -> Stats:
        """`stats`, awaited."""
        return await arun(threads.read_stats(self._engine, thread_id), self._connection)

    # --- verification ---

    def verify(self, thread_id: str | None = None, *, progress: Callable[[Progress], None] | None = None) -> Iterator[Finding]:
        """Reads and checks everything that is stored of a thread, or of all threads, and gives what is not as it should be.

        Changes nothing, no TTL either. Values are verified, not deserialized. A thread that is written to meanwhile is read
        again. Without a thread it needs the right to SCAN, and room for the names of all keys. `progress` is called after
        each portion that was read.
        """
        return stream(verify.verify(self._engine, thread_id, progress), self._connection)

    def averify(
        self, thread_id: str | None = None, *, progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Finding]:
        """`verify`, awaited portion by portion."""
        return astream(verify.verify(self._engine, thread_id, progress), self._connection)

    def repair(
        self,
        thread_id: str | None = None,
        *,
        drop_unreadable: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Repair]:
        """Mends what `verify` finds, thread by thread, each atomic, and gives what was done; it works as it is iterated over.

        Indexes are written from what the thread's hash holds, counts are made anew, chunks that nothing refers to go. What
        cannot be read, or has lost a part, stays as it is unless `drop_unreadable`: then it is removed, with the tags that
        name it and what only it used. Look at what `verify` finds before: with the wrong `integrity_key` that is everything.
        """
        return stream(verify.repair(self._engine, thread_id, progress, drop_unreadable), self._connection)

    def arepair(
        self,
        thread_id: str | None = None,
        *,
        drop_unreadable: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Repair]:
        """`repair`, awaited portion by portion."""
        return astream(verify.repair(self._engine, thread_id, progress, drop_unreadable), self._connection)

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


AsyncRedisSaver = RedisSaver
"""The same class, under the name that savers with two classes use."""
