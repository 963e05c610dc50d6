"""`HistoryMethods`: what `RedisSaver` has beyond LangGraph's contract, sync and async. Each method is one line: an operation,
and a driver. What the methods do stands in `history/` and `verification/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from . import validation
from .client.driver import arun, astream, run, stream
from .connected import Connected
from .effects import Operation
from .history import diff, heads, rollback, tags, threads, versions
from .history.diff import ChannelDiff
from .history.heads import Head, StoredWrite
from .history.threads import Stats, ThreadInfo
from .history.versions import Version
from .operations import copying, freshness

if TYPE_CHECKING:
    from .verification.findings import Finding, Progress, Repair


class HistoryMethods(Connected):
    """Methods on the past of threads, on their expiry, on finding, checking and repairing them."""

    serde: SerializerProtocol

    def history(self, thread_id: str, *, checkpoint_ns: str | None = "", limit: int | None = None) -> Iterator[Version]:
        """The checkpoints of a namespace, or (None) of all, newest first by id, without their values: cheap to look at however
        large the state."""
        return stream(versions.history(self._engine, self.serde, thread_id, checkpoint_ns, limit), self._connection)

    def ahistory(self, thread_id: str, *, checkpoint_ns: str | None = "", limit: int | None = None) -> AsyncIterator[Version]:
        """`history`, awaited page by page."""
        return astream(versions.history(self._engine, self.serde, thread_id, checkpoint_ns, limit), self._connection)

    def heads(self, thread_ids: Sequence[str]) -> Iterator[Head]:
        """The newest root checkpoint of each of these threads, with its pending writes and without what stands in chunks, so
        that many can be looked at. In their order; threads that do not exist are left out. Changes nothing, no TTL either.

        One that cannot be read (damaged, lost, another key) is given with its `problem`.
        """
        return stream(heads.heads(self._engine, self.serde, thread_ids), self._connection)

    def aheads(self, thread_ids: Sequence[str]) -> AsyncIterator[Head]:
        """`heads`, awaited page by page."""
        return astream(heads.heads(self._engine, self.serde, thread_ids), self._connection)

    def writes(
        self, thread_id: str, checkpoint_id: str | int | None = None, *, checkpoint_ns: str = ""
    ) -> Sequence[StoredWrite]:
        """The pending writes of a checkpoint (by default the newest), in LangGraph's order: by which task each was stored, and
        when.

        Raises:
            CheckpointNotFoundError, ThreadNotFoundError: there is no such checkpoint.
        """
        return run(heads.writes(self._engine, self.serde, thread_id, checkpoint_id, checkpoint_ns), self._connection)

    async def awrites(
        self, thread_id: str, checkpoint_id: str | int | None = None, *, checkpoint_ns: str = ""
    ) -> Sequence[StoredWrite]:
        """`writes`, awaited."""
        found = heads.writes(self._engine, self.serde, thread_id, checkpoint_id, checkpoint_ns)
        return await arun(found, self._connection)

    def rollback(self, thread_id: str, to: str | int, *, mode: Literal["fork", "truncate"] = "fork") -> RunnableConfig:
        """Takes a thread back to a checkpoint: its id, a tag, or a negative number of steps up from the newest.

        `fork` adds a new newest checkpoint with the state of the target. Nothing is lost; an interrupt of the target is asked
        again. `truncate` removes all checkpoints after the target, those of subgraphs and their tags included; an interrupt of
        the target is unanswered again. A graph that is invoked afterwards continues from there. Returns the config of the
        checkpoint that is now the newest.

        Raises:
            CheckpointNotFoundError: there is no such checkpoint, tag or distance.
            ThreadBusyError: others kept writing; nothing was changed.
        """
        return run(self._rollback(thread_id, to, mode), self._connection, "rollback")

    async def arollback(self, thread_id: str, to: str | int, *, mode: Literal["fork", "truncate"] = "fork") -> RunnableConfig:
        """`rollback`, awaited."""
        return await arun(self._rollback(thread_id, to, mode), self._connection, "rollback")

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
        """Removes a tag. Returns whether it existed; False, too, if redis-py repeated the call because the reply was lost."""
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
        run(threads.set_ttl(self._engine, thread_id, "default" if seconds is None else "own", seconds), self._connection)

    async def aset_ttl(self, thread_id: str, seconds: float | timedelta | None) -> None:
        """`set_ttl`, awaited."""
        await arun(threads.set_ttl(self._engine, thread_id, "default" if seconds is None else "own", seconds), self._connection)

    def apply_ttl(self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
        """Applies this saver's `ttl` to existing threads, starting now; None: to all threads of the prefix.

        Use it after you turn `ttl` on or change it. A saver without `ttl` removes the expiry. Threads with settings of their
        own (`set_ttl`, `persist`, the TTL of a run) keep them. Each thread is one script. If the call is interrupted, repeat
        it; each call restarts the TTL. A damaged thread is skipped and logged. `progress` is called with the number of
        threads done, every 200 threads or each bucket. Returns how many threads have the saver's TTL now.
        """
        return run(threads.apply_ttl(self._engine, thread_ids, progress), self._connection)

    async def aapply_ttl(
        self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None
    ) -> int:
        """`apply_ttl`, awaited."""
        return await arun(threads.apply_ttl(self._engine, thread_ids, progress), self._connection)

    def rekey(self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
        """Makes threads anew as this saver writes, under its first key, or plain with `decrypt_only`; None: all threads.

        Use it after you turn encryption on or off, or put a new key before the others, and keep the old keys until it is done.
        Each thread is read, written to staging keys, and put in place by one script: all of it or nothing. If the call is
        interrupted, repeat it; threads that are done are only read. `progress` is called with the number of threads written
        so far, after each thread. Returns how many were written.

        Raises:
            ThreadBusyError: a thread changed each time it was read. It is as it was; those before it are done.
            KeyProviderError: there were threads whose key provider gave no key; all others are done.
        """
        return run(copying.rekey(self._engine, thread_ids, progress), self._connection)

    async def arekey(self, thread_ids: Sequence[str] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
        """`rekey`, awaited."""
        return await arun(copying.rekey(self._engine, thread_ids, progress), self._connection)

    def persist(self, thread_id: str) -> None:
        """Keeps a thread until it is deleted; no later put undoes it, `set_ttl` does."""
        run(threads.set_ttl(self._engine, thread_id, "persist"), self._connection, "persist")

    async def apersist(self, thread_id: str) -> None:
        """`persist`, awaited."""
        await arun(threads.set_ttl(self._engine, thread_id, "persist"), self._connection, "persist")

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
        return stream(threads.list_threads(self._engine, None, None, True, metadata), self._connection, "find_threads")

    def afind_threads(self, **metadata: Any) -> AsyncIterator[ThreadInfo]:
        """`find_threads`, awaited page by page."""
        return astream(threads.list_threads(self._engine, None, None, True, metadata), self._connection, "find_threads")

    def stats(self, thread_id: str | None = None) -> Stats:
        """Counts and bytes of a thread, or of all together with the server's `INFO memory` where it may be asked."""
        return run(threads.stats(self._engine, thread_id), self._connection)

    async def astats(self, thread_id: str | None = None) -> Stats:
        """`stats`, awaited."""
        return await arun(threads.stats(self._engine, thread_id), self._connection)

    # --- verification ---

    def rights(self) -> dict[str, dict[str, str]]:
        """What the server does not let this user run, for each group of verbs: commands with what the server says. Empty
        groups lack nothing. Tries every command on a key that never exists, in a form that changes nothing. With `read_only`
        the server lets nobody write, from Redis 7.0 on."""
        from .verification import rights

        return run(rights.rights(self._engine), self._connection)

    async def arights(self) -> dict[str, dict[str, str]]:
        """`rights`, awaited."""
        from .verification import rights

        return await arun(rights.rights(self._engine), self._connection)

    def statement(self, thread_id: str) -> tuple[int, bytes] | None:
        """Of a saver with `freshness`: the revision of a thread, and 16 bytes that stand for all it holds, as the `witness` was
        told after the last write. A revision below one that the witness was told: the whole thread was taken back. None: there
        is no such thread."""
        return run(freshness.read_statement(self._engine, thread_id), self._connection)

    async def astatement(self, thread_id: str) -> tuple[int, bytes] | None:
        """`statement`, awaited."""
        return await arun(freshness.read_statement(self._engine, thread_id), self._connection)

    def verify(self, thread_id: str | None = None, *, progress: Callable[[Progress], None] | None = None) -> Iterator[Finding]:
        """Reads and checks every stored byte of a thread, or of all threads, and yields a `Finding` for each problem.

        Changes nothing, no TTL either. Values are verified, not deserialized. A thread that is written to meanwhile is read
        again. Without a thread it needs the right to SCAN, and room for the names of all keys. `progress` is called after
        each portion that was read.
        """
        from .verification import verify

        return stream(verify.verify(self._engine, thread_id, progress), self._connection, "verify")

    def averify(
        self, thread_id: str | None = None, *, progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Finding]:
        """`verify`, awaited portion by portion."""
        from .verification import verify

        return astream(verify.verify(self._engine, thread_id, progress), self._connection, "verify")

    def repair(
        self,
        thread_id: str | None = None,
        *,
        drop_unreadable: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Repair]:
        """Repairs what `verify` finds, each thread atomically, and yields what was done. It repairs only as far as the caller
        iterates.

        Indexes and counts are rebuilt from the thread's hash; unreferenced chunks are removed. Unreadable or incomplete records
        are kept unless `drop_unreadable` is set, which removes them together with their tags and their own chunks. Run `verify`
        first: with the wrong `integrity_key`, every record is unreadable.
        """
        from .verification import verify

        return stream(verify.repair(self._engine, thread_id, progress, drop_unreadable), self._connection, "repair")

    def arepair(
        self,
        thread_id: str | None = None,
        *,
        drop_unreadable: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Repair]:
        """`repair`, awaited portion by portion."""
        from .verification import verify

        return astream(verify.repair(self._engine, thread_id, progress, drop_unreadable), self._connection, "repair")
