"""What this process knows of the statement of a thread (storage/statements.py). No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..storage.statements import Frozen, Markers, Statement, Where


@dataclass(frozen=True, slots=True)
class Standing:
    """A statement, and of what stands in the thread, what statements have only digests of."""

    sealed: bytes = b""
    """The statement as it is stored; empty: there is none."""
    statement: Statement = field(default_factory=Statement)
    writes: Mapping[Where, tuple[bytes, Markers]] = field(default_factory=dict)
    """Pending writes that were known last, each with their digest, which says whether they are those of an entry."""
    frozen: Frozen = field(default_factory=dict)
    """What is known to be frozen of the checkpoint that a write is for."""
    unstated: bool = False
    """There is a thread without a statement, which is accepted."""

    def markers(self, where: Where) -> Markers | None:
        """The pending writes of a checkpoint; None if they are not known."""
        entry = self.statement.entries.get(where) or self.frozen.get(where)
        if entry is None or not entry.writes:
            return {}
        digest, markers = self.writes.get(where, (b"", None))
        return markers if digest == entry.writes else None

    @property
    def size(self) -> int:
        return 3 * len(self.sealed) + 200 * sum(len(markers) for _, markers in self.writes.values()) + 2000
