"""What one saver remembers takes no more memory than it says, whatever the shape: counted by tracemalloc."""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, checkpoint, id_of, metadata
from soak import rare, times

from langgraph_redis_state import RedisSaver, RedisStatePersistence
from langgraph_redis_state.caching.manifests import Manifest, ManifestCache
from langgraph_redis_state.caching.messages import MessageCache
from langgraph_redis_state.caching.parts import ChunkCache
from langgraph_redis_state.caching.revived import RevivedCache
from langgraph_redis_state.operations.engine import PUT_BYTES
from langgraph_redis_state.state.metadata import Seen, StateVersion
from langgraph_redis_state.state.versioning import States
from langgraph_redis_state.storage.bodies import Value
from langgraph_redis_state.storage.codec import digest
from langgraph_redis_state.storage.records import Header
from langgraph_redis_state.storage.seals import PLAIN

LIMIT = 600_000
SLACK = 1.3
Fill = Callable[[Any, int], None]


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes that Python took since the test began, and has not given back."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def grown() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    yield grown
    tracemalloc.stop()


def name(n: int) -> bytes:
    return digest(b"%d" % n)


def text(n: int, size: int) -> bytes:
    return b"%0*d" % (size, n)


# --- known checkpoints ---


def known(n: int, channels: int = 0, digests: int = 0, long: int = 0, literals: int = 0, pages: int = 0) -> Manifest:
    """Everything in it is its own."""
    versions: dict[str, Any] = {}
    values: dict[str, Value] = {}
    for at_ in range(channels):
        channel = f"{n}-{at_}-é" + "x" * long
        versions["".join(channel)] = f"{n:032d}.{at_}"
        values[channel] = Value("msgpack", text(at_, 90), (), 90)
    if digests:
        content = [each for at_ in range(literals) for each in (text(at_, 20), 300 + at_)] or [digests]
        values["v"] = Value("msgpack", content, tuple(name(n * digests + at_) for at_ in range(digests)), 5000)
        versions["v"] = n
    return Manifest(versions, values, tuple(name(at_) for at_ in range(pages)), {}, name(n))


KNOWN: dict[str, tuple[int, Callable[[int], tuple[bytes, bytes, bytes, Manifest]]]] = {
    "many_small_channels": (20, lambda n: (b"t", b"", b"%04d" % n, known(n, 400))),
    "long_names_of_channels": (30, lambda n: (b"t", b"", b"%04d" % n, known(n, 10, long=5000))),
    "large_states": (60, lambda n: (b"t", b"", b"%04d" % n, known(n, digests=1000))),
    "large_states_in_pages": (60, lambda n: (b"t", b"", b"%04d" % n, known(n, digests=1000, pages=100))),
    "nested_containers": (60, lambda n: (b"t", b"", b"%04d" % n, known(n, digests=100, literals=500))),
    "thousands_of_threads": (3000, lambda n: (b"%d" % n, b"", b"%04d" % n, known(n, 1))),
    "thousands_of_namespaces": (3000, lambda n: (b"t", b"tools:%d" % n, b"%04d" % n, known(n))),
    "thousands_of_checkpoints": (3000, lambda n: (b"t", b"", b"%d" % n, known(n))),
    "huge_ids": (30, lambda n: (text(n, 30_000), text(n, 30_000), text(n, 10_000), known(n, 1))),
}


def sample(shapes: Iterable[str], *often: str) -> list[Any]:
    return [shape if shape in often else rare(shape) for shape in shapes]


@pytest.mark.parametrize("shape", sample(KNOWN, "many_small_channels", "thousands_of_threads"))
def test_known_checkpoints(shape: str, traced: Callable[[], int]) -> None:
    times, make = KNOWN[shape]
    memory, recent = ManifestCache(LIMIT), deque[tuple[bytes, bytes, bytes]](maxlen=6)
    for n in range(times):
        *place, manifest = make(n)
        recent.append((place[0], place[1], place[2]))
        memory.put(*recent[-1], manifest)
        memory.get(*recent[0])  # the newest is not always the one used last
    del manifest
    newest = recent.pop()
    recent.clear()
    assert LIMIT / 5 < traced() < SLACK * LIMIT
    assert memory.get(*newest) is not None


def test_a_known_checkpoint_larger_than_the_bound_is_not_kept(traced: Callable[[], int]) -> None:
    memory = ManifestCache(LIMIT)
    memory.put(b"t", b"", b"1", known(1, 10))
    memory.put(b"t", b"", b"1", known(1, 4000))
    assert traced() < LIMIT / 10
    assert memory.get(b"t", b"", b"1") is memory.newest(b"t", b"") is None


def test_a_parent_is_forgotten_before_what_is_in_use() -> None:
    size = ManifestCache(LIMIT)._size((b"a", b"", b"1"), known(1, 100))
    memory = ManifestCache(3 * size + 100)
    memory.put(b"a", b"", b"1", known(1, 100))
    memory.put(b"b", b"", b"1", known(2, 100))
    memory.put(b"b", b"", b"2", known(2, 100), parent=b"1")
    memory.put(b"b", b"", b"3", known(2, 100), parent=b"2")
    assert memory.get(b"b", b"", b"3") is not None
    assert memory.get(b"b", b"", b"2") is None
    assert memory.get(b"a", b"", b"1") is not None


# --- verified chunks and pages ---

VERIFIED: dict[str, tuple[int, Callable[[ChunkCache, int], None]]] = {
    "tiny_chunks": (10_000, lambda cache, n: cache.sent({}, {name(n): b"%d" % n})),
    "large_chunks": (60, lambda cache, n: cache.sent({}, {name(n): text(n, 100_000)})),
    "short_pages": (3000, lambda cache, n: cache.sent({name(n): name(-n)}, {})),
    "long_pages": (100, lambda cache, n: cache.sent({name(n): b"".join(name(n * 128 + each) for each in range(128))}, {})),
    "both": (5000, lambda cache, n: cache.sent({name(n): name(-n) * 2}, {name(n): text(n, 300)})),
}


@pytest.mark.parametrize("shape", sample(VERIFIED, "tiny_chunks"))
def test_verified_chunks_and_pages(shape: str, traced: Callable[[], int]) -> None:
    times, fill = VERIFIED[shape]
    cache = ChunkCache(LIMIT)
    for n in range(times):
        fill(cache, n)
        cache.chunks.get(name(n - 500))
        cache.pages.get(name(n - 500))
    assert LIMIT / 25 < traced() < SLACK * LIMIT


# --- serialized messages, runs of them, lists ---


def small_messages(cache: MessageCache, n: int) -> None:
    put_list(cache, [AIMessage(f"{n} {each}", id=f"{n}-{each}") for each in range(20)], (f"t {n}",))


def growing_list(cache: MessageCache, n: int, value: list[Any] = []) -> None:  # noqa: B006 - it shall grow
    value += [AIMessage(f"{n} " * 30, id=str(len(value)))]
    put_list(cache, value, ("t",))


def trimmed_list(cache: MessageCache, n: int) -> None:
    put_list(cache, [AIMessage(f"{each} " * 30, id=str(each)) for each in range(n, n + 60)], (f"{n % 3}",))


def many_parts(cache: MessageCache, n: int) -> None:
    """Each of thousands of elements of one message is a part of its own."""
    put_list(cache, [AIMessage([f"{n}"] * 1500, id=f"{n}-{each}") for each in range(4)], (f"t {n}",))


def huge_places(cache: MessageCache, n: int) -> None:
    put_list(cache, [AIMessage(f"{n}", id=f"{n}-{each}") for each in range(4)], (text(n, 30_000), b"", "messages" * 2000))


def long_messages(cache: MessageCache, n: int) -> None:
    put_list(cache, [AIMessage(f"{n}é" * 1000, id=f"{n}-{each}") for each in range(5)], (f"t {n}",))


def put_list(cache: MessageCache, value: list[Any], place: tuple[Any, ...]) -> None:
    elements = cache.serialized(JsonPlusSerializer(), value, place)
    if elements is not None:
        cache.chunked(elements, {}, PLAIN)


MESSAGES: dict[str, tuple[int, Fill]] = {
    "small_messages": (80, small_messages),
    "a_growing_list": (400, growing_list),
    "trimmed_lists": (300, trimmed_list),
    "many_parts": (20, many_parts),
    "huge_places": (60, huge_places),
    "long_messages": (60, long_messages),
}


@pytest.mark.parametrize("shape", sample(MESSAGES, "a_growing_list", "huge_places"))
def test_serialized_messages(shape: str, traced: Callable[[], int]) -> None:
    times, fill = MESSAGES[shape]
    cache = MessageCache(LIMIT // 2)
    for n in range(times):
        fill(cache, n)
    assert traced() < SLACK * 3 * (LIMIT // 2)


def test_messages_that_were_read(traced: Callable[[], int]) -> None:
    cache, serde = RevivedCache(LIMIT), JsonPlusSerializer()

    def read(n: int) -> None:
        size = (3, 300, 5000)[n % 3]
        value = [AIMessage(f"{n} {each} " * size, id=f"{n}-{each}", response_metadata={"n": each}) for each in range(20)]
        cache.load(serde, serde.dumps_typed(value)[1])

    for n in range(times(90, 400)):
        read(n)
    assert LIMIT / 25 < traced() < SLACK * LIMIT


# --- saved states ---


def seen(n: int, versions: int, parts: int, tags: int) -> Seen:
    made = []
    for version in range(versions):
        header = Header(1, version, 1, loose=tuple(name(each + n) for each in range(parts)))
        told = {"tags": [f"{n}-{each}" * 5 for each in range(tags)], "version": "long" * 100 + str(n), "checksum": name(n)}
        made.append(StateVersion(f"{n:036d}", header, told, datetime.now().isoformat(), 1))
    return Seen(made, b"%d %d" % (n, n))


@pytest.mark.parametrize(
    "shape",
    [rare((1500, 1, 1, 0)), rare((50, 1, 500, 0)), (50, 20, 5, 3), rare((60, 1, 2, 300))],
    ids=["states", "parts", "versions", "tags"],
)
def test_saved_states(shape: tuple[int, ...], saver: RedisSaver, traced: Callable[[], int]) -> None:
    saver._engine.seen_bytes = LIMIT
    states = States(saver._engine, saver.serde, 1)
    times, *others = shape
    for n in range(times):
        states._seen.put(text(n, 200), seen(n, *others))
    assert LIMIT / 5 < traced() < SLACK * LIMIT


# --- all of it ---


def put(saver: RedisSaver, config: Any, values: dict[str, Any], version: int) -> Any:
    versions = dict.fromkeys(values, f"{version:032d}")
    return saver.put(config, checkpoint(values, versions), metadata(), versions)


@pytest.mark.parametrize("cache_bytes", [rare(0), 8_000_000])
def test_a_saver_with_states_of_every_shape(cache_bytes: int, url: str, prefix: str, traced: Callable[[], int]) -> None:
    tick = count(1)
    with RedisSaver(url, prefix=prefix, cache_bytes=cache_bytes) as saver:
        saver.ping()
        config: Any = at("channels")
        for _ in range(2):
            config = put(saver, config, {f"channel {n}": n for n in range(5000)}, next(tick))
            saver.get_tuple(config)
        config = at("chat")
        for n in range(15):
            config = put(saver, config, {"messages": [AIMessage(f"{each} " * 50) for each in range(n, 200 + n)]}, next(tick))
        for n in range(20):
            config = put(saver, at(f"thread {n}" * 2000), {"note": f"{n} " * 20_000}, next(tick))
            saver.get_tuple(config)
        del config
        assert traced() < SLACK * (cache_bytes + 2 * PUT_BYTES)


def test_without_a_cache_a_put_still_sends_only_what_is_new(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as saver:
        value = [f"{n} " * 60 for n in range(2000)]
        first = put(saver, at("t"), {"list": value}, 1)
        before = raw.info("stats")["total_net_input_bytes"]
        put(saver, first, {"list": [*value, "more"]}, 2)
        assert raw.info("stats")["total_net_input_bytes"] - before < 40_000
        assert id_of(first) != id_of(saver.get_tuple(at("t")).config)


def test_states_saved_by_a_saver_without_cache(url: str, prefix: str, traced: Callable[[], int]) -> None:
    with RedisStatePersistence(url, prefix=prefix, cache_bytes=0) as states:
        for n in range(60):
            states.save_with_metadata(f"{n} " * 5000, f"state {n}" * 500)
        assert traced() < SLACK * 2 * PUT_BYTES
