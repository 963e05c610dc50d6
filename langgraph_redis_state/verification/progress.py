"""TODO"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What was read so far: whole threads, checkpoints and pending writes, chunks, bytes of fields with their names."""

    threads: int = 0
    records: int = 0
    chunks: int = 0
    bytes: int = 0
