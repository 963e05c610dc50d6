"""How the demo looks. Nothing here decides anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.types import StateSnapshot
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from demo.cost import Count
from demo.desk import Outcome

_SHOWN_TURNS = 2


def open_console() -> Console:
    """A console as wide as the terminal, at most 100; 100 where there is none. Never stumbles over an encoding."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(highlight=False, width=100)
    return Console(highlight=False, width=min(console.width, 100))


def _id(snapshot: StateSnapshot) -> str:
    return str(snapshot.config["configurable"]["checkpoint_id"])


def _parent(snapshot: StateSnapshot) -> str | None:
    return snapshot.parent_config["configurable"]["checkpoint_id"] if snapshot.parent_config else None


def act(number: int, title: str, says: str) -> RenderableType:
    return Group("", Rule(f"[bold]{number}. {escape(title)}", align="left", style="cyan"), Text(says, style="dim"), "")


def look_inside(program: str, words: str, thread: str) -> RenderableType:
    """Which commands show the thread of the demo, and which page. Whole lines, to be copied."""
    history, page = (words.replace(f"why {thread}", each) for each in (f"history {thread}", "serve"))
    lines = [f"{program} {each}" for each in (words, history, page)]
    told = (Text(f"  {each}", overflow="fold") for each in lines)
    return Group("", Text("Look inside of this very thread:"), *told, Text(f"  and open /thread?id={thread} on that page"))


def letter(text: str) -> RenderableType:
    return Panel(Text(text), title="paragraph 2 of 9", title_align="left", border_style="dim", padding=(0, 2))


def step(pid: int, node: str, words: str) -> RenderableType:
    style = "yellow" if node == "__interrupt__" else "green" if "not run again" in words else "default"
    line = Table.grid(padding=(0, 1))
    line.add_column(style="dim", no_wrap=True)
    line.add_column(style="bold", width=11, no_wrap=True)
    line.add_column(style=style)
    line.add_row(f"process {pid}", "interrupt" if node == "__interrupt__" else node, Text(words))
    return line


def question(asked: Mapping[str, Any]) -> RenderableType:
    """What the interrupt puts before a person, as the parent reads it from Redis."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("under")
    table.add_column("claimed", justify="right")
    table.add_column("proposed", justify="right")
    table.add_column("because", style="dim")
    for item in asked["items"]:
        table.add_row(f"condition {item['condition']}", f"{item['claimed']} EUR", f"{item['granted']} EUR", Text(item["why"]))
    return Panel(table, title=asked["question"], title_align="left", border_style="yellow")


def note(words: str, style: str = "default") -> RenderableType:
    return Padding(Text(words, style=style), (1, 0, 0, 0))


def turns(said: Sequence[tuple[str, str]], pid: int) -> RenderableType:
    talk = Table.grid(padding=(0, 1))
    talk.add_column(style="bold", no_wrap=True)
    talk.add_column()
    for question, answer in (*said[:_SHOWN_TURNS], *said[-1:]):
        if question == said[-1][0]:
            talk.add_row("", Text(f"(… {len(said) - _SHOWN_TURNS - 1} more questions …)", style="dim"))
        talk.add_row("asks", Text(question))
        talk.add_row("says", Text(answer, style="cyan"))
    return Panel(talk, title=f"the conversation, process {pid}", title_align="left", border_style="dim")


def _label(snapshot: StateSnapshot, parent: StateSnapshot | None) -> Text:
    metadata = snapshot.metadata or {}
    if metadata.get("source") == "input":
        words, style = "a letter comes in", "default"
    elif metadata.get("source") == "update":
        words, style = "update_state: the invoice is put on file", "magenta"
    else:
        ran = sorted(set(parent.next)) if parent else []
        words, style = " + ".join(ran), "default"
        if parent and len(parent.next) > len(ran):
            words += f" ×{len(parent.next)}"
    label = Text(f"{_id(snapshot)[-8:]}  ", style="dim")
    label.append(f"step {metadata.get('step', '?'):>2}  ", style="dim")
    label.append("read the input" if words == "__start__" else words, style=style)
    if snapshot.interrupts:
        label.append(f"  ◀ {snapshot.interrupts[0].value['question']}", style="yellow")
    if snapshot.values.get("outcome") and not snapshot.next:
        label.append(f"  {snapshot.values['outcome']['paid']} EUR paid", style="bold green")
    return label


def _lines(path: Sequence[StateSnapshot], by_id: dict[str, StateSnapshot]) -> Iterator[Text]:
    """One line for each checkpoint of the case, and one for each turn of the conversation after it."""
    turn: list[StateSnapshot] = []
    told: list[Text] = []
    for place, snapshot in enumerate(path):
        settled = bool(snapshot.values.get("outcome"))
        begins = (snapshot.metadata or {}).get("source") == "input"
        if not turn and not (settled and begins):
            yield _label(snapshot, by_id.get(_parent(snapshot) or ""))
            continue
        turn.append(snapshot)
        last = place + 1 == len(path)
        if last or (path[place + 1].metadata or {}).get("source") == "input":
            question = next(m for m in reversed(snapshot.values["messages"]) if isinstance(m, HumanMessage))
            line = Text(f"{_id(snapshot)[-8:]}  ", style="dim")
            told.append(line.append(f"{len(turn)} checkpoints  ").append(question.text, style="cyan"))
            turn = []
    yield from told[:_SHOWN_TURNS]
    if len(told) > _SHOWN_TURNS + 1:
        yield Text(f"          (… {len(told) - _SHOWN_TURNS - 1} more turns …)", style="dim")
    yield from told[_SHOWN_TURNS:][-1:]


def history(snapshots: Sequence[StateSnapshot], thread: str) -> RenderableType:
    """The history of a thread as a tree: the trunk, then a branch for each child of the checkpoint that forks."""
    by_id = {_id(snapshot): snapshot for snapshot in snapshots}
    children: dict[str | None, list[StateSnapshot]] = {}
    for snapshot in reversed(snapshots):  # oldest first
        children.setdefault(_parent(snapshot), []).append(snapshot)

    def straight(start: StateSnapshot) -> list[StateSnapshot]:
        path = [start]
        while len(following := children.get(_id(path[-1]), [])) == 1:
            path.append(following[0])
        return path

    tree = Tree(f"[bold]thread {escape(thread)}[/]  {len(snapshots)} checkpoints", guide_style="dim")
    trunk = straight(children[None][0])
    for line in _lines(trunk, by_id):
        tree.add(line)
    for number, first in enumerate(children.get(_id(trunk[-1]), []), 1):
        branch = tree.add(Text(f"branch {number}", style="bold"))
        for line in _lines(straight(first), by_id):
            branch.add(line)
    return tree


def outcomes(first: Outcome, second: Outcome) -> RenderableType:
    table = Table(title="one letter, two outcomes, one thread", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("under")
    table.add_column("branch 1: estimate only", justify="right")
    table.add_column("branch 2: with the invoice", justify="right")
    paid = [{item["condition"]: item["granted"] for item in outcome["items"]} for outcome in (first, second)]
    for condition in sorted(paid[0].keys() | paid[1].keys()):
        row = [f"{branch.get(condition, Decimal('0.00'))} EUR" for branch in paid]
        table.add_row(f"condition {condition}", *row, style="default" if row[0] == row[1] else "bold magenta")
    table.add_row("paid", f"{first['paid']} EUR", f"{second['paid']} EUR", style="bold green")
    return table


def _kib(size: float) -> str:
    return f"{size / 1024:,.1f} KiB"


def costs(counted: Count, redis: int, keys: int, memory: int, state: int) -> RenderableType:
    table = Table(title="what the history costs", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("bytes", justify="right")
    table.add_column("per checkpoint", justify="right")
    table.add_column("how it was measured", style="dim")
    each = counted.checkpoints
    table.add_row(
        "RedisSaver",
        _kib(redis),
        _kib(redis / each),
        f"MEMORY USAGE of the thread's {keys} keys, all of the server's overhead included",
        style="bold",
    )
    table.add_row(
        "InMemorySaver",
        _kib(memory),
        _kib(memory / each),
        "the same run; lengths of its serialized values alone",
    )
    table.add_row("the messages, once", _kib(state), "", "the messages of the longest state, serialized")
    return Group(
        f"{counted.checkpoints} checkpoints ({counted.root} of the graph, {counted.subgraphs} of its subgraphs) "
        f"and {counted.writes} pending writes.",
        "",
        table,
        "",
        Text(f"{memory / redis:.1f} times smaller, with every step still there.", style="bold green"),
    )


def claims(held: Sequence[str]) -> RenderableType:
    lines = Table.grid(padding=(0, 1))
    for words in held:
        lines.add_row(Text("✓", style="green"), Text(words))
    return Panel(lines, title="what was checked", title_align="left", border_style="green")


def failed(words: str) -> RenderableType:
    return Panel(Text(words), title="this should not have happened", title_align="left", border_style="red")
