"""What the desk can do besides talking: the tools of its two tool nodes. Each returns JSON for a model to read."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from langchain_core.tools import tool
from langgraph.prebuilt import InjectedState

from demo import papers

_COUNTS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
}
_COUNT = "|".join(_COUNTS)
_AMOUNT = re.compile(rf"(?:\b(?P<count>{_COUNT})\b[^.]*?)?(?P<amount>\d+\.\d\d) EUR(?P<each> each)?", re.IGNORECASE)
_DATE = re.compile(r"\b\d{1,2} [A-Z][a-z]+ \d{4}\b")
_DELAY = re.compile(rf"\b(?P<hours>{_COUNT}) hours(?: and (?P<minutes>{_COUNT}) minutes)? late\b", re.IGNORECASE)


@tool
def find_amounts(text: str) -> str:
    """List the sums of money in a text; `two tickets at 58.00 EUR each` is 116.00."""
    found = []
    for match in _AMOUNT.finditer(text):
        count = _COUNTS[match["count"].lower()] if match["each"] and match["count"] else 1
        found.append(str(count * Decimal(match["amount"])))
    return json.dumps(found)


@tool
def find_dates(text: str) -> str:
    """List the dates in a text, as YYYY-MM-DD."""
    return json.dumps([datetime.strptime(found, "%d %B %Y").date().isoformat() for found in _DATE.findall(text)])


@tool
def find_delay(text: str) -> str:
    """Say how many minutes late something came, or null."""
    match = _DELAY.search(text)
    if match is None:
        return json.dumps(None)
    return json.dumps(60 * _COUNTS[match["hours"].lower()] + _COUNTS.get((match["minutes"] or "").lower(), 0))


@tool
def find_condition(text: str) -> str:
    """Name the condition of carriage that a text is about, or null."""
    found = papers.search(text, papers.conditions())
    return json.dumps(int(found[0].source.removeprefix("condition ")) if found else None)


@tool
def search_papers(query: str) -> str:
    """Find the passages of the letter and of the conditions that a question is about, the best first."""
    return json.dumps([passage._asdict() for passage in papers.search(query, list(papers.passages()), limit=2)])


@tool
def read_ruling(state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Read how the claim was decided."""
    decision, outcome = state["decision"], state["outcome"]
    return json.dumps({"officer": decision["officer"], "paid": str(outcome["paid"]), "note": decision["note"]})


EXAMINE_TOOLS = [find_amounts, find_dates, find_delay, find_condition]
CLERK_TOOLS = [search_papers, read_ruling]
