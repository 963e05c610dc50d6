"""One process that works on one thread. It tells its parent what it does, one JSON object per line on its output.

It has no memory of its own and is not told how far the thread has come: it asks the checkpointer. A new thread: it runs
until the interrupt, says that it waits, and does nothing more. A thread that waits for an answer: it resumes, and then
sees to the conversation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig

from demo import papers, play
from demo.desk import DeskContext, build
from langgraph_redis_state import RedisSaver


def _tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


def work(server: Path, thread: str, journal: Path) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    context = DeskContext(journal)
    with RedisSaver.embedded(server) as saver:
        desk = build(saver)
        saver.ping()  # so that what is timed next is a read, and not the first connection
        began = time.perf_counter()
        state = desk.get_state(config)
        found = {"interrupts": len(state.interrupts), "ms": 1000 * (time.perf_counter() - began)}
        _tell("started", pid=os.getpid(), **found)
        if not state.interrupts:
            for step in play.hand_in_letter(desk, config, context):
                _tell("step", node=step.node, words=step.words)
            _tell("waiting")
            sys.stdin.read()  # nobody answers here; if the parent is gone this ends, and so does the process
            return
        for step in play.decide(desk, config, context, play.ESTIMATE_IS_NOT_ENOUGH):
            _tell("step", node=step.node, words=step.words)
        for question in papers.questions():
            _tell("turn", question=question, answer=play.ask(desk, config, context, question))
        _tell("done")
