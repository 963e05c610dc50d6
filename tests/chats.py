"""Chains of checkpoints and chats, to be removed from."""

from __future__ import annotations

from typing import Any

from shapes import at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.codec import DIGEST
from langgraph_redis_state.storage.keys import ThreadKeys, split_field
from langgraph_redis_state.storage.records import STAMP, RecordKey, open_record, parsed
from langgraph_redis_state.storage.seals import ENCRYPTED, PLAIN
from langgraph_redis_state.storage.thread_fields import gathered_writes


def put(saver: RedisSaver, values: Any = None, parent: str | None = None, ns: str = "", **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at("t", ns, parent), made, metadata(**more), made["channel_versions"]))


def chain(saver: RedisSaver, length: int, ns: str = "", **more: Any) -> list[str]:
    made: list[str] = []
    for n in range(length):
        made.append(put(saver, {"n": n}, made[-1] if made else None, ns, **more))
    return made


def assert_tidy(raw: Any, prefix: str, thread: str = "t") -> None:
    """Every chunk and page of a thread is referred to, every reference is there, and the counts are right."""
    keys = ThreadKeys(prefix, thread.encode())
    fields = raw.hgetall(keys.hash)
    wanted: set[bytes] = set()
    checkpoints = writes = 0
    places: dict[RecordKey, dict[bytes, bytes]] = {}
    for name, content in fields.items():
        if name[:1] in (b"C", b"W"):
            places.setdefault(RecordKey(prefix.encode(), keys.name, name[:1], *split_field(name)), {})[name] = content
    for place, there in places.items():
        kind = place.kind
        for record in there.values() if kind == b"C" else gathered_writes(there, place):
            encrypted = record[STAMP + 1] & ENCRYPTED  # looked into, but not verified
            header = parsed(record, place)[0] if encrypted else open_record(record, place, PLAIN)[0]
            checkpoints, writes = checkpoints + (kind == b"C"), writes + (kind == b"W")
            wanted |= {b"D" + digest for digest in header.loose} | {b"P" + page for page in header.pages}
            for page in header.pages:
                names = fields[b"P" + page]
                wanted |= {b"D" + names[n : n + DIGEST] for n in range(0, len(names), DIGEST)}
    assert wanted == {name for name in fields if name[:1] in (b"D", b"P")}
    line = fields[b"S"].split()
    stored = sum(len(name) + len(content) for name, content in fields.items() if name[:1] not in b"STOZF")
    assert [int(part) for part in line[4:8]] == [checkpoints, writes, sum(name[:1] == b"D" for name in wanted), stored]
    members = {name for name in fields if name[:1] in (b"C", b"G")}
    members |= {
        b"A" + name[1:].rpartition(b"\0")[2] + b"\0" + name[1:].rpartition(b"\0")[0]
        for name in members
        if name[:1] == b"C" and name[1:2] != b"\0"
    }
    assert set(raw.zrange(keys.all[1], 0, -1)) == members
