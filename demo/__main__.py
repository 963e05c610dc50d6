"""`python -m demo`: see `story.py`. `python -m demo worker ...` is how the story starts its processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the story, or one of its workers. Returns the exit status: 0 when every claim of the demo held."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="A LangGraph agent that survives kill -9.")
    parser.add_argument("--path", type=Path, default=Path(".demo"), help="where the server keeps its data")
    roles = parser.add_subparsers(dest="role")
    worker = roles.add_parser("worker", help="one process that works on a thread; the demo starts it")
    worker.add_argument("--server", required=True, type=Path)
    worker.add_argument("--thread", required=True)
    worker.add_argument("--journal", required=True, type=Path)
    options = parser.parse_args(arguments)

    os.environ["LANGSMITH_TRACING"] = "false"  # the demo talks to nobody
    if options.role == "worker":
        from demo.worker import work

        work(options.server, options.thread, options.journal)
        return 0

    from demo import screen, story
    from langgraph_redis_state.errors import EmbeddedServerError

    console = screen.open_console()
    try:
        story.tell(options.path.resolve(), console)
    except (story.ClaimFailed, EmbeddedServerError) as failure:
        console.print(screen.failed(str(failure)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
