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
    """All targets, in the order of the issue that set them."""
    judge = _Judge()
    chat, short, states = sections.get("long chat", {}), sections.get("short chats", {}), sections.get("states", {})
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
    put = chat.get("put at 500", {}).get("put", {})
    judge.at_most(
        "put, chat of 500, against InMemorySaver",
        1.5,
        "<= 1.5 x (stretch: 0.7 x)",
        lambda: _against(put, MEMORY),
    )
    judge.at_most(
        "put, chat of 500, against the best other Redis saver",
        0.6,
        "<= 0.6 x",
        lambda: _against(put, *REDIS),
    )
    for call, limit in (("put", 1.5), ("put_writes", 1.3)):
        judge.at_most(
            f"{call}, chat of 10, against one SET",
            limit,
            f"<= {limit} x",
            lambda c=call: _against(short[c], SET),
        )
    reads = chat.get("reads", {})
    judge.at_most(
        "get_tuple latest, chat of 500, against InMemorySaver",
        1.3,
        "<= 1.3 x",
        lambda: _against(reads["get_tuple latest"], MEMORY),
    )
    judge.at_most(
        f"get_tuple latest, chat of 500, against {MODULES}",
        0.2,
        "<= 1/5",
        lambda: _against(reads["get_tuple latest"], MODULES),
    )
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
        10,
        "<= 10 ms",
        lambda: max(each[READY] for each in stalls.values() if READY in each),
        "{:.1f} ms",
    )
    judge.at_most(
        "import time over langgraph-checkpoint",
        60,
        "<= 60 ms",
        lambda: sections["imports"]["langgraph_redis_state"],
        "{:.0f} ms",
    )
    return judge.verdicts
