"""The `lgrs` command: look inside of threads, say what they wait for, and steer them.

app        the group of commands, shell completion, `serve`
session    options and environment to savers; what is printed, and how; exit codes
command    what all commands have in common
look       threads, why, history, messages      state   show, writes, diff, tags, stats, watch
steer      tag, untag, rollback, copy, ttl, prune, rm   move    export, import, backup, migrate
upkeep     verify, repair, doctor              serve   the page in the browser
printing   tables and conversations as text     reference   docs/cli.md, made from the commands

Imported by nothing; `lgrs` and `python -m langgraph_redis_state` start it. May import `inspection`, `web`, `archive`,
`migrate`, click, rich and what the package exports. Must not reach past the verbs of the saver.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs `lgrs` and ends the process with its exit code."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as missing:
        sys.stderr.write(
            f"lgrs needs the package {missing.name}, which is not installed: pip install 'langgraph-redis-state[cli]'\n"
        )
        raise SystemExit(1) from None
    from .app import run

    raise SystemExit(run())
