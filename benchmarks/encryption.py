"""What encryption costs: `python -m benchmarks.encryption` prints bytes and times of a chat of 500, each step stored.

Beside it LangGraph's `EncryptedSerializer`. All take turns in one process. "put" is the next step of the chat; "get" reads it
with the saver that wrote it, "first get" with one that never saw the thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_redis_state import EmbeddedServer, RedisSaver

from .measure import quiet
from .workloads import Thread, chat

LENGTH, ROUNDS = 500, 60

KEY = bytes(range(32))

CONFIG: Any = {"configurable": {"thread_id": "chat"}}

OPTIONS: dict[str, dict[str, Any]] = {
    "not encrypted": {},
    "`integrity_key`": {"integrity_key": KEY},
    "`encryption_key`": {"encryption_key": KEY},
    "`encryption_key`, `name_key`": {"encryption_key": KEY, "name_key": KEY[::-1]},
    "`encryption_key`, `freshness`": {"encryption_key": KEY, "freshness": True},
    "`EncryptedSerializer`": {"serde": EncryptedSerializer.from_pycryptodome_aes(key=KEY), "integrity_key": KEY},
}


def _bytes(saver: RedisSaver) -> int:
    """What the fields of the thread take, with their names."""
    fields = saver.client.hgetall(saver._engine.address("chat").keys.hash)
    return sum(len(name) + len(content) for name, content in fields.items())


def main() -> None:
    logging.getLogger("langgraph_redis_state").setLevel(logging.ERROR)  # threads of 64 MB are warned of
    *before, last = chat(LENGTH)
    taken: dict[tuple[str, str], list[float]] = {}

    def timed(name: str, what: str, call: Callable[[], Any]) -> None:
        began = time.perf_counter()
        call()
        taken.setdefault((name, what), []).append(time.perf_counter() - began)

    with EmbeddedServer.start() as server:
        savers = {name: RedisSaver(server.url, prefix=f"{n}", **options) for n, (name, options) in enumerate(OPTIONS.items())}
        threads = {name: Thread(saver, "chat") for name, saver in savers.items()}
        for thread in threads.values():
            thread.play(iter(before))
        stored = {name: _bytes(saver) for name, saver in savers.items()}
        quiet()
        for _ in range(ROUNDS):
            for n, (name, options) in enumerate(OPTIONS.items()):
                saver, call = savers[name], threads[name].call(last)
                timed(name, "put", lambda saver=saver, call=call: saver.put(*call.put))  # type: ignore[misc]
                timed(name, "get", lambda saver=saver: saver.get_tuple(CONFIG))  # type: ignore[misc]
                with RedisSaver(server.url, prefix=f"{n}", **options) as fresh:
                    fresh.ping()
                    timed(name, "first get", lambda fresh=fresh: fresh.get_tuple(CONFIG))  # type: ignore[misc]
    print(
        f"| chat of {LENGTH}, with its whole history | KB | ratio | put, ms | ratio | get, ms | ratio | first get, ms | ratio |"
    )
    print("| --- " * 9 + "|")
    base = next(iter(OPTIONS))
    for name in OPTIONS:
        cells = [f"{stored[name] / 1000:,.0f}", f"{stored[name] / stored[base]:.2f}"]
        for what in ("put", "get", "first get"):
            cells += [
                f"{median(taken[name, what]) * 1e3:.2f}",
                f"{median(taken[name, what]) / median(taken[base, what]):.2f}",
            ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
