"""What all operations of one saver share: its settings, what this process remembers, and the layout check. No I/O."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from .. import validation
from ..address import Address, configurable
from ..caching.bounded import BoundedCache
from ..caching.manifests import ManifestCache
from ..caching.messages import MessageCache
from ..caching.parts import ChunkCache
from ..caching.revived import RevivedCache
from ..caching.standings import Standing
from ..caching.turns import Turns
from ..effects import Argument, Operation, Read, Script, all_commands
from ..errors import InvalidConfigError, LayoutError, ServerRefusedError
from ..scripts import commands
from ..scripts.following import Tip
from ..storage import keys
from ..storage.codec import CompressionType
from ..storage.names import Names
from ..storage.seals import Keyring
from .unlocking import Seals

logger = logging.getLogger("langgraph_redis_state")


CACHE_BYTES = 64 * 1024 * 1024
"""What one saver may remember, all in all. Three eighths are for verified chunks and pages; the rest has six equal parts:
serialized messages, runs of them, lists, messages that were read, what puts build on, and what saves of states build on."""


PUT_BYTES = 2 * 1024 * 1024
"""What puts build on may always take so much, and what saves build on half of it. Then each sends what is new, and not all."""


TIPS_BYTES = 2 * 1024 * 1024
"""Of a thousand threads or so it is remembered how the last write left them."""


STANDING_BYTES = 16 * 1024 * 1024
"""What a process may remember of statements: half of it holds the 40,000 pending writes of a step. What is larger is read again
with each write."""


SWEEP_SECONDS = 80.0
"""A saver that writes forgets what expired in one bucket each so many seconds: in all 1024 within a day."""


Witness = Callable[[str, int, bytes], object]
"""Told of a thread, the revision of its statement, and 16 bytes that stand for all it holds."""


@dataclass(frozen=True)
class Settings:
    """What the constructor of the saver decided. Times in ms, 0 = none."""

    prefix: str
    ttl: int
    refresh: bool
    compression: CompressionType
    keyring: Keyring
    names: Names
    tombstone: int
    max_versions: int | None
    max_age: int | None
    max_bytes: int
    conflict: bool
    index: tuple[str, ...]
    cache: int
    read_only: bool = False
    fresh: bool = False
    witness: Witness | None = None


def metadata_text(value: Any) -> bytes:
    """A metadata value in the index: its type and its text, so that 1, True and "1" differ."""
    found = validation.plain(value)
    return keys.encode(f"{type(found).__name__}:{found}", "an indexed metadata value")


class Engine:
    """What all operations of one saver share: its settings, and what this process remembers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        part = 5 * settings.cache // 48
        self.manifests = ManifestCache(max(part, PUT_BYTES))
        self.tips: BoundedCache[bytes, Tip] = BoundedCache(TIPS_BYTES, lambda thread, tip: len(thread) + tip.size)
        """What this process left in threads at its last write."""
        self.messages = MessageCache(part)
        self.revived = RevivedCache(part)
        self.chunks = ChunkCache(3 * settings.cache // 8)
        self.seen_bytes = max(part, PUT_BYTES // 2)
        self.overtaken: BoundedCache[bytes, bool] = BoundedCache(1 << 20, lambda thread, _: len(thread) + 200)
        """Threads that changed while retention looked at them: the next put looks again."""
        self.resting: BoundedCache[bytes, int] = BoundedCache(1 << 20, lambda thread, _: len(thread) + 200)
        """Threads in which retention removed few of the checkpoints that it read: so many puts until it looks again."""
        self.seals = Seals(settings.keyring)
        self.standings: BoundedCache[bytes, Standing] = BoundedCache(
            STANDING_BYTES, lambda thread, each: len(thread) + each.size
        )
        """What statements were seen or made last of threads."""
        self.turns = Turns()
        self._layout_seen = self._layout_written = False
        self._cleared: set[tuple[bool, tuple[Script, ...]]] = set()
        """What `check_layout` was asked and need not be asked again."""
        self.swept, self.sweep_due = random.randrange(keys.BUCKETS), time.monotonic() + SWEEP_SECONDS
        self.denied: dict[str, str] | None = None
        """Commands that the user may not run, each with what the server says; None: not asked yet."""

    def address(self, thread: Any, ns: str = "") -> Address:
        return Address(self.settings.prefix, thread, ns, None, self.settings.names)

    def target(self, config: RunnableConfig) -> Address:
        """What a config names."""
        return Address.of(self.settings.prefix, config, self.settings.names)

    def unlock(self, target: Address) -> Operation[None]:
        """Takes the keys of a thread, before any of it is read or written."""
        return self.seals.unlock(target)

    def run_name(self, run: Any) -> bytes:
        """A run id as it is stored; empty for none."""
        return self.settings.names.run(self.run_text(run))

    def run_text(self, run: Any) -> bytes:
        """A run id as its text; empty for none."""
        return keys.encode(keys.id_text(run) or "", "run_id")

    def indexed(self, metadata: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
        """Of some metadata what this saver was told to index, as scripts take it."""
        return [
            (name.encode(), metadata_text(metadata[name]))
            for name in self.settings.index
            if validation.plain(metadata.get(name)) is not None
        ]

    def ttl_of(self, config: RunnableConfig) -> Argument:
        """TTL in ms: behind an r that of the run (config["configurable"]["ttl"], seconds), else that of the saver."""
        own = configurable(config).get("ttl")
        return self.settings.ttl if own is None else b"r%d" % validation.ttl_ms(own, "config['configurable']['ttl']")

    @property
    def refresh(self) -> int:
        """What reading scripts are told of the TTL: -1: to leave it; -2: to write nothing at all, no lost index either."""
        if self.settings.read_only:
            return -2
        return self.settings.ttl if self.settings.refresh else -1

    def forget_layout(self) -> None:
        """Looks at the layout again before the next verb."""
        self._layout_seen = self._layout_written = False
        self._cleared.clear()

    def check_layout(self, write: bool, *scripts: Script) -> Operation[None]:
        """Once for each saver: is the data under this prefix of a layout this version may read, or write? And before the first
        use of scripts that write: may the user run all their commands? A right that is missing late in a script would leave
        half of what it writes."""
        if (write, scripts) in self._cleared:
            return
        if self.settings.read_only and (write or scripts):
            raise InvalidConfigError(
                "this saver was opened with read_only=True, so it only reads; nothing was sent to the server"
            )
        needed: frozenset[str] = frozenset().union(*(script.commands for script in scripts))
        if needed:
            needed |= {"GET", "SET"} if write else {"GET"}
        proven = not needed or (self.denied is not None and needed.isdisjoint(self.denied))
        if proven and self._layout_seen and (self._layout_written or not write):
            self._cleared.add((write, scripts))
            return
        key = keys.layout_key(self.settings.prefix)
        about = f"first use of prefix {self.settings.prefix!r}"
        names = self.settings.names.fingerprint
        written = f"{keys.LAYOUT} {keys.LAYOUT} {names}".rstrip() if write else ""
        others = sorted(all_commands() - needed) if needed else []
        both = (key, keys.absent_key(self.settings.prefix))
        stored, denied = yield from commands.first_look(both, written, sorted(needed), others, about)
        if needed:
            self.denied = denied
            if lacking := sorted(needed & denied.keys()):
                raise ServerRefusedError(
                    f"prefix {self.settings.prefix!r}: the server does not let this user run {', '.join(lacking)} "
                    f"({denied[lacking[0]]}), which {' and '.join(script.name for script in scripts)} may need; nothing "
                    f"was written. Grant {' '.join('+' + name.lower() for name in lacking)}, or allow the command on the server"
                )
        if stored is not None:
            try:
                first, second, *named = stored.decode().split()
                layout, writers = int(first), int(second)
            except ValueError:
                raise LayoutError(f"{about}: {stored!r} is no layout; is the prefix used by something else?") from None
            if writers > keys.LAYOUT and (write or layout != keys.LAYOUT):
                raise LayoutError(
                    f"{about}: the data has layout {layout}, which only versions that know layout {writers} may write, and "
                    f"this one knows {keys.LAYOUT}; update langgraph-redis-state"
                )
            if named != [names][: bool(names)]:
                other = ("with another" if names else "with a") if named else "without a"
                raise LayoutError(
                    f"{about}: the layout says that it was begun {other} name_key, so this saver would find none of its "
                    f"threads. {'Pass that key' if named else 'Leave name_key out'}, or use a prefix of its own; "
                    "`migrate` copies threads from one prefix to another"
                )
            self._layout_written = writers <= keys.LAYOUT
        # of a prefix with nothing in it, it is not known yet how names will stand there
        self._layout_seen = stored is not None or not names


def ping(engine: Engine) -> Operation[bool]:
    (reply,) = yield Read([("PING",)], "ping")
    return bool(reply)
