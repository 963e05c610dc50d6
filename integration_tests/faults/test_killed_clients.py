"""Clients that are killed, and what they leave."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import writer
from figures import figure, often
from graphs import graph_on
from langgraph.types import Command
from servers import Server, until
from shapes import id_of, plain

from langgraph_redis_state import RedisSaver

KILLS = often(200, 60)
WORK = ("sync", "async", "graph", "async")


def test_a_client_killed_at_any_moment_leaves_only_whole_checkpoints(shared: Server, prefix: str, tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    command = [sys.executable, writer.__file__, shared.url, prefix, str(acknowledged)]
    chance = random.Random(50)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for number in range(KILLS):
            size = acknowledged.stat().st_size
            parent.stdin.write(f"{number} {WORK[number % len(WORK)]}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            until(lambda size=size: acknowledged.stat().st_size > size, "the client does not begin")
            time.sleep(chance.random() * 0.15)  # the random point
            os.kill(child, signal.SIGKILL)
        parent.stdin.close()
        parent.stdout.read()
    assert parent.returncode == 0

    done = [json.loads(line) for line in acknowledged.read_text().splitlines()]
    by_verb = {verb: [told for name, *told in done if name == verb] for verb in ("put", "writes", "copy", "prune", "graph")}
    with RedisSaver(shared.url, prefix=prefix) as saver:
        stored: dict[str, dict[str, Any]] = {}
        for found in saver.list(None):
            thread = found.config["configurable"]["thread_id"]
            stored.setdefault(thread, {})[id_of(found.config)] = found
            assert plain(saver.get_tuple(found.config)) == plain(found)
            if thread.startswith("graph"):
                continue
            assert len(found.pending_writes) in (0, writer.WRITES)  # a batch is there or is not
            number, step = int(thread.split()[-1]), found.metadata["step"]
            if thread.startswith("large"):
                assert len(found.checkpoint["channel_values"]["bytes"]) == 5_000_000
            else:
                assert found.checkpoint["channel_values"] == writer.state(number, step % 60)
                assert all(value == writer.state(number, step % 60) for _, _, value in found.pending_writes)
        for thread, checkpoint_id in by_verb["put"]:
            assert checkpoint_id in stored[thread]
        for thread, checkpoint_id in by_verb["writes"]:
            assert len(stored[thread][checkpoint_id].pending_writes) == writer.WRITES
        for (thread,) in by_verb["copy"]:
            assert thread in stored
        for thread, found in stored.items():
            if thread.startswith("copy"):
                steps = int(thread.split()[2])
                pruned = [thread] in by_verb["prune"]
                assert len(found) == (1 if pruned else steps) or (len(found) == 1 and steps % 6 == 0)
        graph = graph_on(saver)
        unfinished = 0
        for thread in stored:
            if thread.startswith("graph"):
                config: Any = {"configurable": {"thread_id": thread}}
                if saver.get_tuple(config) is None:  # only a checkpoint of the subgraph had arrived, before those of the root
                    assert [thread] not in by_verb["graph"]
                    graph.invoke(writer.FIRST, config)
                state = graph.get_state(config)
                if [thread] in by_verb["graph"]:
                    assert state.tasks == ()
                if state.tasks:  # it goes on where it was; `next` would leave out tasks whose results are stored
                    unfinished += 1
                    graph.invoke(Command(resume="yes") if state.interrupts else None, config)
                    if graph.get_state(config).interrupts:
                        graph.invoke(Command(resume="yes"), config)
                    state = graph.get_state(config)
                assert state.tasks == ()
                assert state.values["messages"][-1].text == "published"
    staging = [key for key in shared.keys(prefix) if b"}:u:" in key]
    assert all(0 < shared.admin.pttl(key) <= 600_000 for key in staging)
    figure(
        "clients killed at random points",
        kills=KILLS,
        checkpoints=sum(map(len, stored.values())),
        acknowledged_puts=len(by_verb["put"]),
        lost=0,
        unreadable=0,
        graphs_resumed=unfinished,
        staging_left_to_expire=len(staging),
    )
