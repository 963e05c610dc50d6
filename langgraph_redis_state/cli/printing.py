"""Tables, conversations and trees as text for a terminal or a pipe. Everything that comes from a value is cleaned first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..inspection.chat import Message, ToolCall
from ..inspection.diagnosis import Diagnosis, Task
from ..inspection.values import clean, line, preview

STATUS_STYLES = {
    "asks": "yellow",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
    "running": "cyan",
    "done": "green",
    "nothing stored": "dim",
    "answered": "cyan",
    "finished": "green",
}

ROLE_STYLES = {"user": "cyan", "assistant": "green", "tool": "magenta", "system": "dim"}


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Rows under headings. A column is (heading, how): "" | "right" | "whole", which is never shortened."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    made.show_header = any(heading for heading, _ in columns)
    for heading, how in columns:
        made.add_column(
            Text(heading),
            justify="right" if how == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        made.add_row(*(each if isinstance(each, Text) else Text(line(each)) for each in row))
    return made


def status(text: str) -> Text:
    return Text(text, style=STATUS_STYLES.get(text, ""))


def moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")


def paragraph(text: str, indent: int = 0, style: str = "") -> Padding:
    return Padding(Text(clean(text), style=style, overflow="fold"), (0, 0, 0, indent))


def task_line(task: Task, mask: bool) -> Group:
    """A task of an open step, with its question or error."""
    about = Text.assemble((line(task.node), "bold"), "  ", status(task.state))
    if task.channels:
        about.append(f"  wrote {', '.join(map(line, task.channels))}", style="dim")
    parts: list[Padding] = [Padding(about, (0, 0, 0, 2))]
    for question in task.questions if task.state in ("asks", "answered") else ():
        parts.append(paragraph(preview(question.value, 2000, mask=mask), 4, "yellow"))
    if task.state == "failed":
        parts.append(paragraph(preview(task.error, 2000, mask=mask), 4, "red"))
    return Group(*parts)


def diagnosis(found: Diagnosis, mask: bool) -> Group:
    parts: list[Group | Text | Padding] = [
        Padding(Text.assemble(status(found.status), "  ", clean(found.sentence)), (0, 0, 0, 0))
    ]
    if found.refused:
        parts.append(paragraph(f"refused: {found.refused}", 2, "red"))
    parts += [task_line(task, mask) for task in found.tasks]
    for ns, inner in found.inside.items():
        parts.append(Padding(Group(Text(f"in {line(ns)}:"), diagnosis(inner, mask)), (0, 0, 0, 4)))
    return Group(*parts)


def conversation(console: Console, messages: Iterable[Message]) -> None:
    """Messages as a chat, and beside each call of a tool what the tool answered."""
    for message in messages:
        head = Text(line(message.role or "?"), style=ROLE_STYLES.get(message.role, "bold"))
        for extra in (message.name, message.status if message.status == "error" else "", message.usage):
            if extra:
                head.append(f"  {line(extra)}", style="dim")
        console.print(head)
        if message.text:
            console.print(paragraph(message.text, 2))
        for call in message.calls:
            console.print(tool_call(call))


def tool_call(call: ToolCall) -> Padding:
    asked = Text.assemble(("→ ", "magenta"), (line(call.name), "magenta"), f"({line(call.arguments)})", overflow="fold")
    if call.result is None:
        return Padding(Group(asked, Text("  ← no answer", style="yellow")), (0, 0, 0, 2))
    mark = "  ← failed: " if call.result.status == "error" else "  ← "
    return Padding(Group(asked, Text(mark + clean(call.result.text), overflow="fold")), (0, 0, 0, 2))
