"""The acts of the demo, on any checkpointer: the workers play them on Redis, `cost.py` plays them again in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from demo import papers
from demo.desk import Decision, Desk, DeskContext, Finding
from demo.tools import find_amounts, find_condition, find_dates

ESTIMATE_IS_NOT_ENOUGH = Decision(officer="Officer Tamm", strike=[5], note="For the car we wait for the invoice of the garage.")
INVOICE_IS_HERE = Decision(officer="Officer Tamm", strike=[], note="The invoice of the garage was enclosed.")


@dataclass(frozen=True)
class Step:
    """A node of the graph that has just finished, in words."""

    node: str
    words: str


def _in_words(node: str, update: Any) -> str:
    if node == "__interrupt__":
        return str(update[0].value["question"])
    if node == "examine":
        finding = update["findings"][0]
        found = [f"{amount} EUR" for amount in finding["amounts"]] + finding["dates"]
        if finding["minutes_late"]:
            found.append(f"{finding['minutes_late']} min late")
        return f"paragraph {finding['paragraph']}: {', '.join(found) or 'nothing to claim'}"
    if node == "draft":
        return "the frame of the answer, while the officer thinks"
    if node == "approve":
        return f"answer received: {update['decision']['note']}"
    if node == "settle":
        return f"{update['outcome']['paid']} EUR paid"
    return cast(str, update["messages"][-1].text)


def _run(desk: Desk, given: Any, config: RunnableConfig, context: DeskContext) -> Iterator[Step]:
    for chunk in desk.stream(given, config, context=context, stream_mode="updates"):
        updates = cast("dict[str, Any]", chunk)
        # LangGraph marks a result that it took from the pending writes instead of running the node again.
        kept = updates.pop("__metadata__", {}).get("cached", False)
        for node, update in updates.items():
            yield Step(node, "kept from before, not run again" if kept else _in_words(node, update))


def hand_in_letter(desk: Desk, config: RunnableConfig, context: DeskContext) -> Iterator[Step]:
    """Act 1: the letter arrives, and the graph runs until it wants to spend money."""
    return _run(desk, {"messages": [HumanMessage(papers.read("letter"))]}, config, context)


def decide(desk: Desk, config: RunnableConfig, context: DeskContext, decision: Decision) -> Iterator[Step]:
    """Act 2: a person has answered."""
    return _run(desk, Command(resume=decision), config, context)


def ask(desk: Desk, config: RunnableConfig, context: DeskContext, question: str) -> str:
    """Act 3, one turn: a colleague asks, the clerk looks it up and answers."""
    done = desk.invoke({"messages": [HumanMessage(question)]}, config, context=context)
    return cast(AIMessage, done["messages"][-1]).text


def before_assessment(desk: Desk, config: RunnableConfig) -> StateSnapshot:
    """The moment after the paragraphs were read and before they were weighed: where act 4 goes back to."""
    found = [snapshot for snapshot in desk.get_state_history(config) if snapshot.next == ("assess",)]
    return found[-1]


def put_invoice_on_file(desk: Desk, moment: StateSnapshot) -> RunnableConfig:
    """Act 4: forks the thread at an earlier moment, with a paper in the file that was not there then."""
    text = papers.read("invoice")
    finding = Finding(
        paragraph=0,
        condition=json.loads(find_condition.invoke({"text": text})),
        amounts=[Decimal(amount) for amount in json.loads(find_amounts.invoke({"text": text}))],
        dates=json.loads(find_dates.invoke({"text": text})),
        minutes_late=None,
        text=text,
    )
    return desk.update_state(moment.config, {"messages": [HumanMessage(text)], "findings": [finding]}, as_node="examine")


def carry_on(desk: Desk, config: RunnableConfig, context: DeskContext) -> Iterator[Step]:
    """Act 4, second half: the fork runs on by itself, until it asks again."""
    return _run(desk, None, config, context)


def play(desk: Desk, config: RunnableConfig, context: DeskContext) -> None:
    """Everything from the letter to the end of the fork, in one process."""
    list(hand_in_letter(desk, config, context))
    list(decide(desk, config, context, ESTIMATE_IS_NOT_ENOUGH))
    for question in papers.questions():
        ask(desk, config, context, question)
    fork = put_invoice_on_file(desk, before_assessment(desk, config))
    list(carry_on(desk, fork, context))
    list(decide(desk, config, context, INVOICE_IS_HERE))
