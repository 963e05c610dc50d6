"""Damages, and what `verify` finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, metadata, plain, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys, across_member, checkpoint_field, writes_field

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


def told(saver: RedisSaver) -> dict[tuple[str, str, str], Any]:
    return {
        (each.config["configurable"]["thread_id"], each.config["configurable"]["checkpoint_ns"], id_of(each.config)): plain(
            each
        )
        for each in saver.list(None)
    }


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
