"""The indexes of all threads, bucket by bucket: listing them, and forgetting what expired."""

from __future__ import annotations

import time

from ..effects import Operation, Read, pairs
from ..errors import CheckpointCorruptError, CheckpointerError
from ..scripts import commands
from ..storage import keys
from .engine import SWEEP_SECONDS, Engine, logger

SWEEP_SCRIPTS, SWEEP_THREADS = 8, 100
"""One write makes up for so many buckets at most, or so often goes on with one, so many threads each: some 1 ms."""


def sweep(engine: Engine) -> Operation[None]:
    """After a put, when it is due: forgets threads that expired where nobody writes, bucket after bucket."""
    now = time.monotonic()
    owed = min(int((now - engine.sweep_due) // SWEEP_SECONDS) + 1, SWEEP_SCRIPTS)
    if owed <= 0:
        return
    engine.sweep_due = now + SWEEP_SECONDS
    for _ in range(SWEEP_SCRIPTS):
        about = f"tidying bucket {engine.swept:04x} of prefix {engine.settings.prefix!r}"
        base = keys.bucket_key(engine.settings.prefix, engine.swept, "")
        try:
            more = yield from commands.sweep_bucket(keys.script_keys(base, b""), SWEEP_THREADS, about)
        except CheckpointerError as error:  # the put itself is done
            logger.warning("%s: what expired there is forgotten another time: %s", about, error)
            more = False
        if not more:
            engine.swept = (engine.swept + 1) % keys.BUCKETS
            owed -= 1
        if not owed:
            return
    engine.sweep_due = now  # there is more


def all_threads(engine: Engine) -> Operation[list[tuple[str, float]]]:
    """Every thread with its last activity in ms, the last active first. 1024 small reads, sent together."""
    prefix = engine.settings.prefix
    replies = yield Read(
        [(b"ZRANGE", keys.bucket_key(prefix, bucket, "threads"), b"0", b"-1", b"WITHSCORES") for bucket in range(keys.BUCKETS)],
        "listing threads",
    )
    active = [(float(score), name) for reply in replies for name, score in pairs(reply)]
    return [(stored_text(engine, name, "the index of threads"), score) for score, name in sorted(active, reverse=True)]


def first_threads(engine: Engine, most: int, newest: bool) -> Operation[tuple[list[tuple[str, float]], bool]]:
    """The threads that were active last, or first, and whether there are more: of each bucket only the first, and of those that
    may have more of them, twice as many, until no bucket may."""
    prefix, found = engine.settings.prefix, dict[int, list[tuple[float, bytes]]]()
    reading, size = list(range(keys.BUCKETS)), 1 + most // keys.BUCKETS
    while True:
        how = (b"0", b"%d" % (size - 1), *((b"REV",) if newest else ()), b"WITHSCORES")  # bytes, since there are so many
        replies = yield Read(
            [(b"ZRANGE", keys.bucket_key(prefix, bucket, "threads"), *how) for bucket in reading],
            "listing threads",
        )
        found.update(zip(reading, ([(float(score), name) for name, score in pairs(reply)] for reply in replies), strict=True))
        first = sorted((each for there in found.values() for each in there), reverse=newest)
        full = [bucket for bucket in reading if len(found[bucket]) == size]
        worst = first[min(most, len(first)) - 1] if first else (0.0, b"")
        reading = [b for b in full if len(first) < most or (found[b][-1] >= worst if newest else found[b][-1] <= worst)]
        if not reading:
            chosen = [(stored_text(engine, name, "the index of threads"), score) for score, name in first[:most]]
            return chosen, len(first) > most or bool(full)
        size *= 2


def threads_indexed(engine: Engine, index: str, entry: bytes, about: str) -> Operation[list[str]]:
    """The threads that stand behind `entry` in an index, in all buckets. 1024 small reads, sent together."""
    prefix, lower = engine.settings.prefix, b"[" + entry
    replies = yield Read(
        [(b"ZRANGEBYLEX", keys.bucket_key(prefix, bucket, index), lower, lower + b"\xff") for bucket in range(keys.BUCKETS)],
        about,
    )
    return [stored_text(engine, member[len(entry) :], f"{about}: an index") for reply in replies for member in reply]


def stored_text(engine: Engine, name: bytes, where: str) -> str:
    """The id of a thread that an index names."""
    try:
        return engine.settings.names.thread_of(name).decode()
    except UnicodeDecodeError:
        raise CheckpointCorruptError(f"{where} holds {name!r}, which is no id; something else wrote there") from None
