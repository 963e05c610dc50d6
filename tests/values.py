"""Values of every type that a state may hold."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import string
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send
from pydantic import BaseModel, SecretStr


class Colour(Enum):
    RED = "red"
    DEEP = ("deep", 1)


class Level(IntEnum):
    LOW = 1


class Text(str):
    """A str that is not one."""


@dataclasses.dataclass
class Point:
    x: float
    tags: list[str] = dataclasses.field(default_factory=list)
    inner: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    n: int


class Address(BaseModel):
    street: str
    numbers: list[int] = []


class Person(BaseModel):
    name: str
    born: date
    address: Address | None = None
    others: dict[str, Address] = {}
    note: Any = None


class Loose(BaseModel, extra="allow"):
    a: int = 0


Pair = namedtuple("Pair", ["left", "right"])

TOOL_CALL = {"name": "search", "args": {"q": "é😀", "deep": [1, {"a": None}]}, "id": "call-1", "type": "tool_call"}
MESSAGES = {
    "human": HumanMessage("hello", id="1", name="someone"),
    "human, blocks": HumanMessage([{"type": "text", "text": "look"}, {"type": "image", "url": "data:,x"}], id="2"),
    "ai": AIMessage("hi", id="3", response_metadata={"model": "m", "logprobs": None}),
    "ai, tool calls": AIMessage(
        "",
        id="4",
        tool_calls=[TOOL_CALL],
        invalid_tool_calls=[{"name": "x", "args": "{broken", "id": "c2", "error": "bad", "type": "invalid_tool_call"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    "ai chunk": AIMessageChunk("part", id="5"),
    "system": SystemMessage("be brief", id="6"),
    "tool": ToolMessage("found", tool_call_id="call-1", id="7", artifact={"raw": [1, 2]}, status="error"),
    "function": FunctionMessage("done", name="f", id="8"),
    "chat": ChatMessage("said", role="critic", id="9"),
    "remove": RemoveMessage(id="3"),
    "document": Document("text", metadata={"page": 1}, id="d"),
}
LANGGRAPH = {
    "send": Send("node", {"x": [1, HumanMessage("m", id="1")]}),
    "send of a send": Send("node", Send("other", None)),
    "command": Command(update={"x": 1}, resume={"a": [1]}, goto=["a", Send("b", {"k": (1, 2)})]),
    "command to parent": Command(graph=Command.PARENT, goto="x"),
    "interrupt": Interrupt(value={"question": ["?"], "at": date(2025, 1, 2)}, id="i1"),
    "interrupts": (Interrupt(value=1, id="a"), Interrupt(value=None, id="b")),
    "overwrite": Overwrite([1]),
    "delta snapshot": _DeltaSnapshot([HumanMessage("m", id="1"), {"n": {1, 2}}]),
}
PLAIN = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus one": -1,
    "int 63": 2**63 - 1,
    "uint 64": 2**64 - 1,
    "min int 64": -(2**63),
    "float": 0.1,
    "whole float": 1.0,
    "minus zero": -0.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": float("-inf"),
    "tiny": 5e-324,
    "text": "plain",
    "empty text": "",
    "text é😀\0\x01\uffff": "é😀\0\x01\uffff\U0010ffff e\u0301",
    "lone surrogate": "a\ud800b",
    "looks like a number": "0123",
    "a subclass of str": Text("mine"),
    "bytes": b"\x00\xff\x80abc",
    "empty bytes": b"",
    "bytearray": bytearray(b"\x00\xff"),
    "empty bytearray": bytearray(),
    "just inline": "x" * 90,
    "just not inline": "x" * 100,
    "list": [1, "two", None, [3.0]],
    "tuple": (1, (2, [3, (4,)])),
    "dict": {"a": {"b": {"c": [1, {"d": None}]}}},
    "int keys": {1: "one", -2: "minus two", 2**40: "large"},
    "mixed keys": {1: "int", "1": "str", 1.5: "float", None: "none", b"1": "bytes"},
    "bool keys": {True: "yes", False: "no"},
    "tuple keys": {(1, 2): "a", ("x", (3,)): "b"},
    "date keys": {date(2025, 1, 1): "d"},
    "set": {"a", "b", "c"},
    "set of tuples": {(1, 2), (3, 4)},
    "frozenset": frozenset({1, 2, 3}),
    "deque": deque([1, 2, 3]),
    "deque with a bound": deque([1, 2], maxlen=5),
    "ordered dict": OrderedDict([("b", 1), ("a", 2)]),
    "default dict": defaultdict(list, {"a": [1]}),
    "namedtuple": Pair(1, [2]),
    "empty list": [],
    "empty tuple": (),
    "empty dict": {},
    "empty set": set(),
    "empty deque": deque(),
    "decimal": Decimal("1.10"),
    "decimal nan": [Decimal("Infinity"), Decimal("1E+400")],
    "aware": datetime(2025, 5, 5, 5, 5, 5, 5, tzinfo=timezone.utc),
    "aware, offset": datetime(2025, 5, 5, 5, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    "aware, zone": datetime(2025, 5, 5, 5, tzinfo=ZoneInfo("UTC")),
    "naive": datetime(2025, 5, 5, 5, 5, 5),
    "date": date(2025, 5, 5),
    "time": time(5, 6, 7, 8, tzinfo=timezone.utc, fold=1),
    "timedelta": timedelta(days=-1, seconds=2, microseconds=3),
    "timezone": timezone(timedelta(hours=2)),
    "uuid": UUID("12345678123456781234567812345678"),
    "path": Path("/a/b c/é"),
    "regex": re.compile(r"a+(b)", re.IGNORECASE),
    "ip": [ip_address("10.0.0.1"), ip_network("10.0.0.0/8"), ip_interface("::1/64")],
    "enum": Colour.RED,
    "enum of a tuple": Colour.DEEP,
    "int enum": Level.LOW,
    "dataclass": Point(1.5, ["a"], Point(float("nan"))),
    "frozen dataclass": Frozen(3),
    "pydantic": Person(name="n", born=date(2000, 1, 1)),
    "nested pydantic": Person(
        name="n",
        born=date(2000, 1, 1),
        address=Address(street="s", numbers=[1]),
        others={"home": Address(street="t")},
        note=[Decimal("1.0"), {"x"}],
    ),
    "pydantic with extras": Loose(a=1, b=[2]),
    "pydantic in containers": {"a": [Address(street="s")], "b": (Address(street="t"),)},
    "secret": SecretStr("hush"),
    "exception": ValueError("wrong"),
}
ARRAYS = {
    "numpy 1d": np.arange(5),
    "numpy 2d float32": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "numpy fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "numpy strided": np.arange(20)[::3],
    "numpy 0d": np.array(3.5),
    "numpy empty": np.zeros((0, 3)),
    "numpy bool": np.array([True, False]),
    "numpy text": np.array(["a", "éé"]),
    "numpy nan": np.array([np.nan, np.inf]),
    "numpy dates": np.array(["2025-05-05"], dtype="datetime64[D]").astype("int64"),
    "numpy large": np.random.default_rng(0).integers(0, 255, (300, 400), dtype=np.uint8),
    "numpy nested": {"a": [np.arange(3), {"b": np.eye(2)}]},
}


@functools.cache
def large() -> dict[str, Any]:
    """Values that are cut: of each kind, near the limits, and with repeats."""
    chance = random.Random(4711)

    def text(size: int) -> str:
        return "".join(chance.choices(string.ascii_letters, k=1000)) * (size // 1000)

    mixed = list(PLAIN.values())
    return {
        "text 200 KB": text(200_000),
        "text 2 MB": text(2_000_000),
        "text of wide characters": "é😀" * 100_000,
        "bytes 256 KB": chance.randbytes(256 * 1024),
        "bytes 256 KB and one": chance.randbytes(256 * 1024 + 1),
        "bytearray 600 KB": bytearray(chance.randbytes(600_000)),
        "list of ints": list(range(-50_000, 50_000)),
        "list 2 MB": [text(1000) + str(n) for n in range(2000)],
        "list of equal elements": ["same" * 20] * 5_000,
        "list of lists": [[n, [n + 1, (n, str(n))]] for n in range(5_000)],
        "list of one large": [text(400_000)],
        "list, one large amid small": [*range(1000), text(300_000), *range(1000)],
        "tuple of many": tuple({"n": n} for n in range(3_000)),
        "dict of 1,000 mixed": {f"key {n}": mixed[n % len(mixed)] for n in range(1_000)},
        "dict of int keys": {n: str(n) * 10 for n in range(5_000)},
        "dict of tuple keys": {(n, str(n)): n for n in range(2_000)},
        "set of many": {f"member {n}" for n in range(5_000)},
        "2,000 messages": [
            (HumanMessage if n % 2 else AIMessage)(f"message {n} " + text(1000)[: n % 700], id=f"m{n}") for n in range(2_000)
        ],
        "delta snapshot of many": _DeltaSnapshot([HumanMessage(f"m {n}" * 9, id=f"{n}") for n in range(1_000)]),
        "pydantic of many": Person(
            name="n", born=date(2000, 1, 1), others={f"{n}": Address(street="s" * 50, numbers=[n]) for n in range(900)}
        ),
        "dataclass of many": Point(1.0, [f"tag {n}" for n in range(8_000)]),
        "deep": deep(200),
    }


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for n in range(levels):
        value = {"down": value} if n % 2 else [value]
    return value


KINDS = {"messages": MESSAGES, "langgraph": LANGGRAPH, "plain": PLAIN, "arrays": ARRAYS}
