"""The targets, each judged on the numbers of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .candidates import MEMORY, OURS, SET
from .measure import exponent

MODULES, PLAIN, VALKEY = "checkpoint-redis", "plainredis", "ValkeySaver"
REDIS = (PLAIN, VALKEY, MODULES)
READY = "this, with nothing to serialize"
"""A row of the loop stalls: what is this package's own."""
REBUILT = "rebuild of an index that was lost"
"""Of what holds the server long: what only happens after an eviction, or by somebody's hand."""
ALONE, UNCOLLECTED = "the serializer alone", "the serializer alone, no garbage collected"


@dataclass
class Verdict:
    """A target, what was measured, and whether that meets it (None: the run had nothing to compare with)."""

    what: str
    target: str
    measured: str
    met: bool | None
    times_over: float | None = None


Measured = float | tuple[float, str]


def _against(table: Mapping[str, Any], *others: str) -> tuple[float, str]:
    """Our median over the best of the others', and the same of the CPU time in this process."""
    there = [name for name in others if name in table]
    wall = table[OURS]["median_ms"] / min(table[name]["median_ms"] for name in there)
    cpu = table[OURS]["cpu_ms"] / min(table[name]["cpu_ms"] for name in there)
    return wall, f" (CPU {cpu:.2f} x)"


def best(each: Mapping[str, float]) -> float:
    """The least of the other Redis savers."""
    return min(each[name] for name in REDIS if name in each)


def longest_command(history: Mapping[str, Any]) -> tuple[float, str, str]:
    """The longest time in ms that a command of ordinary work holds the server; which work, with which state."""
    longest = history["longest command ms"]
    return max((ms, what, state) for state, each in longest.items() for what, ms in each.items() if what != REBUILT)


class _Judge:
    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def at_most(self, what: str, limit: float, target: str, measure: Callable[[], Measured], form: str = "{:.2f} x") -> None:
        self._judge(what, limit, target, measure, form, lower=True)

    def at_least(self, what: str, limit: float, target: str, measure: Callable[[], Measured], form: str = "{:.2f} x") -> None:
        self._judge(what, limit, target, measure, form, lower=False)

    def _judge(self, what: str, limit: float, target: str, measure: Callable[[], Measured], form: str, *, lower: bool) -> None:
        try:
            value = measure()
            value, note = value if isinstance(value, tuple) else (value, "")
        except (KeyError, ValueError, ZeroDivisionError):
            self.verdicts.append(Verdict(what, target, "not measured", None))
            return
        met = value <= limit if lower else value >= limit
        over = None if met else (value / limit if lower else limit / value)
        self.verdicts.append(Verdict(what, target, form.format(value) + note, met, over))


def judge(sections: Mapping[str, Any]) -> list[Verdict]:
    """All targets."""
    judge = _Judge()
    chat, states = sections.get("long chat", {}), sections.get("states", {})
    growth, history = sections.get("growth", {}), sections.get("long history", {})

    def last(name: str) -> float:
        return float(list(chat["memory"][name].values())[-1])

    for name, limit in ((MODULES, 20), (VALKEY, 60), (PLAIN, 60)):
        judge.at_most(
            f"Redis memory, chat of 500, full history, against {name}",
            1 / limit,
            f"<= 1/{limit}",
            lambda n=name: last(OURS) / last(n),
            "{:.4f}",
        )
    judge.at_most(
        "Redis memory growth, chat of 100 to 2,000",
        1.2,
        "exponent <= 1.2",
        lambda: exponent([(int(x), y) for x, y in growth["chat"][OURS].items()]),
        "exponent {:.2f}",
    )
    for workload, what in (("deep agent", "deep-agent state (c)"), ("window", "sliding window (e)")):

        def share(workload: str = workload) -> float:
            each = states[workload]["memory each"]
            return float(each[OURS] / min(each[name] for name in REDIS if name in each))

        judge.at_most(f"Redis memory, {what}, against the best other Redis saver", 0.1, "<= 1/10", share, "{:.3f}")
    _speed(judge, sections)
    traffic = chat.get("traffic", {})

    def received() -> float:
        each = {name: one["received"] for name, one in traffic["get_state_history of 100"].items()}
        return float(each[OURS] / min(each[name] for name in REDIS if name in each))

    judge.at_most(
        "get_state_history of 100, chat of 500: bytes received, against the best other Redis saver",
        0.1,
        "<= 1/10",
        received,
        "{:.4f}",
    )
    for call in ("put", "put_writes", "get_tuple", "list page"):
        judge.at_most(f"round trips of {call}", 1, "1", lambda c=call: float(traffic[c][OURS]["round_trips"]), "{:.0f}")
    judge.at_most(
        f"put at {history.get('history', 10_000):,} checkpoints against 100",
        1.2,
        "<= 1.2 x",
        lambda: history["put"]["long"]["median_ms"] / history["put"]["short"]["median_ms"],
    )
    for length in ("2", "4", "10"):
        judge.at_most(
            f"Redis memory, a thread of {length} messages, against the best other Redis saver",
            0.5,
            "<= 1/2",
            lambda n=length: (lambda each: each[OURS] / best(each))(
                {name: one[n] for name, one in sections["small threads"]["memory"].items()}
            ),
            "{:.3f}",
        )
    _pending_writes(judge, sections)
    judge.at_most(
        "a 120-byte pending write in Redis",
        400,
        "<= 400 bytes",
        lambda: sections["pending write"]["bytes"][OURS],
        "{:.0f} bytes",
    )
    judge.at_most(
        f"server blocked by the longest command, {history.get('checkpoints', 12_000):,} checkpoints: retention, "
        "rollback, delete, list page",
        20,
        "<= 20 ms",
        lambda: longest_command(history)[0],
        "{:.1f} ms",
    )
    _concurrency(judge, sections)
    judge.at_most(
        "import time over langgraph-checkpoint",
        60,
        "<= 60 ms",
        lambda: sections["imports"]["langgraph_redis_state"],
        "{:.0f} ms",
    )
    return judge.verdicts


def _speed(judge: _Judge, sections: Mapping[str, Any]) -> None:
    """Time of calls, and of the server, against other savers."""
    chat, short, steps = sections.get("long chat", {}), sections.get("short chats", {}), sections.get("steps", {})
    for length in ("10", "50", "200", "500"):
        judge.at_most(
            f"put + put_writes of one step, chat of {length}, against the best other Redis saver's sum",
            0.8,
            "<= 0.8 x",
            lambda n=length: (lambda each: each[OURS] / best(each))(steps[n]["step ms"]),
        )
    judge.at_most(
        "put, chat of 10, against the fastest other Redis saver", 1.2, "<= 1.2 x", lambda: _against(short["put"], *REDIS)
    )
    judge.at_most("put, chat of 10, against one SET", 2, "<= 2 x", lambda: _against(short["put"], SET))
    judge.at_most(
        "put_writes, chat of 10, against the fastest other Redis saver",
        0.9,
        "<= 0.9 x",
        lambda: _against(short["put_writes"], *REDIS),
    )
    for length in ("10", "50", "200"):
        judge.at_most(
            f"server CPU of one step, chat of {length}, against the best other Redis saver's",
            1,
            "<= 1 x",
            lambda n=length: (lambda each: (each[OURS] / best(each), f" ({1000 * each[OURS]:.0f} µs)"))(steps[n]["server ms"]),
        )
    for call, limit in (("put", 35), ("put_writes", 25)):
        judge.at_most(
            f"script of {call} by the server's clock, chat of 10",
            limit,
            f"<= {limit} µs",
            lambda c=call: steps["scripts us"][c],
            "{:.0f} µs",
        )
    put = chat.get("put at 500", {}).get("put", {})
    judge.at_most("put, chat of 500, against InMemorySaver", 0.7, "<= 0.7 x", lambda: _against(put, MEMORY))
    reads = chat.get("reads", {})
    judge.at_most(
        "get_tuple latest, chat of 500, against InMemorySaver",
        1.1,
        "<= 1.1 x",
        lambda: _against(reads["get_tuple latest"], MEMORY),
    )
    judge.at_most(
        f"get_tuple latest, chat of 500, against {MODULES}",
        0.2,
        "<= 1/5",
        lambda: _against(reads["get_tuple latest"], MODULES),
    )


def _pending_writes(judge: _Judge, sections: Mapping[str, Any]) -> None:
    """What wide fan-outs cost."""
    tasks = sections.get("fan-out", {})
    for count in ("10", "1000", "10000"):
        judge.at_most(
            f"bytes replicated for {int(count):,} pending writes, against bytes stored",
            3,
            "<= 3 x",
            lambda n=count: tasks[n]["replicated"] / tasks[n]["stored"],
        )
    judge.at_most(
        "put_writes at 10,000 tasks of one checkpoint against 10",
        1.5,
        "<= 1.5 x",
        lambda: tasks["10000"]["median_ms"] / tasks["10"]["median_ms"],
    )


def _concurrency(judge: _Judge, sections: Mapping[str, Any]) -> None:
    """Many threads at once: on one event loop, and on one server."""

    def throughput() -> float:
        rates = sections["concurrent"]["calls a second"]
        return float(rates[OURS] / max(rates[name] for name in REDIS if name in rates))

    judge.at_least("64 async threads, throughput, against the best other Redis saver", 1.5, ">= 1.5 x", throughput)
    stalls = sections.get("stalls", {})
    states_of_10_mb = "; ".join(dict.fromkeys(case.partition(", ")[2] for case in stalls)) or "not measured"
    judge.at_most(
        f"event loop stall, the longest of these states: {states_of_10_mb}",
        10,
        "<= 10 ms",
        lambda: max(each[OURS] for each in stalls.values()),
        "{:.1f} ms",
    )
    judge.at_most(
        "of that, without the serializer: cutting, hashing, compressing, I/O",
        5,
        "<= 5 ms",
        lambda: max(each[READY] for each in stalls.values() if READY in each),
        "{:.1f} ms",
    )
    threads = sections.get("threads", {})
    judge.at_most(
        "list_threads(limit=50) among 100,000 threads",
        20,
        "<= 20 ms",
        lambda: threads["100000"]["ms"]["list_threads(limit=50)"],
        "{:.1f} ms",
    )
