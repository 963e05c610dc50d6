"""Time: measured in turns, so that what disturbs the machine disturbs all candidates alike; compared as ratios of medians."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timing:
    """Wall and CPU time of one kind of call, in ms."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        result = work(*arguments)
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        self.wall.append(wall / 1e6)
        self.cpu.append(cpu / 1e6)
        return result

    def last(self, count: int) -> Timing:
        return Timing(self.wall[-count:], self.cpu[-count:])

    def summary(self) -> dict[str, float]:
        """The p99 is the smallest sample that 99 % of all do not exceed: of fewer than 100 samples the largest."""
        ordered = sorted(self.wall)
        return {
            "median_ms": statistics.median(ordered),
            "p99_ms": ordered[-(-99 * len(ordered) // 100) - 1],
            "cpu_ms": statistics.median(self.cpu),
            "samples": len(ordered),
        }


class Timings:
    """The timings of several candidates and calls."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], Timing] = {}

    def __call__(self, candidate: str, call: str) -> Timing:
        return self.of.setdefault((candidate, call), Timing())

    def summary(self, last: int | None = None) -> dict[str, dict[str, dict[str, float]]]:
        """{call: {candidate: summary}}; `last`: only of that many calls."""
        table: dict[str, dict[str, dict[str, float]]] = {}
        for (candidate, call), timing in self.of.items():
            table.setdefault(call, {})[candidate] = (timing.last(last) if last else timing).summary()
        return table


def turns(names: Sequence[str], count: int) -> list[str]:
    """Each name `count` times, in an order that rotates, so that nobody always follows the same neighbour."""
    order: list[str] = []
    for turn in range(count):
        at = turn % len(names)
        order += [*names[at:], *names[:at]]
    return order


def quiet() -> None:
    """Before measuring: what exists is not collected again in the middle of somebody's call."""
    gc.collect()
    gc.freeze()


async def longest_stall(work: Callable[[], Any]) -> float:
    """How long, in ms, the event loop was not free at a time while `work()` was awaited: how late a timer of 1 ms was."""
    longest, done = 0.0, False

    async def probe() -> None:
        nonlocal longest
        while not done:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)

    watching = asyncio.create_task(probe())
    await asyncio.sleep(0.02)
    longest = 0.0
    await work()
    done = True
    await watching
    return longest * 1000


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """k of the curve a * x**k that fits best: 1 is linear growth, 2 quadratic."""
    import math

    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (statistics.fmean(values) for values in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)
