"""What a migration found and did: counts, what the source has lost already, what differs, what failed. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same on both sides."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    what: str
    """`missing`, `parent`, `metadata`, `writes`, `channel <name>`, `delta channel <name>`, or a field of the checkpoint."""

    def __str__(self) -> str:
        return f"thread {self.thread_id!r}, namespace {self.checkpoint_ns!r}, checkpoint {self.checkpoint_id!r}: {self.what}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a migration is, after each thread."""

    thread_id: str
    threads: int
    """Threads that are done."""
    of: int
    checkpoints: int
    """Checkpoints stored by this migration so far."""


@dataclass(slots=True)
class Report:
    """What a migration did. `ok` is whether everything that the source still has is on the other side."""

    threads: int = 0
    checkpoints: int = 0
    """Checkpoints stored now; with `dry_run`: that would be stored."""
    already: int = 0
    """Checkpoints that the target had before."""
    writes: int = 0
    """Pending writes that belong to the checkpoints stored now, and to heads that the target had before."""
    verified: int = 0
    """Checkpoints that were read on both sides and compared."""
    tags: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    """What the source has destroyed or does not keep, in words, and how often."""
    differences: list[Difference] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Threads that could not be migrated, and why; the others were."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.differences and not self.failures

    def add(self, other: Report) -> None:
        for name in ("threads", "checkpoints", "already", "writes", "verified", "tags"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.losses.update(other.losses)
        self.differences += other.differences
        self.failures |= other.failures

    def __str__(self) -> str:
        rate = self.threads / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.threads} threads in {self.seconds:.1f} s ({rate:.0f} threads/s): {self.checkpoints} checkpoints stored, "
            f"{self.already} were there, {self.writes} pending writes, {self.tags} tags, {self.verified} checkpoints compared"
        ]
        lines += [f"lost before: {what} ({count}x)" for what, count in self.losses.most_common()]
        lines += [f"differs: {each}" for each in self.differences]
        lines += [f"failed: thread {thread!r}: {why}" for thread, why in self.failures.items()]
        return "\n".join(lines)
