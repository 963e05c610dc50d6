"""Finding and deleting among many threads: `python -m benchmarks.threads`.

Fills a private server with threads (100,000 unless `--count` says otherwise), each with one checkpoint of one of 1,000 runs,
and times what sweeps over the 1,024 buckets. Writes `docs/benchmarks/threads.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from langgraph.checkpoint.base.id import uuid6

from langgraph_redis_state import EmbeddedServer, RedisSaver

from .candidates import versions

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "threads.md"


async def fill(url: str, count: int) -> None:
    async with RedisSaver(url, index_metadata=("user_id",)) as saver:

        async def one(n: int) -> None:
            checkpoint = {
                "v": 4,
                "id": str(uuid6()),
                "ts": "2026-01-01T00:00:00+00:00",
                "channel_values": {"n": n},
                "channel_versions": {"n": 1},
                "versions_seen": {},
                "updated_channels": None,
            }
            config = {"configurable": {"thread_id": f"thread-{n}", "checkpoint_ns": ""}}
            metadata = {"source": "loop", "step": 0, "parents": {}, "run_id": f"run-{n % 1000}", "user_id": f"user-{n % 5000}"}
            await saver.aput(config, checkpoint, metadata, {"n": 1})  # type: ignore[arg-type]

        for start in range(0, count, 200):
            await asyncio.gather(*(one(n) for n in range(start, min(start + 200, count))))


def timed(work: Callable[[], object], times: int) -> float:
    """Median milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    load = os.getloadavg()[0]
    with EmbeddedServer.start() as server, RedisSaver(server.url, index_metadata=("user_id",)) as saver:
        asyncio.run(fill(server.url, count))
        version = saver.client.info("server")["redis_version"]
        runs = iter(range(1000))
        rows = [
            ("`list_threads(limit=50)`", timed(lambda: list(saver.list_threads(limit=50)), 9)),
            ("`find_threads(user_id=...)`, 20 of them", timed(lambda: list(saver.find_threads(user_id="user-7")), 9)),
            (
                f"`delete_for_runs` of one run in {count // 1000} threads",
                timed(lambda: saver.delete_for_runs([f"run-{next(runs)}"]), 9),
            ),
            ("`delete_for_runs` of a run that is nowhere", timed(lambda: saver.delete_for_runs(["no run"]), 9)),
        ]
    told = versions()
    lines = [
        f"# {count:,} threads",
        "",
        "Written by `python -m benchmarks.threads`: medians of 9, on an embedded server.",
        f"Redis {version}, Python {told['Python']}, {told['system']}, redis-py {told['redis']}; load {load:.1f}.",
        "",
        "| what | ms |",
        "| --- | ---: |",
        *(f"| {what} | {ms:.0f} |" for what, ms in rows),
    ]
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
