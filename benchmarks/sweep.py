"""`python -m benchmarks.sweep`: chooses the parameters of `chunks.py` by what they store, on data they were not chosen on too.

For each setting it replays histories the way `put` stores them: every channel serialized, cut, its new chunks compressed and
its reference list cut into pages; what is counted is new chunks, new pages and the references that stay in each record, with
what Redis adds for a field. No server: it is arithmetic on bytes.

The settings are ranked by the training workloads alone. The unseen data, text of a kind that no workload holds (the sources
of Python's standard library and JSON made of them), then says whether the choice carries over. The last tables have what the
same chunks take with each compression, and without the built-in dictionary of LZ4.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_redis_state.storage import chunks, codec
from langgraph_redis_state.storage.bodies import INLINE_MAX
from langgraph_redis_state.storage.codec import CompressionType, digest, pack
from langgraph_redis_state.storage.records import References

from .report import size, table
from .workloads import Prose, agent, chat, deep_agent, window

FIELD = 17 + 40
"""What a chunk or page takes in Redis besides its bytes: its name, and about what a hash table adds for an entry."""
PARAMETERS = ("CUT_FROM", "RUN_MIN", "RUN_MAX", "RUN_MASK", "PAGE_FROM", "PAGE_MIN", "PAGE_MAX", "PAGE_MASK")

History = list[dict[str, bytes]]
"""The serialized channels of each checkpoint; a channel that did not change is left out."""


def _history(states: Iterator[Any]) -> History:
    serde = JsonPlusSerializer()
    return [{name: serde.dumps_typed(state.values[name])[1] for name in state.changed} for state in states]


def training() -> dict[str, Callable[[], History]]:
    return {
        "chat of 300": lambda: _history(chat(300)),
        "agent": lambda: _history(agent(80)),
        "deep agent": lambda: _history(deep_agent(60)),
        "window": lambda: _history(window(120)),
    }


def _sources(count: int) -> list[tuple[str, str]]:
    """Real text that every Python has: the largest modules of its standard library below 100 KB."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted((path.stat().st_size, path.name, path) for path in folder.glob("*.py") if path.stat().st_size < 100_000)
    return [(name, path.read_text("utf-8", "replace")) for _, name, path in files[-count:]]


def unseen() -> dict[str, Callable[[], History]]:
    serde = JsonPlusSerializer()

    def documented() -> History:
        """A conversation about documentation: questions short, answers of any length, tool results as JSON."""
        messages: list[Any] = []
        steps: History = []
        for name, text in _sources(25):
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not (words := ast.get_docstring(node)):
                    continue
                at = len(messages)
                messages.append(HumanMessage(content=f"What is {node.name} in {name}?", id=f"q{at}"))
                messages.append(AIMessage(content=words, id=f"a{at}"))
                if at % 3 == 0:
                    found = json.dumps({"file": name, "line": node.lineno, "names": [each.arg for each in _arguments(node)]})
                    messages.append(ToolMessage(content=found, tool_call_id=f"t{at}", id=f"r{at}"))
                steps.append({"messages": serde.dumps_typed(list(messages))[1]})
                if len(steps) == 250:
                    return steps
        return steps

    def edited() -> History:
        """Source files in a dict, one of them growing or losing lines in each step."""
        files, prose = dict(_sources(60)), Prose(5)
        steps: History = []
        names = sorted(files)
        for _ in range(60):
            name = names[prose.number(0, len(names) - 1)]
            lines = files[name].splitlines()
            at = prose.number(0, len(lines) - 1)
            if prose.number(0, 1):
                lines[at:at] = [f"    # {prose.words(6)}"] * 3
            else:
                del lines[at : at + 5]
            files = {**files, name: "\n".join(lines)}
            steps.append({"files": serde.dumps_typed(files)[1]})
        return steps

    def rows() -> History:
        """A table of small rows: some change, some come, some go."""
        prose = Prose(6)
        table = [[number, prose.words(3), prose.number(0, 10**6), None] for number in range(3000)]
        steps: History = []
        for _ in range(60):
            for _ in range(5):
                table[prose.number(0, len(table) - 1)][2] = prose.number(0, 10**6)
            at = prose.number(0, len(table) - 1)
            table[at:at] = [[0, prose.words(3), 1, "new"]]
            del table[prose.number(0, len(table) - 1)]
            steps.append({"rows": serde.dumps_typed(table)[1]})
        return steps

    return {"documentation chat": documented, "source files": edited, "table rows": rows}


def _arguments(node: Any) -> list[ast.arg]:
    return node.args.args if isinstance(node, ast.FunctionDef) else []


def stored(history: History, setting: dict[str, int], compression: CompressionType = CompressionType.LZ4) -> int:
    """What the history takes with these parameters, in bytes."""
    for name, value in setting.items():
        setattr(chunks, name, value)
    seen: set[bytes] = set()
    held: dict[str, list[bytes]] = {}
    total = 0
    for channels in history:
        for name, blob in channels.items():
            held[name] = []
            if len(blob) <= INLINE_MAX:
                total += len(blob)
                continue
            segments, pieces = chunks.cut(blob, structured=True)
            total += sum(len(segment) for segment in segments if isinstance(segment, bytes))
            for piece in pieces:
                key = digest(piece)
                held[name].append(key)
                if key not in seen:
                    seen.add(key)
                    total += len(pack(piece, compression)) + FIELD
        references = References.of([key for digests in held.values() for key in digests])
        total += 16 * (len(references.order) + len(references.loose))
        for key, content in references.pages.items():
            if key not in seen:
                seen.add(key)
                total += len(content) + FIELD
    return total


def settings(current: dict[str, int], quick: bool) -> Iterator[dict[str, int]]:
    """First how values are cut, with pages as they are; then pages, with values cut as they are."""
    masks = (0, 1, 3) if not quick else (1,)
    for start, low, high, mask in itertools.product((512, 1024), (512, 1024, 1536, 2048, 4096), (4096, 8192, 16384), masks):
        if low < high:
            yield {**current, "CUT_FROM": start, "RUN_MIN": low, "RUN_MAX": high, "RUN_MASK": mask}
    for first, low, high, mask in itertools.product((16, 24, 48), (4, 8, 16), (32, 64, 128), (7, 15, 31)):
        if not quick or mask == 15:
            yield {**current, "PAGE_FROM": first, "PAGE_MIN": low, "PAGE_MAX": high, "PAGE_MASK": mask}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer settings")
    parser.add_argument("--top", type=int, default=12, help="how many settings to show")
    options = parser.parse_args()
    from rich.progress import track

    current = {name: int(getattr(chunks, name)) for name in PARAMETERS}
    trained = {name: make() for name, make in training().items()}
    checked = {name: make() for name, make in unseen().items()}
    base = {name: stored(history, current) for name, history in {**trained, **checked}.items()}

    def score(setting: dict[str, int], histories: dict[str, History]) -> tuple[float, dict[str, float]]:
        """The mean over workloads of what is stored, relative to the parameters in use: no workload outweighs another."""
        each = {name: stored(history, setting) / base[name] for name, history in histories.items()}
        return sum(each.values()) / len(each), each

    tried = list({tuple(setting.values()): setting for setting in [current, *settings(current, options.quick)]}.values())
    ranked = sorted(
        ((score(setting, trained), setting) for setting in track(tried, "training", transient=True)),
        key=lambda one: one[0][0],
    )
    shown = ranked[: options.top]
    if current not in [setting for _, setting in shown]:
        shown.append(next(one for one in ranked if one[1] == current))
    rows = []
    for (mean, each), setting in shown:
        other, unseen_each = score(setting, checked)
        rows.append(
            [
                " ".join(map(str, setting.values())) + (" (in use)" if setting == current else ""),
                f"{mean:.3f}",
                *(f"{value:.3f}" for value in each.values()),
                f"{other:.3f}",
                *(f"{value:.3f}" for value in unseen_each.values()),
            ]
        )
    for name, value in current.items():
        setattr(chunks, name, value)
    every = {**trained, **checked}
    others = {
        each.value: {name: stored(history, current, each) / base[name] for name, history in every.items()}
        for each in CompressionType
    }
    dictionary, codec.DICTIONARY = codec.DICTIONARY, b""
    without = {name: stored(history, current) / base[name] for name, history in {**trained, **checked}.items()}
    codec.DICTIONARY = dictionary
    print("Stored bytes with the parameters in use:\n")
    print(table(["", *base], [["stored", *(size(value) for value in base.values())]]))
    print(f"Relative to them, best on the training workloads first ({len(tried)} settings: {' '.join(PARAMETERS)}):\n")
    print(table(["setting", "training", *trained, "unseen", *checked], rows))
    print("With each compression, relative to LZ4:\n")
    print(table(["", *base], [[name, *(f"{value:.3f}" for value in each.values())] for name, each in others.items()]))
    print("Without the dictionary of LZ4, relative to them:\n")
    print(table(["", *without], [["stored", *(f"{value:.3f}" for value in without.values())]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
