"""The papers on the desk: a letter, the conditions it is judged by, an invoice that comes later, and questions."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

_TEXTS = Path(__file__).parent / "texts"

# Too common to tell one passage from another, or the grammar of a question.
_TOO_COMMON = """
    a an and any anything are as at be before but by did do does each eur for from had has have her how i if in is it
    its many may me much my no not of on once only or our she should such than that the their them they this those to
    two up us was we were what when where which while who whose why will with you your
"""
_STOP = frozenset(_TOO_COMMON.split())


class Passage(NamedTuple):
    """A paragraph of one of the papers, under the name a clerk would cite it by."""

    source: str
    text: str


def read(name: str) -> str:
    """The whole text of one paper, as it lies in `texts/`."""
    return (_TEXTS / f"{name}.txt").read_text("utf-8").strip()


def paragraphs(text: str) -> list[str]:
    """A text cut at its blank lines."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def questions() -> list[str]:
    """What colleagues ask the desk after the case is closed, one question per line."""
    return read("questions").splitlines()


@cache
def passages() -> tuple[Passage, ...]:
    """Everything that can be cited: the paragraphs of the letter, then the conditions."""
    letter = [Passage(f"letter, paragraph {number}", text) for number, text in enumerate(paragraphs(read("letter")), 1)]
    conditions = [Passage(f"condition {text.split('.')[0]}", text) for text in paragraphs(read("conditions"))]
    return (*letter, *conditions)


def conditions() -> list[Passage]:
    return [passage for passage in passages() if passage.source.startswith("condition")]


def words(text: str) -> set[str]:
    """The telling words of a text, with the commonest endings cut off."""
    found = re.findall(r"[a-z]+|\d+(?:\.\d+)?", text.lower())
    return {re.sub(r"(?<=\w{3})(ing|es|ed|e|s)$", "", word) for word in found if word not in _STOP}


def search(query: str, among: list[Passage], limit: int = 1) -> list[Passage]:
    """The passages that share the most telling words with the query, the best first; none if no word is shared."""
    spread = Counter(word for passage in among for word in words(passage.text))
    wanted = words(query)

    def score(passage: Passage) -> float:
        held = words(passage.text)
        shared = sum(math.log(1 + len(among) / spread[word]) for word in wanted & held)
        return shared / (1 + len(held) / 60)  # a long passage shares words by being long

    ranked = sorted(among, key=score, reverse=True)
    return [passage for passage in ranked[:limit] if score(passage) > 0]


def sentence(question: str, text: str) -> str:
    """The sentence of a passage that answers a question best."""
    body = re.sub(r"^\d+\. [A-Z][a-z ]+\. ", "", text)  # a condition opens with its number and its name
    sentences = [Passage("", part) for part in re.split(r"(?<=[.;])\s+(?=[A-Z])", body)]
    best = search(question, sentences)
    return best[0].text if best else sentences[0].text
