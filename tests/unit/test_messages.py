"""Messages are not serialized twice, and nobody can tell by the bytes."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import enum
import random
import threading
import tracemalloc
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from shapes import at, checkpoint, metadata
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching import messages as message_cache
from langgraph_redis_state.caching.messages import FROM, MessageCache
from langgraph_redis_state.storage import bodies, chunks
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.seals import PLAIN as CHECKSUMS
from langgraph_redis_state.storage.seals import Integrity, Keyring, Seal

SERDE = JsonPlusSerializer()
LIMIT = 16 * 1024 * 1024


class Text(str):
    pass


class Letter(str, enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Model(BaseModel):
    a: int = 1


@dataclasses.dataclass
class Data:
    a: int = 1


class OwnMessage(HumanMessage):
    pass


PLAIN: list[Any] = [None, True, False, 0, 1, -1, 2**63, 0.0, -0.0, 1.0, float("nan"), float("inf"), "", "a", "é", b"a", {}, []]
NASTY: list[Any] = [
    *("\ud800", Text("a"), bytearray(b"a"), (1, "a"), [1, "a"], {1, 2}, frozenset({1}), Letter.A, Number.ONE, Model(), Data()),
    *(uuid.UUID(int=1), dt.datetime(2020, 1, 1), dt.date(2020, 1, 1), HumanMessage("a"), "x" * 5000, ["x" * 600] * 20, object),
    *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": True}, {1: "a"}, {True: 1}, {(1, 2): 3}, {Letter.A: 1}, {Text("a"): 1}),
    *(collections.OrderedDict(a=1), collections.defaultdict(int, a=1)),
]
leaves = st.sampled_from(PLAIN) | st.sampled_from(NASTY)
nested = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=5
)
FIELDS = ("content", "additional_kwargs", "response_metadata", "id", "name", "type", "artifact", "tool_calls", "usage_metadata")


def made(kind: type, fields: dict[str, Any], extra: dict[str, Any]) -> Any:
    """A message as code that takes liberties leaves it behind: any value in any field."""
    more = {ToolMessage: {"tool_call_id": "t"}, ChatMessage: {"role": "r"}, FunctionMessage: {"name": "f"}}.get(kind, {})
    message = kind(content="c", **more, **extra)
    message.__dict__.update({name: value for name, value in fields.items() if name in type(message).model_fields})
    return message


KINDS = [HumanMessage, AIMessage, ToolMessage, SystemMessage, FunctionMessage, ChatMessage, AIMessageChunk, OwnMessage]
messages = st.builds(
    made,
    st.sampled_from(KINDS[:-1]),
    st.dictionaries(st.sampled_from(FIELDS), nested, max_size=3),
    st.just({}) | st.dictionaries(st.just("extra"), nested),
)
SHARED = MessageCache(LIMIT)


def outcome(work: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic tells of values that are not of the field's type
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the serializer's, whatever it is
            return type(error)


def bytes_of(cache: MessageCache, value: Any, serde: Any = SERDE, place: Any = None) -> bytes | None:
    found = cache.serialized(serde, value, place)
    assert found is None or len(found) == len(found.joined())
    return None if found is None else found.joined()


def message(n: int, size: int = 300) -> AIMessage:
    return AIMessage(content=f"{n} " + "".join(random.Random(n).choices("abcdefgh ", k=size)), id=str(n))


@given(st.lists(messages, min_size=1, max_size=6), st.integers(0, 40))
@settings(max_examples=times(60, 400), deadline=None)
def test_any_list_of_messages_gives_the_bytes_of_the_serializer(some: list[Any], more: int) -> None:
    value = [*some, *(message(n) for n in range(FROM + more))]
    expected = outcome(lambda: SERDE.dumps_typed(value)[1])
    for _ in range(2):
        found = outcome(lambda: bytes_of(SHARED, value, place="here"))
        assert found in (expected, None)


@given(st.lists(st.integers(0, 30), min_size=FROM, max_size=80), st.integers(0, 3))
@settings(max_examples=times(20, 150), deadline=None)
def test_chunks_are_those_of_cutting_the_whole_list(picked: list[int], scale: int) -> None:
    value = [message(n, [40, 300, 3000, 20_000][(n + scale) % 4]) for n in picked]
    for n, each in enumerate(value):  # messages that are themselves cut, with headers of their own
        if n % 7 == 3:
            each.additional_kwargs["parts"] = [str(k) * 50 for k in range(300)]
    whole: bodies.Fresh = {}
    expected = bodies.chunked("msgpack", SERDE.dumps_typed(value)[1], True, whole)
    for _ in range(2):
        elements = SHARED.serialized(SERDE, value)
        assert elements is not None
        fresh: bodies.Fresh = {}
        assert SHARED.chunked(elements, fresh, CHECKSUMS) == expected
        assert {name: b"".join(run) for name, run in fresh.items()} == {name: b"".join(run) for name, run in whole.items()}


@given(
    st.lists(st.integers(0, 30), min_size=FROM, max_size=60), st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data()
)
@settings(max_examples=times(25, 200), deadline=None)
def test_a_list_that_grew_is_cut_as_if_it_were_new(picked: list[int], steps: list[int], data: st.DataObject) -> None:
    """It is cut from the last place on where that does not depend on what comes; a change, or another seal, begins anew."""
    cache, value = MessageCache(LIMIT), [message(n, [40, 300, 3000, 20_000][n % 4]) for n in picked]
    encrypting = Keyring(Integrity((), False), [b"k" * 32]).seal(b"p", b"t")
    assert encrypting is not None
    for step in steps:
        what = data.draw(st.sampled_from(["grow", "grow", "grow", "change", "shorten"]))
        if what == "change":
            value[data.draw(st.integers(0, len(value) - 1))] = message(100 + step, 700)
        elif what == "shorten":
            value = value[: max(FROM, len(value) - step)]
        else:
            value = [*value, *(message(step * 31 + n, [40, 300, 3000, 20_000][(n + step) % 4]) for n in range(step))]
            if step == 5:
                value[-1].additional_kwargs["parts"] = [str(k) * 50 for k in range(300)]
        by: Seal = data.draw(st.sampled_from([CHECKSUMS, CHECKSUMS, encrypting]))
        whole: bodies.Fresh = {}
        expected = bodies.chunked("msgpack", SERDE.dumps_typed(value)[1], True, whole, name=by.name)
        elements = cache.serialized(SERDE, value, "place")
        assert elements is not None
        assert elements.joined() == SERDE.dumps_typed(value)[1]
        fresh: bodies.Fresh = {}
        assert cache.chunked(elements, fresh, by) == expected
        assert {name: b"".join(run) for name, run in fresh.items()} == {name: b"".join(run) for name, run in whole.items()}


STEPS = st.sampled_from(["append", "change", "first", "last", "pop", "class", "extra", "same", "other"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 1 << 20)), min_size=3, max_size=25))
@settings(max_examples=times(50, 150), deadline=None)
def test_a_list_that_grows_and_changes_in_place_is_always_what_it_is_now(steps: list[tuple[str, int]]) -> None:
    cache, value = MessageCache(LIMIT), [message(n, 40) for n in range(10)]
    for step, n in steps:
        at = n % len(value)
        if step == "append":
            value.append(message(n, 40))
        elif step in ("change", "first", "last"):
            value[{"first": 0, "last": -1}.get(step, at)].additional_kwargs[str(n % 3)] = [n]
        elif step == "pop" and len(value) > FROM:
            value.pop(at)
        elif step == "class":
            other = made(AIMessageChunk if type(value[at]) is AIMessage else AIMessage, {}, {})
            other.__dict__.clear()
            other.__dict__.update(value[at].__dict__)  # the same content, of another class
            value[at] = other
        elif step == "extra":
            value[at] = AIMessage("x", extra=n)
        elif step == "other":
            assert bytes_of(cache, [message(k, 30) for k in range(12)], place="there") is not None
        expected = outcome(lambda: SERDE.dumps_typed(value)[1])
        assert outcome(lambda: bytes_of(cache, value, place="here")) in (expected, None)


def test_a_list_that_grew_is_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, value = MessageCache(LIMIT), [message(n) for n in range(50)]
    assert bytes_of(cache, value, place="here") == SERDE.dumps_typed(value)[1]
    looked: list[int] = []
    keys = message_cache._keys
    monkeypatch.setattr(message_cache, "_keys", lambda messages: looked.append(len(messages)) or keys(messages))
    value.append(message(50))
    assert bytes_of(cache, value, place="here") == SERDE.dumps_typed(value)[1]
    assert bytes_of(cache, value[:20], place="here") == SERDE.dumps_typed(value[:20])[1]
    assert looked == [1, 20]


def test_a_giant_message_is_sliced_as_before() -> None:
    value = [*(message(n) for n in range(FROM)), message(99, 700_000)]
    cache = MessageCache(LIMIT)
    found = cache.serialized(SERDE, value)
    assert found is not None
    assert cache.chunked(found, {}, CHECKSUMS) == bodies.chunked("msgpack", SERDE.dumps_typed(value)[1], True, {})


def test_more_headers_than_are_kept_outside_of_chunks_are_cut_as_before() -> None:
    value = [AIMessage(f"{n}", additional_kwargs={"parts": [str(n * k) * 9 for k in range(200)]}) for n in range(60)]
    cache = MessageCache(LIMIT)
    elements = cache.serialized(SERDE, value)
    assert elements is not None
    assert sum(literal for _, literal, _ in elements.list.atoms) >= chunks.LITERALS_MAX
    assert cache.chunked(elements, {}, CHECKSUMS) == bodies.chunked("msgpack", SERDE.dumps_typed(value)[1], True, {})


CHANGES: dict[str, Callable[[Any], Any]] = {
    "content": lambda m: setattr(m, "content", "other"),
    "content block": lambda m: m.content[0].update(text="other"),
    "one more block": lambda m: m.content.append("more"),
    "true for 1": lambda m: m.content[0].update(text=True),
    "1.0 for 1": lambda m: m.content[0].update(text=1.0),
    "-0.0 for 0.0": lambda m: m.response_metadata.update(score=-0.0),
    "kwargs": lambda m: m.additional_kwargs.update(a=1),
    "deep in metadata": lambda m: m.response_metadata["usage"]["tokens"].append(3),
    "order of keys": lambda m: m.response_metadata.update(score=m.response_metadata.pop("score")) or m.response_metadata.update(
        usage=m.response_metadata.pop("usage")
    ),
    "an argument of a tool call": lambda m: m.tool_calls[0]["args"].update(q="other"),
    "an extra field": lambda m: setattr(m, "reasoning", "because"),
    "a changed extra field": lambda m: m.__pydantic_extra__.update(old="other"),
    "a model": lambda m: m.additional_kwargs.update(model=Model()),
    "id": lambda m: setattr(m, "id", "other"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_in_place_is_noticed(change: Callable[[Any], Any]) -> None:
    changed = AIMessage(
        content=[{"type": "text", "text": 1}],
        id="m",
        tool_calls=[{"name": "t", "args": {"q": "x"}, "id": "c"}],
        response_metadata={"score": 0.0, "usage": {"tokens": [1, 2]}, "z": 1},
    )
    if change is CHANGES["a changed extra field"]:
        changed.__pydantic_extra__ = {"old": "value"}
    value = [changed, *(message(n) for n in range(FROM))]
    cache = MessageCache(LIMIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = SERDE.dumps_typed(value)[1]
        assert bytes_of(cache, value) == before
        change(changed)
        after = SERDE.dumps_typed(value)[1]
        assert after != before
        assert bytes_of(cache, value) == after
        assert bytes_of(cache, value) == after


def test_unchanged_messages_are_not_serialized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = JsonPlusSerializer.dumps_typed
    monkeypatch.setattr(
        JsonPlusSerializer, "dumps_typed", lambda self, value: asked.append(len(value)) or original(self, value)
    )
    cache, value = MessageCache(LIMIT), [message(n) for n in range(100)]
    assert cache.serialized(SERDE, value) is not None
    assert cache.serialized(SERDE, [*copy.deepcopy(value)[1:], message(100)]) is not None
    assert asked == [100, 1]


def test_a_message_that_changes_while_it_is_serialized_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    original = JsonPlusSerializer.dumps_typed
    cache, value = MessageCache(LIMIT), [message(n) for n in range(100)]
    before = copy.deepcopy(value)

    def dumps_typed(self: Any, messages: Any) -> Any:
        value[5].content = "changed by another thread"
        return original(self, messages)

    with monkeypatch.context() as patched:
        patched.setattr(JsonPlusSerializer, "dumps_typed", dumps_typed)
        assert cache.serialized(SERDE, value) is not None
    assert bytes_of(cache, before) == SERDE.dumps_typed(before)[1]


@pytest.mark.parametrize("grown", [1, -1])
@pytest.mark.parametrize("step", ["kinds_of", "_keys"])
def test_a_list_that_changes_length_while_it_is_serialized_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch, step: str, grown: int
) -> None:
    value = [message(n) for n in range(20)]
    whole = SERDE.dumps_typed(value)[1]
    original = getattr(message_cache, step)

    def meanwhile(argument: Any) -> Any:  # what another thread does between any two lines
        if grown > 0:
            value.append(message(99))
        else:
            value.pop()
        return original(argument)

    monkeypatch.setattr(message_cache, step, meanwhile)
    assert bytes_of(MessageCache(LIMIT), value, place="here") == whole


def test_messages_of_two_classes_with_the_same_content_are_two() -> None:
    human, system = HumanMessage("a"), SystemMessage("a")
    system.type = "human"  # type: ignore[assignment]
    assert human.__dict__ == system.__dict__
    cache = MessageCache(LIMIT)
    for value in ([human] * FROM, [system] * FROM, [human, system] * FROM):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                assert bytes_of(cache, value) == SERDE.dumps_typed(value)[1]


class OwnSerializer(JsonPlusSerializer):
    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "msgpack", b"\xc0"


@pytest.mark.parametrize(
    ("serde", "value"),
    [
        (OwnSerializer(), [message(n) for n in range(50)]),
        (EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef"), [message(n) for n in range(50)]),
        (SERDE, tuple(message(n) for n in range(50))),
        (SERDE, [message(n) for n in range(FROM - 1)]),
        (SERDE, [*(message(n) for n in range(50)), OwnMessage("a")]),
        (SERDE, list(range(50))),
        (SERDE, {"messages": [message(n) for n in range(50)]}),
        (
            JsonPlusSerializer(pickle_fallback=True),
            [*(message(n) for n in range(50)), AIMessage("", additional_kwargs={"a": object})],
        ),
    ],
    ids=["own serializer", "encrypted", "tuple", "short", "own message", "no messages", "dict", "pickled"],
)
def test_only_plain_messages_of_langgraphs_serializer_are_taken_apart(serde: Any, value: Any) -> None:
    assert MessageCache(LIMIT).serialized(serde, value) is None


def test_with_pickle_fallback_plain_messages_are_still_found() -> None:
    serde, value = JsonPlusSerializer(pickle_fallback=True), [message(n) for n in range(50)]
    assert bytes_of(MessageCache(LIMIT), value, serde) == serde.dumps_typed(value)[1]


def play(savers: Callable[[], RedisSaver], thread: str) -> None:
    """A chat that grows, is trimmed at its front, and edited in its middle."""
    config, value = at(thread), [message(n, 50 + n * 37 % 900) for n in range(60)]
    for n in range(60, 75):
        value = [*value[n % 3 :], message(n)]
        value[10] = message(1000 + n)
        with savers() as saver:
            config = saver.put(
                config, checkpoint({"messages": value}, {"messages": n}, id=f"id-{n}"), metadata(), {"messages": n}
            )


def test_what_is_stored_does_not_depend_on_what_is_remembered(url: str, prefix: str) -> None:
    warm = RedisSaver(url, prefix=prefix)
    warm.close = lambda: None  # type: ignore[method-assign]
    play(lambda: warm, "warm")
    play(lambda: RedisSaver(url, prefix=prefix), "cold")
    stored: list[dict[bytes, bytes]] = []
    for thread in (b"warm", b"cold"):
        fields = warm.client.hgetall(ThreadKeys(prefix, thread).hash)
        stored.append({name: content for name, content in fields.items() if name[:1] in b"DP"})
    assert len(stored[0]) > 20
    assert stored[0] == stored[1]
    tuples = [[found.checkpoint for found in warm.list(at(thread))] for thread in ("warm", "cold")]
    assert tuples[0] == tuples[1]
    RedisSaver.close(warm)


def test_what_is_remembered_is_bounded() -> None:
    cache = MessageCache(limit=350_000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(0, 2_000, 50):
        elements = cache.serialized(SERDE, [message(k) for k in range(n, n + 50)])
        assert elements is not None
        cache.chunked(elements, {}, CHECKSUMS)
    del elements
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 175_000 < taken < 800_000


def test_a_list_larger_than_what_may_be_remembered_is_left_to_the_serializer() -> None:
    assert MessageCache(limit=100_000).serialized(SERDE, [message(n) for n in range(200)]) is None
    assert MessageCache(limit=1_000_000).serialized(SERDE, [message(n) for n in range(200)]) is not None


def test_threads_share_what_is_remembered() -> None:
    cache = MessageCache(limit=300_000)  # small, so that generations change all the time
    failed: list[int] = []

    def work(seed: int) -> None:
        for round in range(20):
            value = [message((seed * 7 + round * 13 + n) % 300) for n in range(40)]
            elements = cache.serialized(SERDE, value)
            expected = SERDE.dumps_typed(value)[1]
            if elements is None or elements.joined() != expected:
                failed.append(seed)
                continue
            if cache.chunked(elements, {}, CHECKSUMS) != bodies.chunked("msgpack", expected, True, {}):
                failed.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
