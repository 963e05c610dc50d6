"""`verify` finds each kind of damage where it is and nothing else, changes nothing, and `repair` mends what it finds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Interrupt
from shapes import at, checkpoint, expiries, id_of, metadata, plain, words
from soak import times

from langgraph_redis_state import Finding, Progress, RedisSaver
from langgraph_redis_state.errors import (
    CheckpointLostError,
    CheckpointNotFoundError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from langgraph_redis_state.storage.keys import ThreadKeys, across_member, bucket_key, bucket_of, checkpoint_field, writes_field

IDS = [f"1f0a0000-0000-6000-8000-00000000000{n}" for n in range(9)]
BIG = 40


def put(
    saver: RedisSaver, thread: str, ns: str, id: str, values: dict[str, Any], parent: str | None = None, **more: Any
) -> Any:
    made = checkpoint(values, id=id)
    return saver.put(at(thread, ns, parent), made, metadata(**more), made["channel_versions"])


def build(saver: RedisSaver, thread: str = "t") -> None:
    """Namespaces, chunks, pages, pending writes with and without chunks, tags, runs, indexed metadata."""
    messages = [words(n, 300) for n in range(BIG)]
    put(saver, thread, "", IDS[0], {"messages": messages, "n": 1}, run_id="run a", user="ada")
    child = put(saver, thread, "", IDS[1], {"messages": [*messages, "more"], "n": 2}, IDS[0], run_id="run b", user="ada")
    put(saver, thread, "sub:1", IDS[2], {"own": [words(1000, 400)]}, parents={"": IDS[1]}, run_id="run b", user="ada")
    put(saver, thread, "beside", IDS[3], {"n": 3}, run_id="run b", user="ada")
    saver.put_writes(child, [("long", words(8, 400)), ("short", 1)], "task 1")
    saver.put_writes(child, [(INTERRUPT, [Interrupt("why?", id="i")]), (RESUME, ["yes"])], "task 2")
    saver.put_writes(at(thread, "sub:1", IDS[2]), [("pages", [words(2000 + n, 300) for n in range(BIG)])], "task 3")
    saver.put_writes(at(thread, "", IDS[5]), [("early", 1)], "task 4")
    saver.tag(thread, "good", IDS[0])
    saver.tag(thread, "inner", IDS[2], checkpoint_ns="sub:1")


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


def told(saver: RedisSaver) -> dict[tuple[str, str, str], Any]:
    return {
        (each.config["configurable"]["thread_id"], each.config["configurable"]["checkpoint_ns"], id_of(each.config)): plain(
            each
        )
        for each in saver.list(None)
    }


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


@pytest.mark.parametrize("seed", range(8))
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


@pytest.mark.parametrize("thread", [":", "t:1", "{}", "{a}:t", "a b", "*", "[x]?\\", "🙂", "u:0123456789abcdef:i", "", "x\ny"])
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


# --- each damage is found, and mended ---------------------------------------------------------------------------------


Damage = Callable[[Any, ThreadKeys], Any]


def flip(field: bytes, position: int) -> Damage:
    def damage(client: Any, keys: ThreadKeys) -> None:
        content = bytearray(client.hget(keys.hash, field))
        content[position] ^= 4
        client.hset(keys.hash, field, bytes(content))

    return damage


def part(kind: bytes, client: Any, keys: ThreadKeys, of: bytes) -> bytes:
    """A chunk or page that this record refers to."""
    record = client.hget(keys.hash, of)
    return next(name for name in sorted(client.hkeys(keys.hash)) if name[:1] == kind and name[1:] in record)


def lose(kind: bytes, of: bytes) -> Damage:
    return lambda client, keys: client.hdel(keys.hash, part(kind, client, keys, of))


def spoil(kind: bytes, of: bytes) -> Damage:
    return lambda client, keys: client.hset(keys.hash, part(kind, client, keys, of), b"\0not what was written")


C0, C1, C3 = (checkpoint_field(ns, id.encode()) for ns, id in ((b"", IDS[0]), (b"", IDS[1]), (b"beside", IDS[3])))
A3 = across_member(b"beside", IDS[3].encode())
C2, W2 = checkpoint_field(b"sub:1", IDS[2].encode()), writes_field(b"sub:1", IDS[2].encode())
W1, EARLY = writes_field(b"", IDS[1].encode()), writes_field(b"", IDS[5].encode())
FIRST, SECOND = f"checkpoint {IDS[0]!r} of namespace ''", f"checkpoint {IDS[1]!r} of namespace ''"
NOBODY = "checkpoint 'ghost' of namespace ''"
KEYS, EXPIRY = ("expiry", "the thread's two keys"), ("bucket", "the bucket's moments of expiry")
LATER = f"pending writes of checkpoint {IDS[5]!r} of namespace ''"
INNER, BESIDE = f"checkpoint {IDS[2]!r} of namespace 'sub:1'", f"checkpoint {IDS[3]!r} of namespace 'beside'"


def on(n: int, verb: str, *arguments: Any) -> Damage:
    return lambda client, keys: client.execute_command(verb, keys.all[n], *arguments)


def wrong(n: int) -> Damage:
    def damage(client: Any, keys: ThreadKeys) -> None:
        client.delete(keys.all[n])
        client.lpush(keys.all[n], "not what you think")

    return damage


DAMAGES: dict[str, tuple[Damage, list[tuple[str, str]], set[str]]] = {
    # name: damage, (kind, where) that is found, ids of the checkpoints that are lost with it
    **{
        f"byte {position} of a checkpoint": (flip(C3, position), [("damaged", BESIDE)], {IDS[3]})
        for position in (0, 8, 14, 18, 20, 21, 22, 24, 26, 29, 34, 39, 41, -20, -1)
    },
    **{
        f"byte {position} of pending writes": (flip(EARLY, position), [("damaged", LATER)], set())
        for position in (0, 2, 5, 9, 18, 24, 30, 45, -1)
    },
    "the second of several writes": (flip(W1, -5), [("damaged", f"pending writes of {SECOND}")], {IDS[1]}),
    "a chunk": (spoil(b"D", C2), [("damaged", "chunk")], {IDS[2]}),
    "a page": (spoil(b"P", C0), [("damaged", "page of references")], {IDS[0], IDS[1]}),
    "a tag": (flip(b"Ggood", 5), [("damaged", "tag 'good'")], set()),
    "the counts": (flip(b"S", 4), [("counts", "counts (field S)")], set()),
    "the counts are gone": (on(0, "HDEL", b"S"), [("counts", "counts (field S)")], set()),
    "a checkpoint is gone": (on(0, "HDEL", C3), [("lost", BESIDE)], {IDS[3]}),
    "a tagged checkpoint is gone": (on(0, "HDEL", C0), [("lost", FIRST)], {IDS[0]}),
    "a checkpoint with writes is gone": (on(0, "HDEL", C2), [("lost", INNER)], {IDS[2]}),
    "inline writes are gone": (on(0, "HDEL", EARLY), [("counts", "counts (field S)")], set()),
    "a chunk is gone": (lose(b"D", C2), [("lost", INNER)], {IDS[2]}),
    "a chunk of a write is gone": (lose(b"D", W1), [("lost", f"pending writes of {SECOND}")], {IDS[1]}),
    "a page of a write is gone": (lose(b"P", W2), [("lost", f"pending writes of {INNER}")], {IDS[2]}),
    "a tag is gone": (on(0, "HDEL", b"Ginner"), [("lost", "tag 'inner'")], set()),
    "a strange field": (on(0, "HSET", b"Zoo", b"junk"), [("unknown", "field b'Zoo'")], set()),
    "a field without a name": (on(0, "HSET", b"", b"junk"), [("unknown", "field b''")], set()),
    "a field like a checkpoint's": (on(0, "HSET", b"C\0\xff\xfe", b"junk"), [("unknown", "field b'C\\x00\\xff\\xfe'")], set()),
    "a checkpoint of somebody else": (on(0, "HSET", b"C\0ghost", b"junk"), [("damaged", NOBODY)], set()),
    "a chunk that nothing needs": (
        on(0, "HSET", b"D" + b"x" * 16, b"\0junk"),
        [("damaged", "chunk " + (b"x" * 16).hex())],
        set(),
    ),
    "an index entry is gone": (on(1, "ZREM", C1), [("index", SECOND)], set()),
    "an index entry across is gone": (on(1, "ZREM", A3), [("index", BESIDE)], set()),
    "an index entry of a tag is gone": (on(1, "ZREM", b"Gextra", b"Ggood"), [("index", "tag 'good'")], set()),
    "an index entry has moved": (on(1, "ZADD", 1, C1), [("index", SECOND)], set()),
    "a strange index entry": (on(1, "ZADD", 0, b"Zoo"), [("index", "member b'Zoo' of the index")], set()),
    "an index entry without a checkpoint": (on(1, "ZADD", 0, b"C\0ghost"), [("lost", NOBODY)], set()),
    "an index entry across, of nothing": (on(1, "ZADD", 0, b"Aghost\0ns"), [("index", NOBODY.replace("''", "'ns'"))], set()),
    "an index entry of no tag": (on(1, "ZADD", 0, b"Gghost"), [("lost", "tag 'ghost'")], set()),
    "the index is gone": (on(1, "DEL"), [("index", "the index")], set()),
    "the hash is gone": (on(0, "DEL"), [("lost", "the thread")], set(IDS)),
    "only the hash expires": (on(0, "PEXPIRE", 900_000), [KEYS, EXPIRY], set()),
    "only the index expires": (on(1, "PEXPIRE", 900_000), [KEYS], set()),
    "the bucket says that it expires": (on(3, "ZADD", 4e12, b"t"), [EXPIRY], set()),
    "the bucket forgot the thread": (on(2, "ZREM", b"t"), [("bucket", "the bucket's threads")], set()),
    "the bucket forgot a run": (on(4, "ZREM", b"Rrun a\0t"), [("bucket", "the bucket's runs")], set()),
    "the bucket forgot the reverse of a run": (on(4, "ZREM", b"Tt\0run b"), [("bucket", "the bucket's runs")], set()),
    "the bucket names a wrong run": (on(4, "ZADD", 0, b"Rrun z\0t"), [("bucket", "the bucket's runs")], set()),
    "the bucket reverses a wrong run": (on(4, "ZADD", 0, b"Tt\0run z"), [("bucket", "the bucket's runs")], set()),
    "the bucket forgot metadata": (on(5, "ZREM", b"Vuser\0str:ada\0t"), [("bucket", "the bucket's metadata")], set()),
    "the bucket names wrong metadata": (on(5, "ZADD", 0, b"Vuser\0str:bob\0t"), [("bucket", "the bucket's metadata")], set()),
    "the hash is a list": (wrong(0), [("unknown", "t")], set(IDS)),
    "the index is a list": (wrong(1), [("unknown", "i")], set()),
    "the tombstone is a list": (wrong(6), [("unknown", "x")], set()),
}  # fmt: skip


@pytest.mark.parametrize("alone", [True, False], ids=["one thread", "all threads"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_single_damage_is_found_where_it_is_and_mended(
    whole: RedisSaver, raw: Any, prefix: str, name: str, alone: bool
) -> None:
    damage, expected, lost = DAMAGES[name]
    truth = told(whole)
    keys = ThreadKeys(prefix, b"t")
    damage(raw, keys)
    one = "t" if alone else None
    findings = [*whole.verify(one)]
    assert [each.kind for each in findings] == [kind for kind, _ in expected], findings
    for finding, (_, where) in zip(findings, expected, strict=True):
        named = f"{keys.base.decode()}{where}:t" if len(where) == 1 else where
        assert finding.where == named or (where in ("chunk", "page of references") and finding.where.startswith(where)), finding
        assert finding.thread_id == "t"
    # what can be mended without loss is, and the rest is as it was
    mended = [*whole.repair(one)]
    assert [each.kind for each in mended] == [each.kind for each in findings if each.repairable]
    assert [*whole.verify(one)] == [each for each in findings if not each.repairable]
    dropped = [*whole.repair(one, drop_unreadable=True)]
    assert bool(dropped) == any(not each.repairable for each in findings)
    assert [*whole.verify()] == [*whole.verify("t")] == [*whole.repair(drop_unreadable=True)] == []
    left = told(whole)
    for place, before in truth.items():
        if place[0] != "t" or place[2] not in lost:
            assert left[place] == before
        else:
            assert place not in left or left[place]["writes"] != before["writes"]
    if lost != set(IDS):
        following = put(whole, "t", "", IDS[8], {"n": 9}, IDS[0], run_id="run n")
        whole.put_writes(following, [("n", 10)], "task")
        whole.prune(["t"])
    assert [*whole.verify()] == []


def test_only_true_drops_anything(whole: RedisSaver) -> None:
    for other in ("no", "yes", [], 2):
        with pytest.raises(ValueError, match="drop_unreadable must be True or False"):
            next(whole.repair(drop_unreadable=other))  # type: ignore[arg-type]


def test_settings_that_are_damaged_go_only_when_told(whole: RedisSaver, raw: Any, prefix: str) -> None:
    whole.persist("t")
    flip(b"T", 2)(raw, ThreadKeys(prefix, b"t"))
    assert found(whole) == [("settings", "t", "TTL settings (field T)", False)]
    assert [*whole.repair()] == []
    assert [(each.kind, each.thread_id) for each in whole.repair(drop_unreadable=True)] == [("settings", "t")]
    assert [*whole.verify()] == []


def test_writes_that_can_be_read_stay_when_others_of_their_checkpoint_are_dropped(
    whole: RedisSaver, raw: Any, prefix: str
) -> None:
    def writes() -> list[Any]:
        return whole.get_tuple(at("t", "", IDS[1])).pending_writes

    before = writes()
    lose(b"D", W1)(raw, ThreadKeys(prefix, b"t"))
    (finding,) = whole.verify()
    assert "write 1 of 4" in finding.problem
    (repair,) = whole.repair(drop_unreadable=True)
    assert repair.done == "write 1 was removed"
    assert writes() == [write for write in before if write[1] != "long"]


def test_a_tag_that_is_gone_is_lost_and_no_other_error(whole: RedisSaver, raw: Any, prefix: str) -> None:
    raw.hdel(ThreadKeys(prefix, b"t").hash, b"Ginner")
    for read in (whole.tags, lambda thread: whole.prune([thread]), lambda thread: [*whole.history(thread)]):
        with pytest.raises(CheckpointLostError, match="tag 'inner' of thread 't'"):
            read("t")


def test_dropping_a_checkpoint_takes_its_tags_its_writes_and_the_chunks_only_it_used(
    whole: RedisSaver, raw: Any, prefix: str
) -> None:
    flip(C2, -1)(raw, ThreadKeys(prefix, b"t"))
    done = [*whole.repair("t", drop_unreadable=True)]
    assert [each.kind for each in done if each.kind != "orphan"] == ["damaged", "lost"]
    assert {each.where.split()[0] for each in done if each.kind == "orphan"} == {"chunk", "page"}
    assert whole.tags("t") == {"good": IDS[0]}
    assert {name[:1] for name in raw.hkeys(ThreadKeys(prefix, b"t").hash) if IDS[2].encode() in name} == set()
    assert [*whole.verify()] == []


def test_of_a_thread_that_lost_every_checkpoint_and_write_nothing_stays(saver: RedisSaver, raw: Any, prefix: str) -> None:
    put(saver, "t", "", IDS[0], {"n": 1}, run_id="r")
    flip(C0, -1)(raw, ThreadKeys(prefix, b"t"))
    assert [each.kind for each in saver.repair(drop_unreadable=True)] == ["damaged"]
    assert [*raw.scan_iter(match=f"{prefix}:{{*", count=10_000)] == []
    assert saver.get_tuple(at("t")) is None


def test_chunks_that_nothing_refers_to_are_swept(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = put(saver, "t", "", IDS[0], {"n": 1})
    saver.put_writes(config, [(ERROR, words(1, 400))], "task")
    saver.put_writes(config, [(ERROR, "nothing, after all")], "task")  # replaces the first
    assert [each.kind for each in saver.verify()] == ["orphan"]
    assert [each.kind for each in saver.repair()] == ["orphan"]
    assert [*saver.verify()] == []
    assert saver.get_tuple(config).pending_writes == [("task", ERROR, "nothing, after all")]


def test_many_damages_at_once_are_mended_in_one_go(whole: RedisSaver, raw: Any, prefix: str) -> None:
    keys = ThreadKeys(prefix, b"t")
    for name in (
        *("a chunk", "the counts", "the second of several writes", "a strange field", "an index entry is gone", "a tag"),
        *("the bucket forgot the thread", "the bucket names a wrong run", "a checkpoint is gone", "only the index expires"),
    ):
        DAMAGES[name][0](raw, keys)
    kinds = {each.kind for each in whole.verify()}
    assert kinds == {"damaged", "counts", "unknown", "index", "bucket", "lost", "expiry"}
    assert {each.kind for each in whole.repair()} == {"counts", "index", "bucket", "expiry"}
    assert {each.kind for each in whole.verify()} == {"damaged", "unknown", "lost"}
    assert {each.kind for each in whole.repair(drop_unreadable=True)} >= {"damaged", "unknown", "lost"}
    assert [*whole.verify()] == []
    assert {id_of(each.config) for each in whole.list(at("t", None))} == {IDS[0], IDS[1]}


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
    [("threads", b"another"), ("threads", b"\xff"), ("expiry", b"another"), ("runs", b"Rrun a\0another"), ("runs", b"Xrun"),
     ("runs", b"Rrun a"), ("m", b"Vuser\0t"), ("m", b"Tanother\0user\0str:ada"), ("m", b"")],
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
        assert {each.problem.split(";")[0].split(",")[0] for each in keyed.verify()} >= {"not signed"}
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


# --- threads that change, and large ones ------------------------------------------------------------------------------


def test_a_thread_that_is_written_meanwhile_gives_no_false_finding(whole: RedisSaver, url: str, prefix: str) -> None:
    writes = 0
    with RedisSaver(url, prefix=prefix) as writer:

        def write(_: Progress) -> None:
            nonlocal writes
            if writes < 5:
                writes += 1
                put(writer, "t", "", IDS[3 + writes], {"n": writes, "text": words(writes, 300)}, IDS[1])
                writer.prune(["t"], keep_last=2)

        assert [*whole.verify("t", progress=write)] == []
    assert writes == 5


def test_a_thread_that_never_stands_still_is_called_busy_and_left_alone(
    whole: RedisSaver, raw: Any, url: str, prefix: str
) -> None:
    flip(C0, -1)(raw, ThreadKeys(prefix, b"t"))
    with RedisSaver(url, prefix=prefix) as writer:

        def write(_: Progress) -> None:
            writer.tag("t", "other", IDS[1])
            writer.untag("t", "other")

        assert [each[:3] for each in found_with(whole, write)] == [("damaged", "t", FIRST), ("busy", "t", "the thread")]
        (repair,) = whole.repair("t", drop_unreadable=True, progress=write)
    assert (repair.kind, repair.done.split(":")[0]) == ("busy", "nothing")
    assert found(whole) == [("damaged", "t", FIRST, False)]


def found_with(saver: RedisSaver, progress: Callable[[Progress], None]) -> list[tuple[str, str | None, str]]:
    return [(each.kind, each.thread_id, each.where) for each in saver.verify("t", progress=progress)]


def test_a_repair_is_planned_again_if_the_thread_changes_before_it(whole: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    keys = ThreadKeys(prefix, b"t")
    raw.zrem(keys.all[1], C1)
    with RedisSaver(url, prefix=prefix) as writer:
        written = []

        def write(progress: Progress) -> None:
            if progress.threads and not written:  # the thread was read, and nothing was done yet
                written.append(put(writer, "t", "", IDS[6], {"n": 6}, IDS[1]))

        assert [each.kind for each in whole.repair("t", progress=write)] == ["index"]
    assert written
    assert [*whole.verify("t")] == []


@pytest.mark.longer
def test_no_command_takes_long_however_long_the_thread_is(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        parent, messages = None, []
        for n in range(times(1_000, 2_000, 4_000)):
            messages = [*messages[-60:], words(n, 30)]
            config = put(
                saver, "t", "", f"1f0a0000-0000-6000-8000-{n:012}", {"messages": messages, "n": n}, parent, run_id=f"r{n // 50}"
            )
            parent = id_of(config)
            if n % 10 == 0:
                saver.put_writes(config, [("n", n)], "task")
        limit = raw.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"]
        try:
            raw.config_set("slowlog-log-slower-than", 20_000)
            slow: list[int] = []
            for _ in range(3):  # the server's time is the machine's: a command may have waited for a processor
                last = max((each["id"] for each in raw.slowlog_get(1)), default=-1)
                assert [*saver.verify()] == []
                raw.delete(ThreadKeys(prefix, b"t").all[1])
                assert [each.kind for each in saver.repair("t")] == ["index"]
                slow.append(sum(each["id"] > last and prefix.encode() in each["command"] for each in raw.slowlog_get(10)))
                if not slow[-1]:
                    break
        finally:
            raw.config_set("slowlog-log-slower-than", limit)
        assert slow[-1] == 0, slow
        assert [*saver.verify("t")] == []


def test_a_thread_can_be_verified_while_an_event_loop_serves_others(whole: RedisSaver, url: str, prefix: str) -> None:
    async def both() -> list[Finding]:
        async with RedisSaver(url, prefix=prefix) as saver:

            async def verify() -> list[Finding]:
                return [each async for each in saver.averify("t")]

            async def read() -> None:
                for _ in range(20):
                    assert await saver.aget_tuple(at("another")) is not None

            findings, _ = await asyncio.gather(verify(), read())
            return findings

    assert asyncio.run(both()) == []
