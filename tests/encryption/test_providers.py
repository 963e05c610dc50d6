"""Key providers: asked once for a thread, off the event loop; one that is away stops its threads only, and is never taken for
an empty thread."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from audit import WAIT, grow, put
from shapes import at, id_of, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.archive import export_threads
from langgraph_redis_state.errors import KeyProviderError
from langgraph_redis_state.operations import unlocking


class Provider:
    """Keys by thread. `away`: threads whose key is gone; `holds`: the thread whose question waits until it is let go."""

    def __init__(self, *away: str, holds: str = "") -> None:
        self.asked, self.away, self.holds = Counter[str](), set(away), holds
        self.begun, self.go = threading.Event(), threading.Event()
        self.on: set[int] = set()

    def __call__(self, thread: str) -> bytes:
        self.asked[thread] += 1
        self.on.add(threading.get_ident())
        if thread == self.holds:
            self.begun.set()
            assert self.go.wait(WAIT)
        if thread in self.away:
            raise KeyError(thread)
        return thread.encode().ljust(32, b".")


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released by each call that waits for the answer to another one's question."""
    arrived = threading.Semaphore(0)

    class Told(unlocking.Asking):
        def result(self, timeout: float | None = None) -> Any:
            arrived.release()
            return super().result(timeout)

    monkeypatch.setattr(unlocking, "Asking", Told)
    return arrived


async def four_reads(saver: RedisSaver, keys: Provider, waiting: threading.Semaphore) -> list[asyncio.Task[Any]]:
    """One asks, and three wait for its answer."""
    reads = [asyncio.create_task(saver.aget_tuple(at("t"))) for _ in range(4)]
    assert await asyncio.to_thread(keys.begun.wait, WAIT)
    for _ in range(3):
        assert await asyncio.to_thread(waiting.acquire, timeout=WAIT)
    return reads


async def test_calls_that_begin_at_once_share_one_question_and_hold_up_no_other_thread(
    url: str, prefix: str, waiting: threading.Semaphore
) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 2, 1)
        grow(saver, "u", 1, 1)
    keys = Provider(holds="t")
    async with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver:
        reads = await four_reads(saver, keys, waiting)
        assert await asyncio.wait_for(saver.aget_tuple(at("u")), WAIT)
        assert not any(read.done() for read in reads)
        keys.go.set()
        found = await asyncio.gather(*reads)
        assert len({id_of(each.config) for each in found}) == 1
        assert keys.asked == {"t": 1, "u": 1}
        assert threading.get_ident() not in keys.on


async def test_an_error_is_shared_too_and_the_next_call_asks_again(url: str, prefix: str, waiting: threading.Semaphore) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 1, 1)
    keys = Provider("t", holds="t")
    async with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver:
        reads = await four_reads(saver, keys, waiting)
        keys.go.set()
        found = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(each) for each in found} == {KeyProviderError}
        assert len(set(map(id, found))) == 4
        assert keys.asked == {"t": 1}
        keys.away.clear()
        assert await saver.aget_tuple(at("t"))


async def test_a_call_that_is_cancelled_while_it_asks_leaves_the_answer_to_the_others(
    url: str, prefix: str, waiting: threading.Semaphore
) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 1, 1)
    keys = Provider(holds="t")
    async with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver:
        reads = await four_reads(saver, keys, waiting)
        reads[0].cancel()
        keys.go.set()
        found = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(each) for each in found].count(asyncio.CancelledError) == 1
        assert keys.asked == {"t": 1}


def test_whoever_waits_asks_if_the_one_that_asked_was_interrupted(url: str, prefix: str, waiting: threading.Semaphore) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 1, 1)
    keys, begun = Provider(), threading.Event()

    def interrupted(thread: str) -> bytes:
        if not begun.is_set():
            begun.set()
            assert waiting.acquire(timeout=WAIT)
            raise KeyboardInterrupt
        return keys(thread)

    with RedisSaver(url, prefix=prefix, encryption_key=interrupted) as saver, ThreadPoolExecutor(2) as pool:
        first = pool.submit(saver.get_tuple, at("t"))
        assert begun.wait(WAIT)
        second = pool.submit(saver.get_tuple, at("t"))
        assert isinstance(first.exception(WAIT), KeyboardInterrupt)
        assert second.result(WAIT)


def test_threads_of_the_process_share_a_question(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 1, 1)
    keys = Provider(holds="t")
    with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver, ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(saver.get_tuple, at("t")) for _ in range(4)]
        assert keys.begun.wait(WAIT)
        keys.go.set()
        assert all(read.result(WAIT) for read in reads)
        assert keys.asked == {"t": 1}


def test_an_answer_is_used_until_it_is_old(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Provider()
    with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver:
        grow(saver, "t", 2, 1)
        assert keys.asked == {"t": 1}
        monkeypatch.setattr(unlocking, "KEY_SECONDS", -1.0)
        keys.away.add("t")
        with pytest.raises(KeyProviderError, match=r"asking for its key: thread 't'.*gave no key.*KeyError: 't'.*nothing was"):
            saver.get_tuple(at("t"))


def test_one_that_reads_the_thread_itself_is_told_so(url: str, prefix: str) -> None:
    def keys(thread: str) -> bytes:
        saver.get_tuple(at(thread))
        return bytes(32)

    with RedisSaver(url, prefix=prefix, encryption_key=keys) as saver:
        with pytest.raises(KeyProviderError, match="itself reads or writes the thread whose key it is asked for"):
            saver.get_tuple(at("t"))


async def later(thread: str) -> bytes:
    return bytes(32)


class Later:
    async def __call__(self, thread: str) -> bytes:
        return bytes(32)


@pytest.mark.parametrize("provider", [later, Later()])
def test_an_async_provider_is_refused(provider: Any) -> None:
    with pytest.raises(ValueError, match="encryption_key: the key provider is async, and must be a plain function"):
        RedisSaver(encryption_key=provider)


ANSWERS = {
    "none": (lambda thread: None, "a key is bytes, or several of them are a list, not NoneType"),
    "an empty list": (lambda thread: [], "a key is bytes"),
    "a text": (lambda thread: "x" * 32, "not str"),
    "a short key": (lambda thread: b"short", "a key has 5 bytes, and takes at least 32"),
    "a short key behind another": (lambda thread: [bytes(32), b"short"], "a key has 5 bytes"),
    "a newline": (lambda thread: bytes(32) + b"\n", "ends with a newline"),
    "a coroutine": (lambda thread: later(thread), "is async, and must be a plain function"),
    "an error": (lambda thread: 1 // 0, r"gave no key for thread 't' \(ZeroDivisionError: .*nothing was read or written"),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_is_no_key_is_an_error_and_nothing_is_read_or_written(url: str, prefix: str, raw: Any, answer: str) -> None:
    provider, sentence = ANSWERS[answer]
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        grow(saver, "t", 1, 1)
        key = saver._engine.address("t").keys.hash
    before = raw.hgetall(key)
    async with RedisSaver(url, prefix=prefix, encryption_key=provider) as saver:
        for call in (
            lambda: saver.get_tuple(at("t")),
            lambda: grow(saver, "t", 1, 2),
            lambda: list(saver.list(at("t"))),
            lambda: saver.copy_thread("t", "u"),
            lambda: saver.rekey(["t"]),
            lambda: saver.tags("t"),
            lambda: saver.put_writes(at("t", "", "id"), [("n", 1)], "task"),
        ):
            with pytest.raises(KeyProviderError, match=sentence) as caught:
                call()
            assert "thread 't'" in str(caught.value)
        with pytest.raises(KeyProviderError, match=sentence):
            await saver.aget_tuple(at("t"))
    assert raw.hgetall(key) == before


GONE = ("b", "d")


@pytest.fixture
def some_gone(url: str, prefix: str) -> Any:
    """A saver of five threads, of which the keys of two are gone."""
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        for thread in "abcde":
            grow(saver, thread, 1, thread, None)
    with RedisSaver(url, prefix=prefix, encryption_key=Provider(*GONE)) as opened:
        yield opened


def test_a_thread_whose_key_is_gone_is_listed_counted_expired_and_deleted(some_gone: RedisSaver) -> None:
    assert {each.thread_id for each in some_gone.list_threads()} == set("abcde")
    assert some_gone.stats().threads == 5
    assert some_gone.stats("b").checkpoints == 2
    some_gone.set_ttl("b", 60)
    some_gone.delete_thread("b")
    assert {each.thread_id for each in some_gone.list_threads()} == set("acde")


def test_heads_gives_it_with_its_problem(some_gone: RedisSaver) -> None:
    found = {each.thread_id: each.problem for each in some_gone.heads(["a", "b", "none", "c", "d", "e"])}
    assert {thread for thread, problem in found.items() if problem is None} == set("ace")
    assert list(found) == list("abcde")
    assert all(isinstance(found[thread], KeyProviderError) for thread in GONE)


def test_list_of_all_threads_gives_the_others_then_raises(some_gone: RedisSaver) -> None:
    seen: set[str] = set()
    listing = some_gone.list(None)
    with pytest.raises(KeyProviderError, match=r"list: no keys of 2 threads, all others are done; the first: .*thread '[bd]'"):
        seen.update(each.config["configurable"]["thread_id"] for each in listing)
    assert seen == set("ace")
    with pytest.raises(KeyProviderError, match="thread 'b'"):
        list(some_gone.list(at("b")))
    found = some_gone.list(None, limit=1)
    assert next(found).config["configurable"]["thread_id"] == "e"
    assert list(found) == []


def test_verify_finds_it_and_repair_leaves_it_alone(some_gone: RedisSaver, raw: Any) -> None:
    found = list(some_gone.verify())
    assert [
        (each.kind, each.thread_id, each.where, each.repairable) for each in sorted(found, key=lambda each: each.thread_id)
    ] == [
        ("locked", "b", "the thread", False),
        ("locked", "d", "the thread", False),
    ]
    assert "gave no key for thread 'b'" in next(some_gone.verify("b")).problem
    keys = {thread: some_gone._engine.address(thread).keys for thread in GONE}
    before = {thread: (raw.dump(each.hash), raw.zrange(each.all[1], 0, -1)) for thread, each in keys.items()}
    done = list(some_gone.repair(drop_unreadable=True))
    assert sorted((each.kind, each.thread_id, each.done) for each in done) == [
        ("locked", thread, "nothing: the key provider gives no key for it") for thread in GONE
    ]
    assert before == {thread: (raw.dump(each.hash), raw.zrange(each.all[1], 0, -1)) for thread, each in keys.items()}


def test_rekey_of_all_threads_does_the_others_then_raises(some_gone: RedisSaver, url: str, prefix: str) -> None:
    class Rotated(Provider):
        def __call__(self, thread: str) -> Any:
            return [bytes(32), super().__call__(thread)]

    seen: list[int] = []
    with RedisSaver(url, prefix=prefix, encryption_key=Rotated(*GONE)) as saver:
        with pytest.raises(KeyProviderError, match="rekey: no keys of 2 threads, all others are done"):
            saver.rekey(progress=seen.append)
        assert seen == [1, 2, 3]
    with RedisSaver(url, prefix=prefix, encryption_key=bytes(32)) as saver:
        assert all(saver.get_tuple(at(thread)) for thread in "ace")


def test_an_export_has_the_others_and_says_so(some_gone: RedisSaver, tmp_path: Any) -> None:
    report = export_threads(some_gone, tmp_path / "all")
    assert (report.threads, sorted(report.failures)) == (3, list(GONE))
    assert all("gave no key" in problem for problem in report.failures.values())


def test_heads_has_the_pending_writes_of_a_wide_fan_out(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=Provider()) as saver:
        for thread, tasks in (("a", 1), ("b", 12), ("c", 24), ("d", 0)):
            config = put(saver, at(thread), {"n": 1})
            for n in range(tasks):
                saver.put_writes(config, [("n", words((thread, n), 20))], f"task {n:02}")
        found = list(saver.heads(list("abcd")))
        assert [len(each.writes) for each in found] == [1, 12, 24, 0]
        assert [each.writes for each in found] == [tuple(saver.writes(thread)) for thread in "abcd"]
