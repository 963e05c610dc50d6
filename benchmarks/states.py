"""What versions of a state cost: `python -m benchmarks.states` prints the table of docs/state.md. A test holds part of it."""

from __future__ import annotations

import json
import random
from typing import Any

import lz4.block

from langgraph_redis_state import EmbeddedServer, RedisStatePersistence

from .report import table

SIZES = (200, 250, 300, 500, 1000, 2000)
"""Bytes for each key."""
COPIES = ("of copies", "stored singly", "compressed whole")


def shares(versions: RedisStatePersistence, copies: RedisStatePersistence, kind: str, size: int) -> tuple[float, float, float]:
    """What 100 versions of 50 keys take, one changed each time: of 100 copies as they are serialized; as this package stores
    them when nothing is shared; and as JSON that is compressed whole."""
    chosen = random.Random(1)
    words = ["".join(chosen.choices("etaoinshrdlu", k=chosen.randint(2, 10))) for _ in range(400)]

    def value() -> str:
        if kind == "random":
            return f"{chosen.getrandbits(4 * size):0{size}x}"
        return " ".join(chosen.choices(words, k=size // 3))[:size]

    state = {f"field_{n:02d}": value() for n in range(50)}
    plain = packed = whole = 0
    for n in range(100):
        state[f"field_{chosen.randrange(50):02d}"] = value()
        plain += versions.save_with_metadata(state, "s").size_bytes
        packed += copies.save_with_metadata([state], f"s{n}").stored_bytes
        whole += len(lz4.block.compress(json.dumps(state).encode()))
    stats: dict[str, Any] = versions.get_stats()
    assert stats["versions"] == 100
    stored = stats["stored_bytes"]
    return stored / plain, stored / packed, stored / whole


def main() -> None:
    rows = []
    with EmbeddedServer.start() as server:
        for size in SIZES:
            row = [f"{size:,}"]
            for kind in ("words", "random"):
                with (
                    RedisStatePersistence(server.url, namespace=f"{kind}-{size}", max_versions=100) as versions,
                    RedisStatePersistence(server.url, namespace=f"{kind}-{size}-copies") as copies,
                ):
                    row += [f"{100 * share:.1f} %" for share in shares(versions, copies, kind, size)]
            rows.append(row)
    print(table(["bytes for each key", *(f"{kind}: {each}" for kind in ("words", "random") for each in COPIES)], rows))


if __name__ == "__main__":
    main()
