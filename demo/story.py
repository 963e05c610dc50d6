"""The parent: starts the server, kills the first worker, looks on as the second goes on, travels in time, counts.

What it says about the saver it checks. The first claim that does not hold ends the demo with an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import StateSnapshot
from rich.console import Console

from demo import cost, papers, play, screen
from demo.desk import Desk, DeskContext, build
from langgraph_redis_state import RedisSaver

_PATIENCE = 60.0  # seconds a worker may take; it needs two


class ClaimFailed(Exception):
    """The demo said something that turned out not to be so."""


class Claims:
    """What the demo says, held against what happened."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def check(self, words: str, holds: bool, otherwise: str = "") -> None:
        """Note that something holds.

        Raises:
            ClaimFailed: it does not; with `otherwise`, what was seen instead.
        """
        if not holds:
            raise ClaimFailed(f"Not so: {words}. {otherwise}".strip())
        self.held.append(words)


class Worker:
    """A worker process, its events, and its end."""

    def __init__(self, server: Path, thread: str, journal: Path) -> None:
        command = [sys.executable, "-m", "demo", "worker", "--server", str(server)]
        command += ["--thread", thread, "--journal", str(journal)]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.pid = self._process.pid

    def events(self) -> Iterator[dict[str, Any]]:
        """What it says, until it says that it waits or is done.

        Raises:
            ClaimFailed: it ended, or was silent for too long, before it said so.
        """
        assert self._process.stdout is not None
        watchdog = threading.Timer(_PATIENCE, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            for line in self._process.stdout:
                event: dict[str, Any] = json.loads(line)
                yield event
                if event["event"] in ("waiting", "done"):
                    return
        finally:
            watchdog.cancel()
        _, complaint = self._process.communicate()
        raise ClaimFailed(f"Worker {self.pid} ended with {self._process.returncode} too early:\n{complaint}")

    def kill(self) -> int:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed politely."""
        self._process.kill()
        return self._process.wait()

    def finish(self) -> int:
        self._process.communicate(timeout=_PATIENCE)
        return self._process.returncode

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


def ran(journal: Path) -> Counter[tuple[int, str]]:
    """How often each node and each tool ran, by process."""
    lines = (line.split(" ", 1) for line in journal.read_text("utf-8").splitlines())
    return Counter((int(pid), what) for pid, what in lines)


def ran_again(journal: Path, first: int, second: int) -> list[str]:
    """What the second process ran although the first had run it, but for the node that was interrupted."""
    counted = ran(journal)
    before = {what for pid, what in counted if pid == first}
    after = {what for pid, what in counted if pid == second}
    twice = {what for (pid, what), times in counted.items() if pid in (first, second) and times > 1}
    return sorted((before & after | twice) - {"approve"})


def _history(desk: Desk, config: RunnableConfig) -> list[StateSnapshot]:
    return list(desk.get_state_history(config))


def tell(path: Path, console: Console) -> None:
    """The whole story, on an embedded server that keeps its data under `path`.

    Raises:
        ClaimFailed: something the demo says did not hold.
    """
    thread = f"claim-{secrets.token_hex(4)}"
    journal = path / f"{thread}.journal"
    server = path / "redis"
    path.mkdir(parents=True, exist_ok=True)
    journal.touch()
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    context = DeskContext(journal)
    claims = Claims()
    show = console.print

    with RedisSaver.embedded(server) as saver:
        desk = build(saver)

        show(screen.act(1, "A letter arrives", "A LangGraph desk reads it: one subgraph call per paragraph (Send)."))
        show(screen.letter(papers.paragraphs(papers.read("letter"))[1]))
        with Worker(server, thread, journal) as first:
            for event in first.events():
                if event["event"] == "step":
                    show(screen.step(first.pid, event["node"], event["words"]))
            asked = desk.get_state(config).interrupts
            claims.check("the first process waits for a person", len(asked) == 1)
            show(screen.question(asked[0].value))
            end = first.kill()
        show(screen.note(f"Process {first.pid} waits for a person. kill -9 {first.pid}", "bold red"))
        claims.check(f"process {first.pid} was ended by SIGKILL", end == -signal.SIGKILL, f"It ended with {end}.")
        waiting = saver.get_tuple(config)
        written = {channel for _, channel, _ in (waiting.pending_writes or [])} if waiting else set()
        claims.check(
            "the interrupt, and the result of the node beside it, survive as pending writes",
            {"__interrupt__", "draft"} <= written,
            f"There are: {sorted(written)}.",
        )

        show(screen.act(2, "Another process, the same thread", "It asks Redis how far the thread has come."))
        said = []
        with Worker(server, thread, journal) as second:
            for event in second.events():
                if event["event"] == "started":
                    words = f"{event['interrupts']} question is open (found in {event['ms']:.1f} ms)"
                    show(screen.step(second.pid, "get_state", words))
                    claims.check("the second process finds the open question", event["interrupts"] == 1)
                    show(screen.note("Officer Tamm: everything but the car. An estimate is not an invoice.", "yellow"))
                elif event["event"] == "step":
                    show(screen.step(second.pid, event["node"], event["words"]))
                elif event["event"] == "turn":
                    said.append((event["question"], event["answer"]))
            end = second.finish()
        claims.check(f"process {second.pid} finished by itself", end == 0, f"It ended with {end}.")
        show(screen.turns(said, second.pid))
        again = ran_again(journal, first.pid, second.pid)
        done = len([what for pid, what in ran(journal) if pid == first.pid])
        claims.check(
            f"of the {done} node and tool calls before the interrupt none ran twice "
            "(but `approve`, which was interrupted: that is where the answer goes in)",
            not again,
            f"These did: {', '.join(again)}.",
        )
        settled = desk.get_state(config)
        longest = settled.values["messages"]
        claims.check("the first outcome is 343.70 EUR", str(settled.values["outcome"]["paid"]) == "343.70")

        show(screen.act(3, "Back in time", "The garage's invoice turns up. Back to before the claims were weighed."))
        fork = play.put_invoice_on_file(desk, play.before_assessment(desk, config))
        for step in (*play.carry_on(desk, fork, context), *play.decide(desk, config, context, play.INVOICE_IS_HERE)):
            show(screen.step(os.getpid(), step.node, step.words))
        read_again = [what for pid, what in ran(journal) if pid == os.getpid() and what.startswith(("read", "tool"))]
        claims.check("the fork reads no paragraph again", not read_again, f"It ran {', '.join(read_again)}.")
        forked, kept = desk.get_state(config), desk.get_state(settled.config)
        claims.check("the fork ends with 631.70 EUR", str(forked.values["outcome"]["paid"]) == "631.70")
        claims.check("the first outcome is still there, message for message", kept.values == settled.values)
        history = _history(desk, config)
        show("", screen.history(history, thread), "", screen.outcomes(kept.values["outcome"], forked.values["outcome"]))

        show(screen.act(4, "What it cost", "The same run once more, in this process, with LangGraph's InMemorySaver."))
        memory = InMemorySaver()
        in_memory = build(memory)
        play.play(in_memory, config, DeskContext(path / f"{thread}.memory.journal"))
        claims.check(
            f"all {len(history)} checkpoints equal those of InMemorySaver: values, order, parents, questions asked",
            cost.comparable(history) == cost.comparable(_history(in_memory, config)),
        )
        keys = cost.thread_keys(saver, thread)
        claims.check("the thread lives in two keys", len(keys) == 2, f"They are: {', '.join(keys)}.")
        counted = cost.count(saver, config)
        claims.check(
            f"{counted.checkpoints} checkpoints and {counted.writes} pending writes, as many as InMemorySaver has",
            counted == cost.count(memory, config),
            f"There: {cost.count(memory, config)}.",
        )
        in_redis, beside = cost.bytes_in_redis(saver, keys), cost.bytes_in_memory(memory)
        once = len(saver.serde.dumps_typed(longest)[1])
        show(screen.costs(counted, in_redis, len(keys), beside, once))
        claims.check("the history is smaller in Redis than in memory", in_redis < beside, f"{in_redis} and {beside}.")

    with RedisSaver.embedded(server) as saver:
        reopened = _history(build(saver), config)
        claims.check(
            "the server was stopped and started again, and the history is the same",
            cost.comparable(reopened) == cost.comparable(history),
        )
    words = f"--embedded {shlex.quote(os.path.relpath(server))} why {thread}"
    told = subprocess.run(
        [sys.executable, "-m", "langgraph_redis_state", *shlex.split(words)],
        capture_output=True,
        encoding="utf-8",
        timeout=_PATIENCE,
    )
    claims.check("`lgrs why` knows that this thread is finished", "Finished" in told.stdout, told.stdout + told.stderr)
    show("", screen.claims(claims.held))
    lgrs = Path(sys.executable).parent / "lgrs"
    program = os.path.relpath(lgrs) if lgrs.exists() else f"{sys.executable} -m langgraph_redis_state"
    show(screen.look_inside(program, words, thread))
