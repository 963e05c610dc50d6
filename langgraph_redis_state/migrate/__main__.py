"""`python -m langgraph_redis_state.migrate --from SPEC --to URL`: the same for a shell. Prints a report, and exits 1 if
it is not ok."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..errors import CheckpointerError
from ..saver import RedisSaver
from .copying import migrate
from .report import Progress

SPECS = {
    "sqlite": "sqlite:PATH",
    "postgres": "postgres:URL",
    "redis": "redis:URL (langgraph-checkpoint-redis)",
    "shallow": "shallow:URL (its ShallowRedisSaver)",
    "valkey": "valkey:URL (ValkeySaver)",
    "plainredis": "plainredis:URL",
    "lgrs": "lgrs:PREFIX@URL (this package)",
}

CLASSES = {
    "sqlite": ("langgraph.checkpoint.sqlite", "SqliteSaver"),
    "postgres": ("langgraph.checkpoint.postgres", "PostgresSaver"),
    "redis": ("langgraph.checkpoint.redis", "RedisSaver"),
    "shallow": ("langgraph.checkpoint.redis", "ShallowRedisSaver"),
    "valkey": ("langgraph_checkpoint_aws", "ValkeySaver"),
    "plainredis": ("langgraph_checkpoint_plainredis", "RedisSaver"),
}


def opened(spec: str, stack: contextlib.ExitStack) -> Any:
    """The saver that a SPEC names. Its package must be installed."""
    kind, _, where = spec.partition(":")
    if kind not in SPECS or not where:
        raise SystemExit(f"--from {spec!r} is unknown; allowed are {', '.join(SPECS.values())}")
    if kind == "lgrs":
        prefix, _, url = where.partition("@")
        return stack.enter_context(RedisSaver(url, prefix=prefix))
    if kind == "plainredis":
        return _saver_class(kind)(url=where)
    found = stack.enter_context(_saver_class(kind).from_conn_string(where))
    if kind in ("redis", "shallow"):
        found.setup()
    return found


def _saver_class(kind: str) -> Any:
    module, name = CLASSES[kind]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise SystemExit(f"--from {kind}: {module} cannot be imported ({error}); install the package of this saver") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m langgraph_redis_state.migrate", description="Copies threads to Redis.")
    parser.add_argument("--from", dest="source", required=True, metavar="SPEC", help=", ".join(SPECS.values()))
    parser.add_argument("--to", required=True, metavar="URL", help="the Redis server of this package")
    parser.add_argument("--prefix", default="lgrs", help="the prefix there (default: lgrs)")
    parser.add_argument("--thread", action="append", help="a thread to migrate; may be repeated (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="threads at a time (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="count only")
    parser.add_argument("--no-verify", action="store_true", help="do not compare both sides")
    options = parser.parse_args(arguments)

    def tell(done: Progress) -> None:
        sys.stderr.write(f"\r{done.threads} of {done.of} threads, {done.checkpoints} checkpoints ")

    with contextlib.ExitStack() as stack:
        source = opened(options.source, stack)
        target = stack.enter_context(RedisSaver(options.to, prefix=options.prefix))
        report = migrate(
            source,
            target,
            threads=options.thread,
            progress=tell if sys.stderr.isatty() else None,
            dry_run=options.dry_run,
            verify=not options.no_verify,
            workers=options.workers,
        )
        size = target.stats().stored_bytes if not options.dry_run else None
    sys.stdout.write(f"{report}\n" + (f"{size} bytes stored under the prefix\n" if size is not None else ""))
    return 0 if report.ok else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CheckpointerError as error:
        sys.exit(f"{error}")  # nothing is half migrated: run it again
