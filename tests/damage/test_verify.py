"""`verify` finds each kind of damage where it is and nothing else, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import ERROR
from shapes import at, checkpoint, expiries, id_of, metadata, words
from soak import every, rare
from verifying import DAMAGES, FIRST, IDS, build, put, told

from langgraph_redis_state import Finding, Progress, RedisSaver
from langgraph_redis_state.errors import CheckpointNotFoundError, ThreadDeletedError, ThreadExistsError, ThreadNotFoundError
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_key, bucket_of


def contents(client: Any, prefix: str) -> dict[bytes, Any]:
    """Every key of the prefix as it is stored, its moment of expiry included."""
    found = {}
    for key in client.scan_iter(match=f"{prefix}:*", count=10_000):
        kind = client.type(key)
        if kind == b"hash":
            content = client.hgetall(key)
        elif kind == b"zset":
            content = client.zrange(key, 0, -1, withscores=True)
        else:
            content = client.dump(key)
        found[key] = (content, expiries(client, key)[0])
    return found


def found(saver: RedisSaver, thread: str | None = None) -> list[tuple[str, str | None, str, bool]]:
    return [(each.kind, each.thread_id, each.where, each.repairable) for each in saver.verify(thread)]


@pytest.fixture
def whole(url: str, prefix: str) -> Iterator[RedisSaver]:
    with RedisSaver(url, prefix=prefix, index_metadata=("user",)) as saver:
        build(saver)
        build(saver, "another")
        yield saver


# --- nothing is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [None, 3600])
def test_a_sound_thread_gives_no_finding_through_everything_that_can_be_done_to_it(url: str, prefix: str, ttl: Any) -> None:
    with RedisSaver(url, prefix=prefix, ttl=ttl, index_metadata=("user",)) as saver:

        def sound() -> None:
            assert [*saver.verify()] == []
            for thread in ("t", "copy", "nobody"):
                assert [*saver.verify(thread)] == []

        build(saver)
        sound()
        saver.copy_thread("t", "copy")
        sound()
        saver.set_ttl("copy", 100)
        put(saver, "copy", "", IDS[4], {"n": 4}, IDS[1], run_id="run c", user="bob")
        sound()
        saver.persist("copy")
        sound()
        saver.rollback("copy", IDS[0])
        sound()
        saver.rollback("copy", IDS[1], mode="truncate")
        sound()
        saver.untag("copy", "good")
        saver.tag("copy", "inner", IDS[1])
        sound()
        saver.prune(["copy"])
        sound()
        saver.delete_for_runs(["run b"])
        sound()
        saver.delete_thread("t")
        sound()


@pytest.mark.parametrize("seed", [0, *map(rare, range(1, 8))])
def test_nothing_is_wrong_after_a_random_history(url: str, prefix: str, seed: int) -> None:
    """Everything that writes, in any order: what it leaves is what verification expects."""
    chosen = random.Random(seed)
    with (
        RedisSaver(url, prefix=prefix, index_metadata=("user",), max_versions=12) as one,
        RedisSaver(url, prefix=prefix, ttl=3600, compression="none", tombstone=None) as other,
    ):
        heads: dict[str, Any] = {}
        texts = [words(n, 60) for n in range(200)]
        for n in range(60):
            saver, thread = chosen.choice((one, other)), chosen.choice(("t", "u", "v"))
            step = chosen.choice(("put", "put", "put", "sub", "writes", "writes", "early", "tag", "untag", "prune", "truncate",
                                  "fork", "delete", "copy", "ttl", "persist", "runs", "again"))  # fmt: skip
            try:
                if step in ("put", "sub", "again"):
                    ns = chosen.choice(("", "", "sub:1", "beside")) if step != "sub" else f"sub:{n}"
                    values = {"log": texts[: chosen.randrange(200)], "x": chosen.choice((n, texts[n]))}
                    id = None if step != "again" or thread not in heads else id_of(heads[thread])
                    made = checkpoint(values, id=id)
                    more = metadata(run_id=f"run {chosen.randrange(3)}", user=chosen.choice(("ada", "bob")))
                    heads[thread] = saver.put(at(thread, ns), made, more, made["channel_versions"])
                elif step in ("writes", "early") and thread in heads:
                    config = heads[thread] if step == "writes" else at(thread, "", checkpoint()["id"])
                    written = [
                        ("a", texts[: chosen.randrange(60)]),
                        (chosen.choice((ERROR, "b")), texts[: chosen.randrange(20)]),
                    ]
                    saver.put_writes(config, written, f"task {chosen.randrange(3)}")
                elif step == "tag":
                    saver.tag(thread, f"tag {n % 3}")
                elif step == "untag":
                    saver.untag(thread, f"tag {n % 3}")
                elif step == "prune":
                    saver.prune([thread], keep_last=chosen.choice((None, 1, 3)))
                elif step in ("truncate", "fork"):
                    saver.rollback(thread, -1, mode=step)
                elif step == "delete" and chosen.randrange(2):
                    saver.delete_thread(thread)
                elif step == "copy":
                    saver.copy_thread(thread, chosen.choice("tuv"))
                elif step == "ttl":
                    saver.set_ttl(thread, chosen.choice((None, 500)))
                elif step == "persist":
                    saver.persist(thread)
                elif step == "runs":
                    saver.delete_for_runs([f"run {n % 3}"])
            except (CheckpointNotFoundError, ThreadDeletedError, ThreadExistsError, ThreadNotFoundError, ValueError):
                pass  # refused, and then nothing may have changed
            assert [each for each in one.verify(thread) if each.kind != "orphan"] == [], (n, step)
        # what was replaced under the same id left chunks
        assert {each.kind for each in one.verify()} <= {"orphan"}
        before = told(one)
        assert {each.kind for each in one.repair()} <= {"orphan"}
        assert [*one.verify()] == []
        assert told(one) == before


def test_verifying_changes_nothing_not_even_a_ttl(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=3600, refresh_ttl_on_read=True) as saver:
        build(saver)
        keys = ThreadKeys(prefix, b"t").all
        for key in keys[:2]:
            raw.pexpire(key, 1_800_000)  # less than 90 %, so that a read would refresh it
        raw.zadd(keys[3], {b"t": raw.time()[0] * 1000 + 1_800_000})
        raw.delete(keys[1])  # a read would write the index anew
        before = contents(raw, prefix)
        assert [each.kind for each in saver.verify()] == ["index"]
        assert [each.kind for each in saver.verify("t")] == ["index"]
        assert contents(raw, prefix) == before


def test_what_expired_is_no_finding_before_it_was_tidied_up(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=3600) as saver:
        build(saver)
        keys = ThreadKeys(prefix, b"t").all
        raw.delete(*keys[:2])  # as the server does, once the moment has come
        raw.zadd(keys[3], {b"t": 1})
        assert [*saver.verify()] == []
        raw.zadd(keys[3], {b"t": 4e12})
        assert found(saver) == [("bucket", "t", "the bucket's indexes", True)]


STRANGE = [":", "t:1", "{}", "{a}:t", "a b", "*", "[x]?\\", "🙂", "u:0123456789abcdef:i", "", "x\ny"]


@pytest.mark.parametrize("thread", every(2, STRANGE))
def test_no_thread_id_is_taken_for_another(url: str, raw: Any, prefix: str, thread: str) -> None:
    with RedisSaver(url, prefix=f"{prefix}*[x]?\\") as saver:
        for each in (thread, f"{thread}:i", f"t{thread}"):
            put(saver, each, "", IDS[0], {"n": 1}, run_id="r")
        assert [*saver.verify()] == [*saver.verify(thread)] == []
        key = ThreadKeys(f"{prefix}*[x]?\\", thread.encode())
        raw.hdel(key.hash, b"S")
        assert found(saver) == found(saver, thread) == [("counts", thread, "counts (field S)", True)]
        assert [(each.kind, each.thread_id) for each in saver.repair()] == [("counts", thread)]
        assert [*saver.verify()] == []


# --- what belongs to no thread ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["threads", "expiry", "runs", "m"])
def test_an_index_of_a_bucket_of_the_wrong_type_is_found_and_written_anew(
    whole: RedisSaver, raw: Any, prefix: str, index: str
) -> None:
    key = bucket_key(prefix, bucket_of(b"t"), index)
    raw.delete(key)
    raw.lpush(key, "not what you think")
    assert found(whole) == found(whole, "t") == [("unknown", None, key.decode(), False)]
    assert [*whole.repair()] == []
    done = [each.kind for each in whole.repair(drop_unreadable=True)]
    assert done[0] == "unknown"
    assert set(done[1:]) == ({"bucket"} if index in ("threads", "runs") else set())
    assert [*whole.verify()] == []


@pytest.mark.parametrize(
    ("index", "member"),
    [("threads", b"another"), rare("threads", b"\xff"), ("expiry", b"another"), ("runs", b"Rrun a\0another"),
     rare("runs", b"Xrun"), rare("runs", b"Rrun a"), ("runs", b"R\x80short\0t"),
     rare("runs", b"Tt\0\x80short"), ("m", b"Vuser\0t"), rare("m", b"Tanother\0user\0str:ada"), ("m", b"")],
)  # fmt: skip
def test_an_entry_that_belongs_to_no_thread_of_a_bucket_is_found_and_removed(
    whole: RedisSaver, raw: Any, prefix: str, index: str, member: bytes
) -> None:
    assert bucket_of(b"another") != bucket_of(b"t")
    key = bucket_key(prefix, bucket_of(b"t"), index)
    raw.zadd(key, {member: 0})
    assert found(whole) == [("bucket", None, key.decode(), True)]
    assert found(whole, "t") == []
    (done,) = whole.repair()
    assert repr(member) in done.done
    assert [*whole.verify()] == []


def test_entries_of_a_thread_that_is_gone_are_found_and_removed(whole: RedisSaver, raw: Any, prefix: str) -> None:
    raw.delete(*ThreadKeys(prefix, b"t").all[:2])
    assert found(whole) == found(whole, "t") == [("bucket", "t", "the bucket's indexes", True)]
    assert [each.kind for each in whole.repair()] == ["bucket"]
    assert [*whole.verify()] == []
    assert [*raw.scan_iter(match=f"{prefix}:{{{bucket_of(b't'):04x}}}:*", count=10_000)] == []


def test_a_thread_that_no_index_knows_is_found_by_its_keys(whole: RedisSaver, raw: Any, prefix: str) -> None:
    raw.delete(*ThreadKeys(prefix, b"t").all[2:])
    assert {each[:3] for each in found(whole)} == {
        *(("bucket", "t", f"the bucket's {what}") for what in ("threads", "runs")),
    }
    assert {each.kind for each in whole.repair()} == {"bucket"}
    assert [*whole.verify()] == []
    assert {each.thread_id for each in whole.list_threads()} == {"t", "another"}


def test_staging_that_never_expires_and_keys_of_nobody_are_found(whole: RedisSaver, raw: Any, prefix: str) -> None:
    bucket = f"{prefix}:{{{bucket_of(b't'):04x}}}"
    stale, fresh = ThreadKeys(prefix, b"t").staging(b"0123456789abcdef")
    raw.hset(stale, "D", "x")
    raw.zadd(fresh, {"C": 0}), raw.expire(fresh, 600)
    for name in (f"{bucket}:strange", f"{bucket}:t:another", f"{prefix}:{{zzzz}}:t:t", f"{prefix}:{{ffff}}:t:t"):
        raw.set(name, "x")
    assert sorted(found(whole)) == sorted(
        [("staging", None, stale.decode(), True)]
        + [
            ("unknown", None, name, False)
            for name in (f"{bucket}:strange", f"{bucket}:t:another", f"{prefix}:{{zzzz}}:t:t", f"{prefix}:{{ffff}}:t:t")
        ]
    )
    assert [each.kind for each in whole.repair()] == ["staging"]
    assert {each.kind for each in whole.verify()} == {"unknown"}
    assert {each.kind for each in whole.repair(drop_unreadable=True)} == {"unknown"}
    assert [*whole.verify()] == []
    assert raw.exists(fresh)


# --- keys, surfaces, progress -----------------------------------------------------------------------------------------


def test_what_is_not_signed_with_the_key_is_a_finding(url: str, prefix: str) -> None:
    with (
        RedisSaver(url, prefix=prefix, integrity_key=b"the key of tests") as keyed,
        RedisSaver(url, prefix=prefix, integrity_key=b"another key of tests") as other,
        RedisSaver(url, prefix=prefix) as unkeyed,
    ):
        put(keyed, "t", "", IDS[0], {"n": 1})
        keyed.tag("t", "mine")
        put(unkeyed, "t", "", IDS[1], {"n": 2}, IDS[0])
        unkeyed.tag("t", "theirs")
        put(other, "t", "", IDS[2], {"n": 3}, IDS[1])
        theirs = [FIRST.replace(IDS[0], id) for id in IDS[1:3]] + ["tag 'theirs'"]
        assert sorted(found(keyed)) == sorted(("damaged", "t", where, False) for where in theirs)
        assert {each.problem.split(";")[0].split(",")[0] for each in keyed.verify()} >= {"neither signed nor encrypted"}
        assert len([*other.verify()]) == 4
        assert len([*unkeyed.verify()]) == 3
        for _ in keyed.repair(drop_unreadable=True):
            pass
        assert [*keyed.verify()] == []
        assert [id_of(each.config) for each in keyed.list(at("t"))] == [IDS[0]]


async def test_the_async_methods_find_and_mend_the_same(whole: RedisSaver, url: str, raw: Any, prefix: str) -> None:
    DAMAGES["a chunk"][0](raw, ThreadKeys(prefix, b"t"))
    DAMAGES["the index is gone"][0](raw, ThreadKeys(prefix, b"another"))
    async with RedisSaver(url, prefix=prefix) as saver:
        expected = [*whole.verify()]
        assert len(expected) == 2
        assert [each async for each in saver.averify()] == expected
        assert [each async for each in saver.averify("t")] == [each for each in expected if each.thread_id == "t"]
        assert [each.thread_id async for each in saver.arepair()] == ["another"]
        dropped = [each.kind async for each in saver.arepair("t", drop_unreadable=True)]
        assert dropped[0] == "damaged"
        assert [each async for each in saver.averify()] == []


def test_findings_come_as_they_are_found_with_progress(whole: RedisSaver, raw: Any, prefix: str) -> None:
    for thread in (b"t", b"another"):
        raw.hdel(ThreadKeys(prefix, thread).hash, b"S")
    seen: list[Progress] = []
    sweep = whole.verify(progress=seen.append)
    assert isinstance(next(sweep), Finding)
    assert seen[-1].threads == 1
    assert len([*sweep]) == 1
    counts = [(each.threads, each.records, each.chunks, each.bytes) for each in seen]
    assert all(before[n] <= after[n] for before, after in pairwise(counts) for n in range(4))
    assert len([*whole.repair()]) == 2
    stats = whole.stats()
    assert (seen[-1].threads, seen[-1].records, seen[-1].chunks) == (2, stats.checkpoints + stats.writes, stats.chunks)
    assert seen[-1].bytes >= stats.stored_bytes
