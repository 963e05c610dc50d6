"""What comes back is what LangGraph's InMemorySaver gives back, type included: as channel value, write and metadata."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import SyncSurface, assert_same, at, checkpoint, difference, listed, metadata, plain
from soak import in_turn, mostly, rare
from values import ARRAYS, KINDS, LANGGRAPH, MESSAGES, PLAIN, Colour, Frozen, Person, Point, Text, large

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import SerializationError


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
@pytest.mark.parametrize(
    ("kind", "serializer"), in_turn(KINDS, ["default", "encrypted", "pickle fallback", "strict"], rounds=2)
)
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


LARGE = ["text 2 MB", "bytes 256 KB and one", "list 2 MB", "dict of 1,000 mixed", "2,000 messages"]


@mostly("async")
@pytest.mark.parametrize(("name", "place"), in_turn(LARGE, ["writes", "metadata"]))
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
    serde = JsonPlusSerializer(allowed_msgpack_modules=[(Point.__module__, "Point")])
    async with RedisSaver(url, prefix=prefix, serde=serde) as saver:
        wider = saver.with_allowlist([(Frozen.__module__, "Frozen")])
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


@mostly("sync")
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
