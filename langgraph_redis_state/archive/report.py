"""What an export, a backup or an import tells: its progress, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is, after each thread."""

    thread_id: str
    threads: int
    """Threads that are done."""
    of: int


@dataclass(slots=True)
class Report:
    """What was done. `ok` is whether all that was asked for is where it should be."""

    threads: int = 0
    """Threads that were written to the file, or imported from it."""
    checkpoints: int = 0
    unchanged: int = 0
    """Threads of a backup whose content stands in its base."""
    existing: int = 0
    """Threads that an import left alone because they exist (`skip_existing`)."""
    bytes: int = 0
    """Size of the file that was written."""
    failures: dict[str, str] = field(default_factory=dict)
    """Threads that could not be read or imported, and why; the others were."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with a file besides, such as a damaged index; and threads of which only an older state was there."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.failures and not self.problems

    def __str__(self) -> str:
        parts = [f"{self.threads} threads, {self.checkpoints} checkpoints in {self.seconds:.1f} s"]
        parts += [f"{self.unchanged} unchanged"] if self.unchanged else []
        parts += [f"{self.existing} existed already"] if self.existing else []
        parts += [f"{self.bytes:,} bytes"] if self.bytes else []
        failed = [f"failed: thread {thread!r}: {why}" for thread, why in self.failures.items()]
        return "\n".join([", ".join(parts), *failed, *(f"problem: {each}" for each in self.problems)])
