"""The graph: a passenger desk that reads a letter, weighs the claims in it, and asks a person before it pays.

    START ─► open_letter ─► examine (one `Send` for each paragraph) ─► assess ─┬─► approve ─┬─► settle ─► END
                            │ a subgraph: read ─► tools ─► conclude            └─► draft ───┘
                            └ with a checkpoint namespace of its own
    START ─► clerk ◄─► tools          the conversation once the case is settled

`approve` interrupts. `draft` runs in the same step, so when the process dies at the interrupt its result exists only
as a pending write. The model is made of rules, so that a run costs nothing and always ends the same; the messages, the
tool calls and the graph are LangGraph's own. Every node and every tool signs the journal before it does anything: the
journal is how the demo knows what ran, and in which process.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

from demo import papers
from demo.tools import CLERK_TOOLS, EXAMINE_TOOLS

ADULTS = 2
NEEDS_APPROVAL = Decimal("200.00")


class Finding(TypedDict):
    """What the subgraph found in one paragraph. Paragraph 0 is a paper that came after the letter."""

    paragraph: int
    condition: int | None
    amounts: list[Decimal]
    dates: list[str]
    minutes_late: int | None
    text: str


class Item(TypedDict):
    """One claim, and what the conditions say it is worth."""

    condition: int
    claimed: Decimal
    granted: Decimal
    why: str


class Decision(TypedDict):
    """The answer of the officer in charge: what resumes the graph."""

    officer: str
    strike: list[int]
    note: str


class Outcome(TypedDict):
    paid: Decimal
    items: list[Item]


class DeskState(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    findings: Annotated[list[Finding], operator.add]
    proposal: list[Item]
    draft: str
    decision: Decision
    outcome: Outcome


class ExamineState(TypedDict, total=False):
    paragraph: int
    text: str
    messages: Annotated[list[AnyMessage], add_messages]
    findings: list[Finding]


class Examined(TypedDict):
    """What leaves the subgraph; its messages stay inside."""

    findings: list[Finding]


@dataclass
class DeskContext:
    journal: Path


Desk = CompiledStateGraph[DeskState, DeskContext, DeskState, DeskState]


def _sign(context: DeskContext, what: str) -> None:
    """Leave a line in the journal: this process runs `what` now. One short append, so that lines never mix."""
    with context.journal.open("a", encoding="utf-8") as journal:
        journal.write(f"{os.getpid()} {what}\n")


def _sign_tool(request: ToolCallRequest, run: Callable[[ToolCallRequest], ToolMessage | Command[Any]]) -> Any:
    _sign(cast(DeskContext, request.runtime.context), f"tool {request.tool_call['id']}")
    return run(request)


def _asks(tool_name: str, call_id: str, **arguments: str) -> dict[str, Any]:
    return {"name": tool_name, "args": arguments, "id": call_id, "type": "tool_call"}


def _answers(messages: Sequence[AnyMessage]) -> dict[str, Any]:
    """What the tools of the latest round said, by tool name."""
    answers: dict[str, Any] = {}
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        answers[str(message.name)] = json.loads(str(message.content))
    return answers


def _wants_tools(state: DeskState | ExamineState) -> bool:
    latest = state["messages"][-1]
    return isinstance(latest, AIMessage) and bool(latest.tool_calls)


# ---- the subgraph: one paragraph ------------------------------------------------------------------------------------


def _read(state: ExamineState, runtime: Runtime[DeskContext]) -> ExamineState:
    """The model looks at the paragraph and decides which tools it needs."""
    number, text = state["paragraph"], state["text"]
    _sign(runtime.context, f"read {number}")
    cues = {"find_amounts": " EUR", "find_dates": " 2025", "find_delay": " late"}
    wanted = [name for name, cue in cues.items() if cue in text]
    if wanted:
        wanted.append("find_condition")
    calls = [_asks(name, f"{name}-{number}", text=text) for name in wanted]
    return {"messages": [AIMessage(f"Paragraph {number}: {len(calls)} tools to ask.", tool_calls=calls)]}


def _conclude(state: ExamineState, runtime: Runtime[DeskContext]) -> ExamineState:
    _sign(runtime.context, f"conclude {state['paragraph']}")
    said = _answers(state["messages"])
    finding = Finding(
        paragraph=state["paragraph"],
        condition=said.get("find_condition"),
        amounts=[Decimal(amount) for amount in said.get("find_amounts", [])],
        dates=said.get("find_dates", []),
        minutes_late=said.get("find_delay"),
        text=state["text"],
    )
    return {"findings": [finding]}


def _examiner() -> CompiledStateGraph[ExamineState, DeskContext, ExamineState, Examined]:
    graph = StateGraph(ExamineState, context_schema=DeskContext, output_schema=Examined)
    graph.add_node("read", _read)
    graph.add_node("tools", ToolNode(EXAMINE_TOOLS, wrap_tool_call=_sign_tool))
    graph.add_node("conclude", _conclude)
    graph.add_edge(START, "read")
    graph.add_conditional_edges("read", lambda s: "tools" if _wants_tools(s) else "conclude", ["tools", "conclude"])
    graph.add_edge("tools", "conclude")
    return graph.compile()


# ---- the case -------------------------------------------------------------------------------------------------------


def _open_letter(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    _sign(runtime.context, "open_letter")
    count = len(papers.paragraphs(state["messages"][-1].text))
    return {"messages": [AIMessage(f"A letter of {count} paragraphs. I read them side by side.")]}


def _fan_out(state: DeskState) -> list[Send]:
    letter = next(message.text for message in state["messages"] if isinstance(message, HumanMessage))
    return [Send("examine", {"paragraph": number, "text": text}) for number, text in enumerate(papers.paragraphs(letter), 1)]


def _weigh(findings: Sequence[Finding]) -> list[Item]:
    """The conditions of carriage, as rules: one item for each claim."""
    fare = next((found["amounts"][0] for found in findings if "a fare of" in found["text"]), Decimal(0))
    late = max((found["minutes_late"] or 0 for found in findings), default=0)
    share = Decimal("0.50") if late >= 300 else Decimal("0.25") if late >= 180 else Decimal(0)
    invoices = [found for found in findings if found["condition"] == 5 and "invoice 1127" in found["text"]]
    items = []
    for found in findings:
        condition, claimed = found["condition"], sum(found["amounts"], Decimal(0))
        if found["paragraph"] == 0:
            continue  # a later paper supports a claim, it does not make one
        if condition == 2:
            granted, why = (fare * share).quantize(Decimal("0.01")), f"{late} min late: {share:.0%} of the fare"
            claimed = fare
        elif condition == 3:
            granted, why = claimed, "the cabin could not be used"
        elif condition == 4:
            granted, why = min(claimed, ADULTS * Decimal("15.00")), "with receipts, below the limit"
        elif condition == 5:
            basis = invoices[0]["amounts"][0] if invoices else claimed
            granted, why = basis - Decimal("100.00"), f"{'invoice' if invoices else 'estimate'} less the excess"
        elif condition == 6:
            granted, why = min(claimed, Decimal("80.00")), "one night, at most 80.00"
        elif condition == 7:
            granted, why = Decimal("0.00"), "a further loss"
        else:
            continue
        items.append(Item(condition=condition, claimed=claimed, granted=granted, why=why))
    return items


def total(items: Sequence[Item]) -> Decimal:
    return sum((item["granted"] for item in items), Decimal(0))


def _assess(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    _sign(runtime.context, "assess")
    items = _weigh(state["findings"])
    said = f"{len(items)} claims. By our conditions they are worth {total(items)} EUR."
    return {"proposal": items, "messages": [AIMessage(said)]}


def _draft(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    """Writes the frame of the answer while the officer thinks."""
    _sign(runtime.context, "draft")
    praise = next((found["text"] for found in state["findings"] if "praise" in found["text"]), "")
    thanks = f"We shall read this out at the next muster: “{papers.sentence('stewardess', praise)}”" if praise else ""
    return {"draft": f"Dear Mrs Aldous, thank you for your letter of 2 April 2025. {thanks}".strip()}


def _approve(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    """Asks a person. LangGraph runs this node from its first line again when the answer comes."""
    _sign(runtime.context, "approve")
    items = state["proposal"]
    if total(items) <= NEEDS_APPROVAL:
        return {"decision": Decision(officer="the desk", strike=[], note="below the limit of condition 9")}
    decision = interrupt({"question": f"May we pay {total(items)} EUR?", "total": str(total(items)), "items": items})
    return {"decision": cast(Decision, decision)}


def _settle(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    _sign(runtime.context, "settle")
    decision = state["decision"]
    items = [item for item in state["proposal"] if item["condition"] not in decision["strike"] and item["granted"]]
    lines = [f"{item['granted']} EUR under condition {item['condition']} ({item['why']})" for item in items]
    said = f"{state['draft']} We pay {total(items)} EUR: {'; '.join(lines)}. {decision['note']}".strip()
    return {"outcome": Outcome(paid=total(items), items=items), "messages": [AIMessage(said)]}


# ---- the conversation afterwards ------------------------------------------------------------------------------------


def _clerk(state: DeskState, runtime: Runtime[DeskContext]) -> DeskState:
    """The model of the conversation: asks a tool for passages, then answers with the sentence that fits."""
    messages = state["messages"]
    turn = sum(isinstance(message, HumanMessage) for message in messages)
    question = next(message.text for message in reversed(messages) if isinstance(message, HumanMessage))
    said = _answers(messages)
    _sign(runtime.context, f"clerk {turn}{'b' if said else 'a'}")
    if not said:
        tool_name = "read_ruling" if "in the end" in question else "search_papers"
        arguments = {} if tool_name == "read_ruling" else {"query": question}
        return {"messages": [AIMessage("", tool_calls=[_asks(tool_name, f"{tool_name}-{turn}", **arguments)])]}
    if "read_ruling" in said:
        ruling = said["read_ruling"]
        answer = f"{ruling['officer']} approved it; {ruling['paid']} EUR were paid. {ruling['note']}".strip()
    elif said["search_papers"]:
        best = said["search_papers"][0]
        answer = f"{papers.sentence(question, best['text'])} ({best['source']})"
    else:
        answer = "The papers do not say."
    return {"messages": [AIMessage(answer)]}


def _first_node(state: DeskState) -> str:
    return "clerk" if state.get("outcome") else "open_letter"


def build(checkpointer: BaseCheckpointSaver[Any]) -> Desk:
    """The whole desk, on a checkpointer."""
    graph = StateGraph(DeskState, context_schema=DeskContext)
    graph.add_node("open_letter", _open_letter)
    graph.add_node("examine", _examiner())
    graph.add_node("assess", _assess)
    graph.add_node("draft", _draft)
    graph.add_node("approve", _approve)
    graph.add_node("settle", _settle)
    graph.add_node("clerk", _clerk)
    graph.add_node("tools", ToolNode(CLERK_TOOLS, wrap_tool_call=_sign_tool))

    graph.add_conditional_edges(START, _first_node, ["clerk", "open_letter"])
    graph.add_conditional_edges("open_letter", _fan_out, ["examine"])
    graph.add_edge("examine", "assess")
    graph.add_edge("assess", "approve")
    graph.add_edge("assess", "draft")
    graph.add_edge(["approve", "draft"], "settle")
    graph.add_edge("settle", END)
    graph.add_conditional_edges("clerk", lambda s: "tools" if _wants_tools(s) else END, ["tools", END])
    graph.add_edge("tools", "clerk")
    return graph.compile(checkpointer=checkpointer)
