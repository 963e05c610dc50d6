"""What a process has verified it does not read again, and nobody can tell by what it gets."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from shapes import at, checkpoint, id_of, metadata, plain, words
from soak import rare, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching.parts import ChunkCache
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointLostError
from langgraph_redis_state.storage.codec import digest
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.seals import PLAIN

Make = Callable[..., RedisSaver]


@pytest.fixture
def make(url: str, prefix: str) -> Iterator[Make]:
    """Savers on the test's prefix, each as another process would have it."""
    made: list[RedisSaver] = []

    def build(**options: Any) -> RedisSaver:
        made.append(RedisSaver(url, prefix=prefix, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


def message(n: int) -> AIMessage:
    return AIMessage(words(n, 60), id=str(n))


def put(saver: RedisSaver, config: Any, values: dict[str, Any], version: int, changed: tuple[str, ...] | None = None) -> Any:
    made = checkpoint(values, dict.fromkeys(values, version))
    if changed is not None:
        made["channel_versions"] = {name: version if name in changed else 1 for name in values}
    return saver.put(config, made, metadata(), dict.fromkeys(changed or values, version))


def received(raw: Any, work: Callable[[], Any]) -> int:
    """Bytes the server sent for it, within what it sends to tell so."""

    def sent() -> int:
        return int(raw.info("stats")["total_net_output_bytes"])

    first = sent()
    own = sent() - first
    before = sent()
    work()
    return sent() - before - own


def test_a_warm_saver_receives_only_what_is_new(make: Make, raw: Any) -> None:
    writer, reader = make(), make()
    value = [message(n) for n in range(400)]
    config = put(writer, at("t"), {"messages": value}, 1)
    whole = received(raw, lambda: reader.get_tuple(at("t")))
    assert received(raw, lambda: reader.get_tuple(at("t"))) < whole / 50
    for n in range(400, 405):
        value = [*value[1:], message(n)]
        config = put(writer, config, {"messages": value}, n)
        assert received(raw, lambda: reader.get_tuple(at("t"))) < whole / 15
        assert reader.get_tuple(at("t")).checkpoint["channel_values"]["messages"] == value
    assert received(raw, lambda: writer.get_tuple(at("t"))) < whole / 50  # what it sent it need not read
    assert received(raw, lambda: make(cache_bytes=0).get_tuple(at("t"))) > whole / 2


def test_naming_a_checkpoint_reads_no_values_and_diff_reads_equal_ones_once(make: Make, raw: Any) -> None:
    saver = make(cache_bytes=0, compression="none")
    big = [words(n, 300) for n in range(200)]
    first = put(saver, at("t"), {"big": big, "n": 1}, 1)
    second = put(saver, first, {"big": big, "n": 2}, 2, ("n",))
    ids = [id_of(each) for each in (first, second)]
    whole = received(raw, lambda: saver.get_tuple(at("t")))
    assert received(raw, lambda: saver.tag("t", "here", ids[0])) < whole / 10
    assert received(raw, lambda: saver.diff("t", *ids)) < whole * 1.2
    assert received(raw, lambda: saver.rollback("t", ids[0], mode="truncate")) < whole / 10


def test_nothing_is_remembered_when_told_so(make: Make, raw: Any) -> None:
    saver = make(cache_bytes=0)
    put(saver, at("t"), {"messages": [message(n) for n in range(100)]}, 1)
    sizes = [received(raw, lambda: saver.get_tuple(at("t"))) for _ in range(2)]
    assert sizes[1] > sizes[0] / 2 > 20_000


@pytest.mark.parametrize("size", [-1, 1.5, True, "1"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="cache_bytes"):
        RedisSaver(cache_bytes=size)


@pytest.mark.longer
@pytest.mark.parametrize("cache_bytes", [rare(0), 30_000, rare(200_000), 64 * 1024 * 1024])
def test_a_warm_saver_gives_what_a_cold_one_gives(make: Make, cache_bytes: int) -> None:
    """A chat that grows, is trimmed and forked, with large pending writes, read at any id in any order."""
    chosen, warm, writer = random.Random(5), make(cache_bytes=cache_bytes), make()
    configs: list[Any] = [at("t")]
    value, note = [message(n) for n in range(80)], words(1, 3000)
    for n in range(times(12, 30)):
        value = [*value[n % 4 :], message(100 + n), message(200 + n % 3)]
        note = note if n % 5 else words(1000 + n, 3000)
        parent = configs[-1] if n % 7 else chosen.choice(configs)
        who = warm if n % 2 else writer
        configs.append(put(who, parent, {"messages": value, "note": note}, n + 1, ("messages", "note")))
        who.put_writes(configs[-1], [("messages", value[-5:]), ("n", n), ("note", note)], f"task-{n}")
        for config in (at("t"), *chosen.choices(configs[1:], k=3)):
            assert plain(warm.get_tuple(config)) == plain(make(cache_bytes=0).get_tuple(config))


async def test_the_async_methods_share_it(make: Make, raw: Any) -> None:
    async with make() as saver:
        put(saver, at("t"), {"messages": [message(n) for n in range(100)]}, 1)
        found = await saver.aget_tuple(at("t"))
        assert found == saver.get_tuple(at("t"))


def test_what_was_returned_may_be_changed(make: Make) -> None:
    saver = make()
    put(saver, at("t"), {"files": {str(n): words(n, 100) for n in range(50)}}, 1)
    found = saver.get_tuple(at("t"))
    found.checkpoint["channel_values"]["files"].clear()
    assert len(saver.get_tuple(at("t")).checkpoint["channel_values"]["files"]) == 50


def test_damage_shows_to_who_does_not_remember(make: Make, raw: Any, prefix: str) -> None:
    warm, keys = make(), ThreadKeys(prefix, b"t")
    put(warm, at("t"), {"note": words(1, 3000)}, 1)
    truth = plain(warm.get_tuple(at("t")))
    for name, content in raw.hgetall(keys.hash).items():
        if name[:1] == b"D":
            raw.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))
    assert plain(warm.get_tuple(at("t"))) == truth
    with pytest.raises(CheckpointCorruptError):
        make().get_tuple(at("t"))
    with pytest.raises(CheckpointCorruptError):
        list(warm.list(at("t")))


def test_a_lost_chunk_is_made_again_by_the_next_put(make: Make, raw: Any, prefix: str) -> None:
    warm, keys = make(), ThreadKeys(prefix, b"t")
    values = {"messages": [message(n) for n in range(100)], "note": words(1, 3000)}
    config = put(warm, at("t"), values, 1)
    lost = [name for name in raw.hkeys(keys.hash) if name[:1] in b"DP"]
    raw.hdel(keys.hash, *lost)  # a page that is there stands for its chunks: one lost from under it, only verify finds
    assert warm.get_tuple(at("t")).checkpoint["channel_values"] == values
    with pytest.raises(CheckpointLostError):
        make().get_tuple(at("t"))
    put(warm, config, values, 2, ("messages",))
    assert make().get_tuple(at("t")).checkpoint["channel_values"] == values


def test_a_thread_that_is_gone_is_gone_for_a_warm_saver_too(make: Make) -> None:
    warm, other = make(), make()
    put(warm, at("t"), {"note": words(1, 3000)}, 1)
    other.delete_thread("t")
    assert warm.get_tuple(at("t")) is None


def test_what_is_remembered_is_bounded() -> None:
    limit = 1_000_000
    verified = ChunkCache(limit)
    names = []
    for n in range(3000):
        content = words(n, 50).encode()
        names.append(digest(content))
        verified.sent({digest(names[-1]): names[-1]}, {names[-1]: content})
    kept = [verified.chunks.get(name) for name in reversed(names)]
    assert 200_000 < sum(len(each) for each in kept if each) < limit
    assert sum(verified.pages.get(digest(name)) is not None for name in names) < 1000
    assert None not in kept[:300]


def test_a_page_with_a_chunk_that_was_forgotten_is_read_again() -> None:
    verified = ChunkCache(1_000_000)
    contents = [words(n, 20).encode() for n in range(9)]
    names = [digest(content) for content in contents]
    page = b"".join(names[:8])
    verified.sent({digest(page): page}, dict(zip(names[1:], contents[1:], strict=True)))
    have = verified.have([digest(page)], set(names), PLAIN)
    assert not have.lists
    assert have.loose == names[8:]
    verified.sent({}, {names[0]: contents[0]})
    have = verified.have([digest(page), b"unknown"], set(names), PLAIN)
    assert list(have.lists) == [digest(page)]
    assert have.plain == dict(zip(names, contents, strict=True))


def decoding_threads(saver: RedisSaver, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on, the thread of each deserialization."""
    where: list[int] = []
    original = type(saver.serde).loads_typed

    def loads_typed(self: Any, data: Any) -> Any:
        where.append(threading.get_ident())
        return original(self, data)

    monkeypatch.setattr(type(saver.serde), "loads_typed", loads_typed)
    return where


async def test_large_states_are_decoded_in_a_worker_thread_though_little_was_received(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as saver:
        put(saver, at("t"), {"note": words(1, 60_000)}, 1)
        await saver.aget_tuple(at("t"))
        where = decoding_threads(saver, monkeypatch)
        await saver.aget_tuple(at("t"))
        assert where
        assert threading.get_ident() not in where


async def test_what_delta_channels_are_rebuilt_from_is_decoded_in_a_worker_thread(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as saver:
        first = put(saver, at("t"), {"note": words(1, 60_000)}, 1)
        await saver.aput_writes(first, [("note", words(2, 60_000))], "task")
        second = put(saver, first, {}, 2)
        where = decoding_threads(saver, monkeypatch)
        found = await saver.aget_delta_channel_history(config=second, channels=["note"])
        assert found["note"]["seed"] == words(1, 60_000)
        assert [value for _, _, value in found["note"]["writes"]] == [words(2, 60_000)]
        assert len(where) >= 2
        assert threading.get_ident() not in where


def test_after_an_old_checkpoint_was_read_the_latest_is_still_known(make: Make, raw: Any) -> None:
    writer, reader = make(), make()
    first = put(writer, at("t"), {"messages": [message(n) for n in range(5)]}, 1)
    put(writer, first, {"messages": [message(n) for n in range(300)]}, 2)
    whole = received(raw, lambda: reader.get_tuple(at("t")))
    reader.get_tuple(first)
    assert received(raw, lambda: reader.get_tuple(at("t"))) < whole / 50
