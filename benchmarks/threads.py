"""Finding and deleting among many threads: `python -m benchmarks.threads [COUNT ...]`.

Fills a private server with threads, first 100,000 and then 1,000,000 unless told otherwise, each with one checkpoint, and times
what sweeps over the 1,024 buckets. A run has 100 threads, a user 20, however many threads there are. Writes `threads.md` and
`threads.json` in `docs/benchmarks`, of which `python -m benchmarks` takes its part.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base.id import uuid6

from langgraph_redis_state import EmbeddedServer, RedisSaver

from .candidates import versions

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "threads.md"
FIGURES = PAGE.with_suffix(".json")
RUN, FOUND = 100, 20


async def fill(url: str, first: int, count: int) -> None:
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
            metadata = {
                "source": "loop",
                "step": 0,
                "parents": {},
                "run_id": f"run-{n // RUN}",
                "user_id": f"user-{n // FOUND}",
            }
            await saver.aput(config, checkpoint, metadata, {"n": 1})  # type: ignore[arg-type]

        for start in range(first, count, 200):
            await asyncio.gather(*(one(n) for n in range(start, min(start + 200, count))))


def timed(work: Callable[[], object], times: int) -> float:
    """Median milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def written() -> dict[str, Any]:
    """What an earlier run measured, as a section of the report; none if there was none."""
    return {"threads": json.loads(FIGURES.read_text())} if FIGURES.exists() else {}


def measure(url: str, first: int, count: int) -> dict[str, Any]:
    """Milliseconds of each kind of call among so many threads, of which those from `first` on are new."""
    with RedisSaver(url, index_metadata=("user_id",)) as saver:
        runs, users = itertools.count(first // RUN), itertools.count(count // FOUND - 20)
        rows = {
            "list_threads(limit=50)": timed(lambda: list(saver.list_threads(limit=50)), 9),
            f"find_threads(user_id=...), {FOUND} found": timed(
                lambda: list(saver.find_threads(user_id=f"user-{next(users)}")), 9
            ),
            f"delete_for_runs, a run in {RUN} threads": timed(lambda: saver.delete_for_runs([f"run-{next(runs)}"]), 9),
            "delete_for_runs, a run that is nowhere": timed(lambda: saver.delete_for_runs(["no run"]), 9),
        }
        info = saver.client.info()
        return {"ms": rows, "memory": info["used_memory"], "redis": info["redis_version"], "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[100_000, 1_000_000], help="how many threads (default both)")
    counts = sorted(parser.parse_args().counts)
    found, there = {}, 0
    with EmbeddedServer.start() as server:
        for count in counts:
            asyncio.run(fill(server.url, there, count))
            found[str(count)], there = measure(server.url, there, count), count
            print(f"{count:,}: {found[str(count)]}", flush=True)
    told, last = versions(), found[str(counts[-1])]

    def row(what: str, cells: Iterable[str]) -> str:
        return f"| {what} | {' | '.join(cells)} |"

    lines = [
        "# Many threads",
        "",
        f"Written by `python -m benchmarks.threads {' '.join(map(str, counts))}`: medians of 9, on an embedded server, in ms.",
        f"Redis {last['redis']}, Python {told['Python']}, {told['system']}, redis-py {told['redis']}; load {last['load']:.1f}.",
        "",
        row("threads", (f"{count:,}" for count in counts)),
        f"| --- |{' ---: |' * len(counts)}",
        *(row(f"`{what}`", (f"{each['ms'][what]:.1f}" for each in found.values())) for what in last["ms"]),
        row("memory of the server, MB", (f"{each['memory'] / 1e6:,.0f}" for each in found.values())),
    ]
    PAGE.write_text("\n".join(lines) + "\n")
    FIGURES.write_text(json.dumps(found, indent=1) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
