"""Messages are not built anew by each read, and nobody can tell: neither by what they are, nor by changing them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from shapes import at, checkpoint, metadata
from soak import times
from test_messages import SERDE, message, messages, outcome

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching.revived import RevivedCache

LIMIT = 16 * 1024 * 1024


def told(value: Any) -> Any:
    """All that a caller can see of a value: types, order, fields that were set."""
    kind = type(value)
    if isinstance(value, BaseModel):
        inside = value.__dict__, value.__pydantic_extra__, value.__pydantic_private__, sorted(value.__pydantic_fields_set__)
        return kind, told(list(inside))
    if isinstance(value, dict):
        return kind, [(told(name), told(content)) for name, content in value.items()]
    if isinstance(value, list | tuple):
        return kind, [told(each) for each in value]
    return kind, repr(value)


def read(cache: RevivedCache, blob: bytes, serde: Any = SERDE) -> Any:
    found = cache.load(serde, blob)
    return serde.loads_typed(("msgpack", blob)) if found is None else found


@given(st.lists(messages, min_size=1, max_size=6), st.integers(0, 20))
@settings(max_examples=times(60, 400), deadline=None)
def test_any_list_of_messages_is_read_as_the_serializer_reads_it(some: list[Any], more: int) -> None:
    written = outcome(lambda: SERDE.dumps_typed([*some, *(message(n) for n in range(4 + more))]))
    if not isinstance(written, tuple) or written[0] != "msgpack":
        return
    cache, expected = RevivedCache(LIMIT), outcome(lambda: told(SERDE.loads_typed(written)))
    for _ in range(3):
        assert outcome(lambda: told(read(cache, written[1]))) == expected


def test_readers_share_nothing() -> None:
    value = [
        AIMessage(
            [{"type": "text", "text": "a"}],
            id=str(n),
            additional_kwargs={"deep": {"list": [1, {"two": 2}]}},
            response_metadata={"model": "m"},
            tool_calls=[{"name": "tool", "args": {"x": [1]}, "id": "call"}],
        )
        for n in range(6)
    ]
    blob, cache = SERDE.dumps_typed(value)[1], RevivedCache(LIMIT)
    pristine = told(SERDE.loads_typed(("msgpack", blob)))
    for _ in range(4):
        found = read(cache, blob)
        assert told(found) == pristine
        for each in found:  # as a node that changes what it was given
            each.content[0]["text"] = "changed"
            each.additional_kwargs["deep"]["list"][1]["two"] = 3
            each.response_metadata.clear()
            each.tool_calls[0]["args"]["x"].append(2)
            each.name = "set now"
            each.id = None
        found.clear()


def test_what_is_known_is_not_read_by_the_serializer() -> None:
    serde, built = JsonPlusSerializer(), list[int]()
    hook = serde._unpack_ext_hook

    def counting(code: int, data: bytes) -> Any:
        built.append(code)
        return hook(code, data)

    serde._unpack_ext_hook = counting
    cache, value = RevivedCache(LIMIT), [message(n) for n in range(40)]
    for more, expected in ((0, 40), (0, 24), (0, 8), (0, 0), (3, 3), (0, 0)):  # each read remembers some more
        value = [*value, *(message(100 + n) for n in range(more))]
        blob = SERDE.dumps_typed(value)[1]
        built.clear()
        assert told(read(cache, blob, serde)) == told(SERDE.loads_typed(("msgpack", blob)))
        assert len(built) == expected


def test_a_serializer_of_another_class_reads_for_itself() -> None:
    class Own(JsonPlusSerializer):
        pass

    assert RevivedCache(LIMIT).load(Own(), SERDE.dumps_typed([message(n) for n in range(8)])[1]) is None


def test_another_serializer_reads_for_itself() -> None:
    """It may have another hook, or allow other types."""
    cache, blob = RevivedCache(LIMIT), SERDE.dumps_typed([message(n) for n in range(8)])[1]
    strange = JsonPlusSerializer(__unpack_ext_hook__=lambda code, data: f"{code}, {len(data)} bytes")
    for _ in range(2):
        assert told(read(cache, blob)) == told(SERDE.loads_typed(("msgpack", blob)))
        assert read(cache, blob, strange) == strange.loads_typed(("msgpack", blob))


@pytest.mark.parametrize("value", [[], [1, 2, 3, 4, 5], {"a": 1}, "text", None, [HumanMessage("a")], [b"a" * 300] * 9, (1, 2)])
def test_other_values_are_left_to_the_serializer(value: Any) -> None:
    cache, (type_, blob) = RevivedCache(LIMIT), SERDE.dumps_typed(value)
    assert type_ != "msgpack" or cache.load(SERDE, blob) is None


def test_damaged_bytes_are_left_to_the_serializer() -> None:
    cache, blob = RevivedCache(LIMIT), SERDE.dumps_typed([message(n) for n in range(8)])[1]
    read(cache, blob)
    for damaged in (blob[:-1], blob + b"\0", blob[:40], b"\xdc\xff\xff" + blob[1:], b"\xdd", b"\x94\xc7"):
        assert outcome(lambda damaged=damaged: read(cache, damaged)) == outcome(
            lambda damaged=damaged: SERDE.loads_typed(("msgpack", damaged))
        )


def test_a_message_whose_parts_stand_in_two_places_is_not_remembered() -> None:
    """Its copies would have two lists where it has one."""
    cache = RevivedCache(LIMIT)
    shared = message(1)
    shared.additional_kwargs = {"a": (both := [1]), "b": both}
    cache._remember(SERDE, b"element", shared)
    assert cache._known.get(b"element") is None
    cache._remember(SERDE, b"element", message(2))
    assert cache._known.get(b"element") is not None


@pytest.mark.parametrize("cache_bytes", [None, 0])
def test_a_saver_gives_each_reader_messages_of_its_own(url: str, prefix: str, cache_bytes: int | None) -> None:
    options = {} if cache_bytes is None else {"cache_bytes": cache_bytes}
    with RedisSaver(url, prefix=prefix, **options) as saver:
        value = [message(n) for n in range(30)]
        made = checkpoint({"messages": copy.deepcopy(value)})
        config = saver.put(at("t"), made, metadata(), made["channel_versions"])
        for _ in range(3):
            found = saver.get_tuple(config).checkpoint["channel_values"]["messages"]
            assert told(found) == told(SERDE.loads_typed(SERDE.dumps_typed(value)))
            found[0].content = "changed"
            found[3].additional_kwargs["new"] = 1
