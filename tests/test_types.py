"""What comes back is what LangGraph's InMemorySaver gives back, type included: as channel value, write and metadata."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pickle
import random
import re
import string
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
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
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send
from pydantic import BaseModel, SecretStr
from shapes import SyncSurface, assert_same, at, checkpoint, difference, listed, metadata, plain
from soak import rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import SerializationError


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


class PickleSerde:
    """The least a serializer can be: neither `dumps_typed` nor `loads_typed`."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


SERIALIZERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "encrypted": lambda: EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef"),
    "pickle fallback": lambda: JsonPlusSerializer(pickle_fallback=True),
    "untyped": PickleSerde,
    "strict": lambda: JsonPlusSerializer(allowed_msgpack_modules=[(__name__, "Point"), (__name__, "Person")]),
}

surfaces = pytest.mark.parametrize("surface", ["sync", rare("async")])
"""Types do not depend on it: the same operation converts for both."""


async def check(url: str, prefix: str, surface: str, serde: Callable[[], Any], values: dict[str, Any]) -> None:
    """One checkpoint with every value in every place, in both savers; then read three ways, also by a cold saver."""
    memory = InMemorySaver(serde=serde())
    told = metadata(values=values, **{f"m {name}": value for name, value in values.items()})
    made = checkpoint(values)
    writes = [*values.items()]
    async with (
        RedisSaver(url, prefix=prefix, serde=serde()) as warm,
        RedisSaver(url, prefix=prefix, serde=serde()) as cold,
    ):
        savers = [saver if surface == "async" else SyncSurface(saver) for saver in (warm, cold)]
        for saver in (memory, savers[0]):
            config = await saver.aput(at("t"), made, told, made["channel_versions"])
            await saver.aput_writes(config, writes, "task", "~path")
        expected = plain(await memory.aget_tuple(config))
        assert len(expected["writes"]) == len(values)
        for saver in savers:
            assert_same(expected, plain(await saver.aget_tuple(config)))
            assert_same([expected], [plain(found) for found in await listed(saver, at("t"))])


@surfaces
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serializer", ["default", "encrypted", "pickle fallback", "strict"])
async def test_every_type_comes_back_as_from_the_in_memory_saver(
    url: str, prefix: str, surface: str, kind: str, serializer: str
) -> None:
    await check(url, prefix, surface, SERIALIZERS[serializer], KINDS[kind])


@surfaces
async def test_large_values_come_back_as_from_the_in_memory_saver(url: str, prefix: str, surface: str) -> None:
    values = large()
    memory = InMemorySaver()
    made = checkpoint(values)
    async with RedisSaver(url, prefix=prefix) as warm, RedisSaver(url, prefix=prefix) as cold:
        savers = [saver if surface == "async" else SyncSurface(saver) for saver in (warm, cold)]
        for saver in (memory, savers[0]):
            config = await saver.aput(at("t"), made, metadata(), made["channel_versions"])
        expected = plain(await memory.aget_tuple(config))
        for saver in savers:
            assert_same(expected, plain(await saver.aget_tuple(config)))


@pytest.mark.parametrize("place", ["writes", "metadata"])
@pytest.mark.parametrize("name", ["text 2 MB", "bytes 256 KB and one", "list 2 MB", "dict of 1,000 mixed", "2,000 messages"])
async def test_large_writes_and_metadata_come_back_too(either: Any, memory: InMemorySaver, name: str, place: str) -> None:
    value = large()[name]
    made = checkpoint()
    told = metadata(large=value) if place == "metadata" else metadata()
    for saver in (memory, either):
        config = await saver.aput(at("t"), made, told, {})
        if place == "writes":
            await saver.aput_writes(config, [("x", value), ("y", [value])], "task")
    assert_same(plain(await memory.aget_tuple(config)), plain(await either.aget_tuple(config)))


@pytest.mark.parametrize("serializer", ["encrypted", "pickle fallback", "untyped"])
async def test_large_values_survive_other_serializers(url: str, prefix: str, serializer: str) -> None:
    values = {name: large()[name] for name in ("text 200 KB", "list 2 MB", "dict of 1,000 mixed", "2,000 messages")}
    memory = InMemorySaver(serde=SERIALIZERS[serializer]())
    made = checkpoint(values)
    async with RedisSaver(url, prefix=prefix, serde=SERIALIZERS[serializer]()) as saver:
        for one in (memory, saver):
            config = await one.aput(at("t"), made, metadata(), made["channel_versions"])
        assert_same(plain(await memory.aget_tuple(config)), plain(await saver.aget_tuple(config)))


@surfaces
async def test_a_serializer_without_type_tags_works(url: str, prefix: str, surface: str) -> None:
    values = {
        **PLAIN,
        "something only pickle knows": complex(1, 2),
        "large int": 2**100,
        "range": range(3),
        "memory size": "10MB",
        **ARRAYS,
        **MESSAGES,
    }
    await check(url, prefix, surface, PickleSerde, values)


@surfaces
async def test_what_only_pickle_knows_needs_the_pickle_fallback(url: str, prefix: str, surface: str) -> None:
    values = {"complex": complex(1, 2), "large int": 2**100, "range": [range(3)], "unhashable": {"x": complex(0, 1)}}
    await check(url, prefix, surface, SERIALIZERS["pickle fallback"], values)
    async with RedisSaver(url, prefix=prefix) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        made = checkpoint({"complex": complex(1, 2)})
        with pytest.raises(SerializationError, match="complex"):
            await saver.aput(at("u"), made, metadata(), made["channel_versions"])
        assert await saver.aget_tuple(at("u")) is None
        with pytest.raises(SerializationError, match="pickle"):
            await saver.aget_tuple(at("t"))
        with pytest.raises(SerializationError, match="pickle"):
            await listed(saver, at("t"))


class Tagged:
    """A serializer with a tag of its own, as a newer or a foreign one may have."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return "from-the-future", pickle.dumps(value)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "from-the-future"
        return pickle.loads(data[1])


@surfaces
@pytest.mark.parametrize("big", [False, True])
async def test_a_tag_the_serializer_does_not_know_is_an_error(url: str, prefix: str, surface: str, big: bool) -> None:
    values = {"odd": "x" * 400_000 if big else "x"}
    await check(url, prefix, surface, Tagged, values)
    async with RedisSaver(url, prefix=prefix) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        with pytest.raises(SerializationError, match="from-the-future"):
            await saver.aget_tuple(at("t"))


class HalfTagged(JsonPlusSerializer):
    """Knows everything, but gives marked values a tag that others do not know."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return ("odd-tag", b"?") if value == "mark" else super().dumps_typed(value)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return "mark" if data[0] == "odd-tag" else super().loads_typed(data)


async def test_the_error_about_an_unknown_tag_names_the_channel(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, serde=HalfTagged()) as writer:
        made = checkpoint({"fine": 1, "the_odd_one": "mark"})
        await writer.aput(at("t"), made, metadata(), made["channel_versions"])
        config = await writer.aput(at("u"), checkpoint(), metadata(), {})
        await writer.aput_writes(config, [("the_odd_write", "mark")], "task")
        assert (await writer.aget_tuple(at("t"))).checkpoint["channel_values"] == {"fine": 1, "the_odd_one": "mark"}
        assert (await writer.aget_tuple(at("u"))).pending_writes == [("task", "the_odd_write", "mark")]
    async with RedisSaver(url, prefix=prefix) as reader:
        with pytest.raises(SerializationError, match=r"(?s)(the_odd_one.*odd-tag|odd-tag.*the_odd_one)"):
            await reader.aget_tuple(at("t"))
        with pytest.raises(SerializationError, match=r"(?s)(the_odd_write.*odd-tag|odd-tag.*the_odd_write)"):
            await reader.aget_tuple(at("u"))


async def test_a_strict_serializer_gives_back_plain_parts_for_what_it_was_not_told(url: str, prefix: str) -> None:
    """As LangGraph's allow-list means it; `with_allowlist` of the saver widens it for the clone alone."""
    made = checkpoint({"point": Point(1.0, ["a"]), "frozen": Frozen(1), "many": [Frozen(n) for n in range(2_000)]})
    serde = JsonPlusSerializer(allowed_msgpack_modules=[(__name__, "Point")])
    async with RedisSaver(url, prefix=prefix, serde=serde) as saver:
        wider = saver.with_allowlist([(__name__, "Frozen")])
        assert wider is not saver
        config = await saver.aput(at("t"), made, metadata(), made["channel_versions"])
        for _ in range(2):  # whatever is cached for one must not be handed to the other
            found = (await saver.aget_tuple(config)).checkpoint["channel_values"]
            assert (found["point"], found["frozen"]) == (Point(1.0, ["a"]), {"n": 1})
            assert found["many"] == [{"n": n} for n in range(2_000)]
            found = (await wider.aget_tuple(config)).checkpoint["channel_values"]
            assert found == made["channel_values"]
        assert wider.get_tuple(config).checkpoint["channel_values"] == made["channel_values"]


async def test_values_the_default_serializer_knows_are_read_without_a_warning(
    url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await check(url, prefix, "async", lambda: JsonPlusSerializer(allowed_msgpack_modules=None), MESSAGES)
        await check(url, prefix + "2", "sync", lambda: JsonPlusSerializer(allowed_msgpack_modules=None), LANGGRAPH)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("compression", ["lz4", "zlib", "none"])
async def test_every_compression_reads_what_every_other_wrote(url: str, prefix: str, compression: Any) -> None:
    values = {"text 200 KB": large()["text 200 KB"], "messages": list(MESSAGES.values()), "small": 1, "bytes": b"\xff"}
    made = checkpoint(values)
    async with RedisSaver(url, prefix=prefix, compression=compression) as writer:
        config = await writer.aput(at("t"), made, metadata(), made["channel_versions"])
    memory = InMemorySaver()
    await memory.aput(at("t"), made, metadata(), made["channel_versions"])
    expected = plain(await memory.aget_tuple(config))
    for other in ("lz4", "zlib", "none"):
        async with RedisSaver(url, prefix=prefix, compression=other) as reader:
            assert_same(expected, plain(await reader.aget_tuple(config)))


async def test_a_list_that_grows_and_is_trimmed_comes_back_whole_at_every_step(either: Any) -> None:
    messages: list[Any] = []
    config, made_of = at("t"), {}
    for n in range(60):
        version = f"{n + 1:032}"
        messages = [*messages, *(HumanMessage(f"message {n} {k} " * (k + 3), id=f"{n}.{k}") for k in range(7))]
        if n % 20 == 19:
            messages = messages[50:]
        if n % 13 == 12:
            messages = [*messages[:30], AIMessage("edited", id=f"e{n}"), *messages[31:]]
        config = await either.aput(
            config, checkpoint({"messages": messages}, {"messages": version}), metadata(), {"messages": version}
        )
        made_of[config["configurable"]["checkpoint_id"]] = messages
    for found in await listed(either, at("t")):
        assert_same(made_of[found.checkpoint["id"]], found.checkpoint["channel_values"]["messages"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1}, frozenset({1})),
        ("a", Text("a")),
        (Colour.RED, "red"),
        (np.arange(3), np.arange(3).astype(np.int32)),
        (Point(1), Point(True)),
        (Person(name="n", born=date(2000, 1, 1)), {"name": "n"}),
        ([float("nan")], [1.0]),
        ({1: "a"}, {True: "a"}),
        ({1, 2}, {1.0, 2}),
        (HumanMessage("a", id="1"), HumanMessage("a", id="2")),
    ],
    ids=repr,
)
def test_the_comparison_these_tests_rest_on_tells_things_apart(one: Any, other: Any) -> None:
    assert difference(one, other) is not None
    assert difference(one, one) is None
    assert difference([{"deep": one}], [{"deep": other}]) is not None
