"""Recounts a stored thread from its raw fields, and builds threads to be recounted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import redis
from shapes import at, checkpoint, id_of, metadata, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.codec import CHUNK_MAX, DIGEST, place_check, unpack
from langgraph_redis_state.storage.keys import ThreadKeys, split_field
from langgraph_redis_state.storage.records import RecordKey, parsed
from langgraph_redis_state.storage.thread_fields import gathered_writes

WAIT = 10.0
"""Seconds until a condition that is waited for counts as not met."""


def put(
    saver: RedisSaver,
    config: Any,
    values: dict[str, Any],
    new: Any = None,
    id: str | None = None,
    versions: Any = None,
    **more: Any,
) -> Any:
    """`new`: the channels that changed, all of them by default."""
    made = checkpoint(values, versions, id=id)
    changed = made["channel_versions"] if new is None else {name: made["channel_versions"][name] for name in new}
    return saver.put(config, made, metadata(**more), changed)


def keys_of(client: Any, prefix: str) -> set[str]:
    """Names of all keys under a prefix, without prefix and bucket, with thread ids as they are given."""
    shown = ThreadKeys(prefix, b"").names.thread_of

    def named(key: bytes) -> str:
        kind, colon, thread = (key.partition(b"}:")[2] or key).partition(b":")
        return (kind + colon + (shown(thread) if kind in (b"t", b"i", b"x") else thread)).decode()

    return {named(key) for key in client.scan_iter(match=f"{prefix}:*", count=10_000)}


def audit(client: Any, prefix: str, thread: str, *, clean: bool = False) -> dict[str, int]:
    """Recounts a thread from its raw fields and compares with its counts and its index. Nothing that is referred to may be
    missing; `clean`: nothing else may be there. Returns the counts."""
    keys = ThreadKeys(prefix, thread.encode())
    fields = client.hgetall(keys.hash)
    if not fields:
        assert client.exists(*keys.all[:2]) == 0
        return {}
    counted = dict.fromkeys(("checkpoints", "writes", "chunks", "stored", "logical", "unique", "referred"), 0)
    needed: set[bytes] = set()
    members: set[bytes] = set()
    spread: dict[RecordKey, dict[bytes, bytes]] = {}

    def refers(header: Any) -> None:
        counted["logical"] += header.logical
        counted["referred"] += header.chunked
        needed.update(b"D" + name for name in header.loose)
        for page in header.pages:
            needed.add(b"P" + page)
            content = fields[b"P" + page]
            needed.update(b"D" + content[at : at + DIGEST] for at in range(0, len(content), DIGEST))

    for name, content in fields.items():
        kind = name[:1]
        ns, checkpoint_id = split_field(name) if kind in b"CWH" else (b"", b"")
        place = RecordKey(prefix.encode(), thread.encode(), kind, ns, checkpoint_id)
        if kind in (b"C", b"W", b"H", b"D", b"P", b"G"):
            counted["stored"] += len(name) + len(content)
        if kind == b"C":
            refers(parsed(content, place)[0])
            counted["checkpoints"] += 1
            members.add(name)
            if ns:
                members.add(b"A" + checkpoint_id + b"\0" + ns)
        elif kind == b"H":
            refers(parsed(content, place)[0])
        elif kind == b"W":
            spread.setdefault(place, {})[name] = content
        elif kind == b"D":
            counted["chunks"] += 1
            counted["unique"] += plain_size(content)
        elif kind == b"G":
            members.add(name)
    for place, lists in spread.items():
        for record in gathered_writes(lists, place):
            refers(parsed(record, place)[0])
            counted["writes"] += 1
    parts = {name for name in fields if name[:1] in (b"D", b"P")}
    assert needed <= parts, f"{len(needed - parts)} parts are missing"
    if clean:
        assert parts <= needed, f"{len(parts - needed)} parts are garbage"
    assert set(client.zrange(keys.all[1], 0, -1)) == members
    line, _, check = fields[b"S"].rpartition(b" ")
    assert place_check(line, keys.name).hex() == check.decode()
    numbers = [int(number) for number in line.split()]
    told = dict(zip(("format", "born", "revision", "versions", *counted, "by"), numbers, strict=True))
    assert {name: told[name] for name in counted} == counted
    assert told.pop("by")  # which write it was
    return told


def plain_size(chunk: bytes) -> int:
    """Bytes of a stored chunk before it was compressed; one that is encrypted says it itself."""
    return int.from_bytes(chunk[1:5], "big") if chunk[0] >= 128 else len(unpack(chunk, CHUNK_MAX, "a chunk"))


@contextlib.contextmanager
def monitored(url: str) -> Iterator[list[str]]:
    """Collects the names of the commands that clients send, not those that scripts call."""
    seen: list[str] = []
    ready, done = threading.Event(), threading.Event()

    def watch() -> None:
        with redis.Redis.from_url(url) as client, client.monitor() as monitor:
            for command in monitor.listen():
                text = command["command"]
                if text.endswith("begin"):
                    ready.set()
                elif text.endswith("end"):
                    done.set()
                    return
                elif ready.is_set() and command["client_type"] != "lua" and "lua" not in command.get("client_address", ""):
                    seen.append(text.split()[0].upper())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with redis.Redis.from_url(url) as client:
        limit = time.monotonic() + WAIT
        while not ready.wait(0.002) and time.monotonic() < limit:
            client.echo("begin")
        seen.clear()
        yield seen
        client.echo("end")
    watcher.join(WAIT)
    assert done.is_set()
    seen[:] = [name for name in seen if name != "ECHO"]


def grow(saver: RedisSaver, thread: str, steps: int, seed: int, config: Any = None) -> list[Any]:
    """A chat with growing messages, a subgraph at every third step, pending writes; returns the root configs."""
    made = []
    messages: list[str] = []
    for n in range(steps):
        messages = [*messages, words((seed, n), 200)]
        config = put(saver, config or at(thread), {"messages": messages, "n": n}, step=n, run_id=f"run {n // 4}")
        made.append(config)
        saver.put_writes(config, [("messages", words((seed, n, "w"), 300)), ("n", n)], f"task {n}")
        if n % 3 == 0:
            put(saver, at(thread, f"sub:{n}"), {"inner": messages[-3:]}, parents={"": id_of(config)}, run_id=f"run {n // 4}")
    return made
