"""Writes a run down: JSON, tables, plots. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .candidates import FLOORS, OURS
from .measure import exponent
from .targets import REBUILT, Verdict, judge
from .why import why

COLOURS = {OURS: "#c0392b"}


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def _names(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for each in tables:
        names.update(dict.fromkeys(each))
    return list(dict.fromkeys([*(name for name in (OURS, "InMemorySaver", *FLOORS) if name in names), *names]))


def latencies(calls: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Median, p99 and CPU of each call, a row for each candidate; in the head, from how many calls."""
    head = ["ms: median / p99 / CPU"]
    for call, table_ in calls.items():
        samples = sorted({one["samples"] for one in table_.values()})
        head.append(f"{call} ({samples[0]:,}{f' to {samples[-1]:,}' if len(samples) > 1 else ''})")
    rows = []
    for name in _names(calls.values()):
        row = [name]
        for call in calls.values():
            one = call.get(name)
            row.append(f"**{one['median_ms']:.3g}** / {one['p99_ms']:.3g} / {one['cpu_ms']:.3g}" if one else "")
        rows.append(row)
    return table(head, rows)


def traffic_table(traffic: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Bytes and round trips of one call, a row for each candidate."""

    def cell(one: Mapping[str, int] | None) -> str:
        return f"{size(one['sent'])} / {size(one['received'])} / {one['round_trips']}" if one else ""

    rows = [(name, *(cell(each.get(name)) for each in traffic.values())) for name in _names(traffic.values())]
    return table(["", *traffic], rows)


def verdicts(all_: Sequence[Verdict]) -> str:
    rows = []
    for each in all_:
        word = {True: "met", False: "**not met**", None: "-"}[each.met]
        if each.times_over is not None:
            word += f", {each.times_over:.2g} times over"
        rows.append((each.what, each.target, each.measured, word))
    return table(["what", "target", "measured", ""], rows)


def markdown(run: Mapping[str, Any]) -> str:
    """The whole page."""
    sections = run["sections"]
    judged = judge(sections)
    missed = [each for each in judged if each.met is False]
    parts = [
        "# Benchmarks\n",
        f"Written by `python -m benchmarks{' --quick' if run['quick'] else ''}`, "
        f"in {run['seconds'] / 60:.1f} minutes; every number below is of that one run. "
        "Machines are noisy: the candidates make the same calls in turns, and what counts are ratios of medians. "
        f"The load average of the machine was {run['load'][0]:.1f} when it began and {run['load'][1]:.1f} when it ended: where "
        "that is more than its cores, calls that wait for a server look slower than they are, and the CPU time says more. "
        "Beside the name of a call stands, in parentheses, how many of them each candidate made: of fewer than 100, the p99 is "
        "the slowest one. "
        "How each thing is measured stands in `benchmarks/suite.py`, the states in `benchmarks/workloads.py`. "
        "The raw numbers: [benchmarks.json](benchmarks/benchmarks.json).\n",
        "## Targets\n",
        verdicts(judged),
    ]
    if missed:
        parts.append("### What is not met, and why\n")
        for each in missed:
            parts.append(f"- **{each.what}** ({each.measured}, target {each.target}). {why(each.what, sections)}")
        parts.append("")
    parts += _setting(run)
    parts += _sections(sections)
    return "\n".join(parts).rstrip() + "\n"


def _setting(run: Mapping[str, Any]) -> list[str]:
    parts = ["## What is compared\n"]
    parts.append(
        table(
            ["candidate", "package", "server"],
            [(name, one["package"], one["server"]) for name, one in run["candidates"].items()],
        )
    )
    if run["left out"]:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in run["left out"].items()) + ".\n")
    parts.append(
        "Two floors: *floor: serialize* serializes what a checkpoint changes with LangGraph's serializer and keeps it in the "
        "process; *floor: one SET* compresses that with LZ4 too and sends it with one SET, or reads it with one GET. Neither "
        "keeps a history.\n\n"
        "All savers serialize with LangGraph's `JsonPlusSerializer`, except langgraph-checkpoint-redis, which brings its own. "
        "This package and the floor compress with LZ4, the others not at all. Servers are reached over TCP on the loopback "
        "interface, one server for each candidate.\n"
    )
    parts.append(", ".join(f"{name} {version}" for name, version in run["versions"].items()) + ".\n")
    return parts


def _sections(sections: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    if chat := sections.get("long chat"):
        parts += ["## A chat of 500 messages\n", "![Redis memory](benchmarks/memory.svg)\n"]
        marks = list(next(iter(chat["memory"].values())))
        parts.append("Redis memory, with the whole history:\n")
        parts.append(
            table(
                ["messages", *map(str, marks), "sum of MEMORY USAGE"],
                [
                    (name, *(size(each[mark]) for mark in marks), size(chat["key memory"][name]))
                    for name, each in chat["memory"].items()
                ],
            )
        )
        parts += ["Writing (the last 50 messages):\n", latencies(chat["put at 500"])]
        parts += ["![latency](benchmarks/latency.svg)\n", "Reading:\n", latencies(chat["reads"])]
        if "checkpoint-redis" in chat["reads"]["list page"]:
            parts.append("langgraph-checkpoint-redis lists messages as plain dicts and revives none of them; the others do.\n")
        parts.append("Traffic of one call, at 500 messages (sent / received / round trips):\n")
        parts.append(traffic_table(chat["traffic"]))
        parts += ["## A chat of 100 messages\n", "The same chat, on the way; written: its messages 71 to 100.\n"]
        parts.append(latencies(chat["at 100"]))
    if short := sections.get("short chats"):
        parts += ["## A chat of 10 messages\n", latencies(short)]
    if steps := sections.get("steps"):
        parts += _steps(steps)
    if very := sections.get("very long chat"):
        parts += [f"## A chat of {very['length']:,} messages\n", latencies({k: v for k, v in very.items() if k != "length"})]
    if growth := sections.get("growth"):
        parts += ["## Growth with the history\n", "![growth](benchmarks/growth.svg)\n"]
        for kind, what in (("chat", "a chat, a message a checkpoint"), ("constant", "a state of constant size")):
            marks = sorted({int(mark) for each in growth[kind].values() for mark in each})
            parts.append(f"Redis memory of {what} (a candidate that takes too long or too much is stopped):\n")
            parts.append(
                table(
                    ["checkpoints", *(f"{mark:,}" for mark in marks), "exponent"],
                    [
                        (
                            name,
                            *(size(_at(each, mark)) if _at(each, mark) else "" for mark in marks),
                            f"{exponent([(int(x), y) for x, y in each.items()]):.2f}" if len(each) > 1 else "",
                        )
                        for name, each in growth[kind].items()
                    ],
                )
            )
    if costs := sections.get("cost growth"):
        parts += ["## What calls cost, by the size of the thread\n", "![costs](benchmarks/costs.svg)\n"]
        parts.append("Medians, in ms, with a small state; a prune removes half of the checkpoints:\n")
        parts.append(_by_size(costs, "checkpoints", "{:.3g}".format))
    if states := sections.get("states"):
        titles = {
            "agent": "A tool agent: ten channels, every fourth step 20 tasks at once, each with a subgraph",
            "deep agent": "Deep-agent state: 200 files, one edited per step",
            "document": "A document of 5 MB that does not change",
            "window": "A sliding window of 50 messages",
        }
        for workload, title in titles.items():
            one = states[workload]
            calls = {call: one[call] for call in ("put", "put in a subgraph", "put_writes", "get_tuple") if call in one}
            parts += [f"## {title}\n", f"{one['steps']} steps.\n", latencies(calls)]
            parts.append(
                table(
                    ["Redis memory", "in all", "each step", "sum of MEMORY USAGE", "steps"],
                    [
                        (
                            name,
                            size(one["memory"][name]),
                            size(one["memory each"][name]),
                            size(one["key memory"][name]),
                            one["stopped"].get(name, one["steps"]),
                        )
                        for name in one["memory"]
                    ],
                )
            )
            parts.append("What this package takes, by what it is:\n")
            own = [(part, f"{each['count']:,}", size(each["bytes"])) for part, each in one["parts"].items()]
            parts.append(table(["", "how many", "bytes"], sorted(own)))
            parts.append(f"After the first step it took {size(one['first memory'][OURS])} in all.\n")
            parts += ["Traffic of one call in a further step (sent / received / round trips):\n", traffic_table(one["traffic"])]
    if runs := sections.get("graph runs"):
        parts += ["## Whole runs of a graph\n", "*without*: no checkpointer at all.\n", latencies(runs)]
    if concurrent := sections.get("concurrent"):
        parts.append(f"## {concurrent['threads']} threads at once, on one event loop\n")
        rates = sorted(concurrent["calls a second"].items(), key=lambda rate: -rate[1])
        waits = concurrent["a call"]
        parts.append(
            f"Of {next(iter(waits.values()))['samples']:,} calls of each: what the caller waits, and the CPU time of this "
            "process and of the Redis server.\n"
        )
        parts.append(
            table(
                ["", "calls a second", "ms: median", "p99", "CPU", "CPU of the server"],
                [
                    (
                        name,
                        f"{rate:,.0f}",
                        *(f"{waits[name][each]:.3g}" for each in ("median_ms", "p99_ms", "cpu_ms")),
                        f"{concurrent['server CPU ms'][name]:.3g}" if name in concurrent["server CPU ms"] else "",
                    )
                    for name, rate in rates
                ],
            )
        )
    if stalls := sections.get("stalls"):
        parts += ["## How long the event loop stands still\n", "Medians, in ms, with states of about 10 MB:\n"]
        names = _names(stalls.values())
        parts.append(
            table(
                ["", *stalls],
                [(name, *(f"{each[name]:.1f}" if name in each else "" for each in stalls.values())) for name in names],
            )
        )
    if pending := sections.get("pending write"):
        parts.append(f"## A pending write of {pending['serialized']} bytes\n")
        parts.append(table(["", "bytes in Redis"], [(name, f"{each:.0f}") for name, each in pending["bytes"].items()]))
    parts += _threads_and_tasks(sections)
    if history := sections.get("long history"):
        parts.append(f"## A thread of {history['checkpoints']:,} checkpoints\n")
        put = history["put"]
        parts.append(
            f"A put there takes {put['long']['median_ms']:.3g} ms, in a thread of 100 {put['short']['median_ms']:.3g} ms. "
            "The longest time, in ms, that one command, script or not, holds the server:\n"
        )
        longest = history["longest command ms"]
        works = next(iter(longest.values()))
        parts.append(table(["", *longest], [(what, *(f"{each[what]:.2f}" for each in longest.values())) for what in works]))
        parts.append(
            f"The {REBUILT} is the next read's or write's, after the server evicted it: one script goes through the names of "
            "all fields. It does not count for the target.\n"
        )
    if imports := sections.get("imports"):
        parts.append("## Import\n")
        parts.append(table(["after langgraph.checkpoint", "ms"], [(name, f"{each:.0f}") for name, each in imports.items()]))
    if profiles := sections.get("profiles"):
        parts += [
            "## Where the time of this package goes\n",
            "By the profiler, which makes small functions look slower than they are.\n",
        ]
        for what, one in profiles.items():
            shares = ", ".join(f"{package} {share:.0f} %" for package, share in one["packages"].items() if share >= 0.5)
            parts.append(
                f"{what}: {one['profiled ms']:.2f} ms profiled; a script takes the server {one['script ms']:.3f} ms. "
                f"Whose own time: {shares}.\n"
            )
            parts.append(
                table(
                    ["function", "calls", "own time"],
                    [(f"`{row['function']}`", f"{row['calls']:.4g}", f"{row['percent']:.1f} %") for row in one["functions"]],
                )
            )
    return parts


def _steps(steps: Mapping[str, Any]) -> list[str]:
    """put and put_writes of one step, and the server's part."""
    lengths = [length for length in steps if length.isdigit()]
    parts = [
        "## One step of a chat: put and put_writes\n",
        "The median of the sum, and of the server's CPU time (its main thread):\n",
    ]
    names = _names(steps[length]["step ms"] for length in lengths)

    def cell(name: str, length: str) -> str:
        served = steps[length]["server ms"].get(name)
        return f"**{steps[length]['step ms'][name]:.3g}**" + (f" / {served:.3g}" if served is not None else "")

    head = ["ms: step / server", *(f"{length} messages" for length in lengths)]
    parts.append(table(head, [(name, *(cell(name, length) for length in lengths)) for name in names]))
    taken = ", ".join(f"`{script}` {us:.0f} µs" for script, us in steps["scripts us"].items())
    parts.append(f"The scripts of this package with a chat of 10, by the server's clock, of many in a row: {taken}.\n")
    return parts


def _by_size(sizes: Mapping[str, Mapping[str, float]], what: str, form: Callable[[float], str]) -> str:
    """A row for each kind of cost, a column for each size, and the exponent of its growth."""
    kinds = list(next(iter(sizes.values())))
    rows = []
    for kind in kinds:
        points = [(int(size_), each[kind]) for size_, each in sizes.items()]
        rows.append((kind, *(form(y) for _, y in points), f"{exponent(points):.2f}" if len(points) > 1 else ""))
    return table([what, *(f"{int(size_):,}" for size_ in sizes), "exponent"], rows)


def _threads_and_tasks(sections: Mapping[str, Any]) -> list[str]:
    """Threads of few messages, pending writes of many tasks, many threads."""
    parts: list[str] = []
    if small := sections.get("small threads"):
        lengths = list(next(iter(small["memory"].values())))
        parts += ["## Threads of few messages\n", "Redis memory of a thread with its whole history:\n"]
        rows = [(name, *(size(each[length]) for length in lengths)) for name, each in small["memory"].items()]
        parts.append(table(["messages", *lengths], rows))
    if tasks := sections.get("fan-out"):
        parts += ["## Pending writes of many tasks at one checkpoint\n", "Each writes 120 bytes:\n"]
        rows = [
            (
                f"{int(count):,}",
                *(f"{each[kind]:.0f} B" for kind in ("stored", "replicated", "memory")),
                f"{each['median_ms']:.3f}",
            )
            for count, each in tasks.items()
        ]
        parts.append(table(["tasks", "stored, each", "replicated", "memory", "a call, ms"], rows))
    if threads := sections.get("threads"):
        parts += [
            "## Many threads\n",
            "Of a run of `python -m benchmarks.threads`, which wrote [threads.md](benchmarks/threads.md). Medians, in ms:\n",
            _by_size({count: each["ms"] for count, each in threads.items()}, "threads", "{:.3g}".format),
        ]
    return parts


def _at(points: Mapping[Any, float], mark: int) -> float | None:
    return points.get(mark, points.get(str(mark)))


def plots(sections: Mapping[str, Any], folder: Path) -> None:
    """memory.svg, growth.svg, latency.svg, costs.svg"""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    import matplotlib.pyplot as plt

    def colour(name: str) -> str | None:
        return COLOURS.get(name)

    def save(figure: Any, name: str) -> None:
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)

    def lines(axes: Any, points: Mapping[str, Mapping[Any, float]], title: str) -> None:
        for name, each in points.items():
            axes.plot([int(x) for x in each], [y / 1e6 for y in each.values()], marker="o", label=name, color=colour(name))
        axes.set(xscale="log", yscale="log", xlabel="checkpoints", ylabel="MB in Redis", title=title)
        axes.grid(alpha=0.3)
        axes.legend()

    if chat := sections.get("long chat"):
        figure, axes = plt.subplots(figsize=(6, 4))
        lines(axes, chat["memory"], "a chat with its whole history")
        save(figure, "memory")
        calls = {
            "put": chat["put at 500"]["put"],
            "get_tuple": chat["reads"]["get_tuple latest"],
            "history of 100": chat["reads"]["get_state_history of 100"],
        }
        figure, all_axes = plt.subplots(1, len(calls), figsize=(11, 3.5))
        for axes, (call, each) in zip(all_axes, calls.items(), strict=True):
            names = list(_names([each]))[::-1]
            axes.barh(names, [each[name]["median_ms"] for name in names], color=[colour(name) or "#7f8c8d" for name in names])
            axes.set(title=f"{call}, chat of 500", xlabel="ms, median")
        save(figure, "latency")
    if growth := sections.get("growth"):
        figure, both = plt.subplots(1, 2, figsize=(11, 4))
        lines(both[0], growth["chat"], "a chat")
        lines(both[1], growth["constant"], "a state of constant size")
        save(figure, "growth")
    if costs := sections.get("cost growth"):
        figure, axes = plt.subplots(figsize=(6, 4))
        for kind in next(iter(costs.values())):
            axes.plot([int(each) for each in costs], [each[kind] for each in costs.values()], marker="o", label=kind)
        axes.set(xscale="log", yscale="log", xlabel="checkpoints of the thread", ylabel="ms, median", title="what calls cost")
        axes.grid(alpha=0.3)
        axes.legend()
        save(figure, "costs")


def write(run: Mapping[str, Any], page: Path) -> None:
    """The page, and beside it a folder of its name with JSON and plots."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(run, indent=1) + "\n")
    plots(run["sections"], folder)
    page.write_text(markdown(run))
