"""Retention and removal while others write, and with clients killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from chats import assert_tidy, put
from forks import forked
from shapes import at, checkpoint, id_of, metadata, plain
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadBusyError

KILLS = times(2, 12, 100)


def everything(saver: RedisSaver, thread: str = "t") -> list[Any]:
    """Every tuple of a thread, but for the thread's name: each is verified on the way."""
    found = [plain(each) for each in saver.list(at(thread, None))]
    for each in found:
        for place in ("config", "parent"):
            each[place] = each[place] and each[place][1:]
    return found


def roots(saver: RedisSaver, thread: str = "t") -> list[str]:
    return [version.checkpoint_id for version in saver.history(thread)]


WRITER_IMPORTS = """
import random
from shapes import at, checkpoint, metadata
from langgraph_redis_state import RedisSaver
"""
WRITER = """
dice = random.Random(number)
words = [f"{dice.getrandbits(64):x} " * 4 for _ in range(120)]
with RedisSaver(sys.argv[1], prefix=sys.argv[2], max_versions=4) as saver:
    saver.ping()
    os.write(1, b"ready\\n")
    sys.stdin.readline()
    parent = None
    for n in range(int(sys.argv[3])):
        at_ = dice.randrange(len(words))
        words[at_ : at_ + 2] = [f"{n} {dice.getrandbits(64):x} " * 4] * dice.randrange(1, 4)
        made = checkpoint({"words": list(words), "sum": "".join(words)})
        saver.put(at("t", "", parent), made, metadata(), made["channel_versions"])
        saver.put_writes(at("t", "", made["id"]), [("words", words[:40])], f"task {n}")
        parent = made["id"]
"""


@pytest.mark.longer
def test_every_read_verifies_while_four_processes_write_and_retention_runs(
    saver: RedisSaver, url: str, prefix: str, raw: Any
) -> None:
    writers = subprocess.Popen(
        forked(4, WRITER_IMPORTS, WRITER, url, prefix, str(times(14, 40))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert [writers.stdout.readline() for _ in range(4)] == [b"ready\n"] * 4
        writers.stdin.close()  # all of them go
        reads = 0
        while writers.poll() is None:
            found = saver.get_tuple(at("t"))  # raises if a checksum, a chunk or a page is wrong or missing
            if found is not None:
                values = found.checkpoint["channel_values"]
                assert "".join(values["words"]) == values["sum"]
                reads += 1
            if reads % 5 == 0:
                try:
                    saver.prune(["t"], keep_last=2)
                except ThreadBusyError:
                    continue
        assert writers.returncode == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(writers.pid, signal.SIGKILL)
        writers.wait()
        writers.stdout.close()
    assert reads > times(8, 20, 20)
    for found in saver.list(at("t")):
        assert "".join(found.checkpoint["channel_values"]["words"]) == found.checkpoint["channel_values"]["sum"]
    assert_tidy(raw, prefix)
    last = saver.get_tuple(at("t"))
    put(saver, last.checkpoint["channel_values"], id_of(last.config))
    saver.prune(["t"], keep_last=1)
    assert len(roots(saver)) == 1
    assert_tidy(raw, prefix)


KILLED = """
import os, random, signal, sys, time
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.operations import removal_plan

url, prefix, goal, kills = sys.argv[1:5]

def anew():
    removal_plan.REMADE = -1000

with RedisSaver(url, prefix=prefix) as saver:
    saver.ping()  # a child need not import what a first call imports

what = {
    "truncate": lambda saver, n: saver.rollback(f"truncate {n}", goal, mode="truncate"),
    "prune": lambda saver, n: saver.prune([f"prune {n}"], keep_last=3),
    "anew": lambda saver, n: anew() or saver.prune([f"anew {n}"], keep_last=3),
    "copy": lambda saver, n: saver.copy_thread("template", f"copy {n}"),
}
dice = random.Random(1)

def start(kind, n):
    # a process that says when it begins and when it is through
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        saver = RedisSaver(url, prefix=prefix)
        saver.ping()
        os.write(theirs, b"b")
        what[kind](saver, n)
        os.write(theirs, b"e")
        os._exit(0)
    os.close(theirs)
    assert os.read(ours, 1) == b"b"
    return child, ours

for kind in what:
    times = []
    for n in range(3):
        begun = time.perf_counter()
        child, ours = start(kind, f"timed {n}")
        begun = time.perf_counter()
        os.read(ours, 1)
        times.append(time.perf_counter() - begun)
        os.waitpid(child, 0)
        os.close(ours)
    for n in range(int(kills)):
        child, ours = start(kind, n)
        until = time.perf_counter() + dice.uniform(0, 2 * sorted(times)[1])
        time.sleep(max(0, until - time.perf_counter() - 0.001))
        while time.perf_counter() < until:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
"""


@pytest.mark.longer
def test_a_client_killed_at_any_moment_leaves_a_thread_as_before_or_as_after(
    saver: RedisSaver, url: str, prefix: str, raw: Any
) -> None:
    dice, words, made = random.Random(2), [], []
    for n in range(24):
        words = [*words, *(f"{dice.getrandbits(64):x} " * 3 for _ in range(20))]
        each = checkpoint({"words": words, "n": n})
        saver.put(at("template", "", made[-1] if made else None), each, metadata(), each["channel_versions"])
        saver.put_writes(at("template", "", each["id"]), [("words", words[-30:])], "task")
        made.append(each["id"])
    saver.tag("template", "name", made[2])
    before = everything(saver, "template")
    after = {}
    threads = [*(f"timed {n}" for n in range(3)), *range(KILLS)]
    for kind in ("truncate", "prune", "anew"):
        for n in (*threads, "whole"):
            saver.copy_thread("template", f"{kind} {n}")
        if kind == "truncate":
            saver.rollback("truncate whole", made[8], mode="truncate")
        else:
            saver.prune([f"{kind} whole"], keep_last=3)
        after[kind] = everything(saver, f"{kind} whole")
    assert len(before) == 24
    assert (len(after["truncate"]), len(after["prune"])) == (9, 4)
    after["copy"], nothing = before, []
    subprocess.run([sys.executable, "-c", KILLED, url, prefix, made[8], str(KILLS)], check=True)
    for kind in ("truncate", "prune", "anew", "copy"):
        outcomes: Counter[str] = Counter()
        for n in range(KILLS):
            found = everything(saver, f"{kind} {n}")
            states = {"before": nothing if kind == "copy" else before, "after": after[kind]}
            (outcome,) = [name for name, state in states.items() if found == state]
            outcomes[outcome] += 1
            if found:
                assert_tidy(raw, prefix, f"{kind} {n}")
                assert saver.tags(f"{kind} {n}") == {"name": made[2]}
        if KILLS >= 50:  # of few, each may have been too fast, or too slow
            assert outcomes["before"]
            assert outcomes["after"]
    assert all(raw.pttl(key) > 0 for key in raw.scan_iter(match=f"{prefix}:*:u:*", count=10_000))  # staging of the killed
