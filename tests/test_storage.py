"""What an operation costs and leaves behind: round trips, bytes, expiry, garbage, counts.

Everything is looked at on the server, with a plain client: round trips with MONITOR, the rest in the raw fields.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME, _DeltaSnapshot
from langgraph.types import Interrupt
from shapes import at, checkpoint, expiries, id_of, metadata, new_id, plain, words
from soak import rare, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointLostError
from langgraph_redis_state.operations import uploading
from langgraph_redis_state.storage.chunks import RUN_MAX
from langgraph_redis_state.storage.codec import CHUNK_MAX, DIGEST, place_check, unpack
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_of, split_field
from langgraph_redis_state.storage.records import STAMP, RecordKey, parsed
from langgraph_redis_state.storage.thread_fields import split_writes

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
    """Names of all keys under a prefix, without prefix and bucket."""
    return {key.decode().partition("}:")[2] or key.decode() for key in client.scan_iter(match=f"{prefix}:*", count=10_000)}


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
        ns, checkpoint_id = split_field(name) if kind in b"CW" else (b"", b"")
        place = RecordKey(prefix.encode(), thread.encode(), kind, ns, checkpoint_id)
        if kind in (b"C", b"W", b"D", b"P", b"G"):
            counted["stored"] += len(name) + len(content)
        if kind == b"C":
            refers(parsed(content, place)[0])
            counted["checkpoints"] += 1
            members.add(name)
            if ns:
                members.add(b"A" + checkpoint_id + b"\0" + ns)
        elif kind == b"W":
            for record in split_writes(content, place):
                refers(parsed(record, place)[0])
                counted["writes"] += 1
        elif kind == b"D":
            counted["chunks"] += 1
            counted["unique"] += len(unpack(content, CHUNK_MAX, "a chunk"))
        elif kind == b"G":
            members.add(name)
    parts = {name for name in fields if name[:1] in (b"D", b"P")}
    assert needed <= parts, f"{len(needed - parts)} parts are missing"
    if clean:
        assert parts <= needed, f"{len(parts - needed)} parts are garbage"
    assert set(client.zrange(keys.all[1], 0, -1)) == members
    line, _, check = fields[b"S"].rpartition(b" ")
    assert place_check(line, thread.encode()).hex() == check.decode()
    numbers = [int(number) for number in line.split()]
    told = dict(zip(("format", "born", "revision", "versions", *counted), numbers, strict=True))
    assert {name: told[name] for name in counted} == counted
    return told


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


# --- round trips ------------------------------------------------------------------------------------------------------


def test_each_operation_is_one_command_on_the_server(saver: RedisSaver, url: str) -> None:
    config = put(saver, at("t"), {"messages": [words(0, 300)]})
    saver.put_writes(config, [("w", 0)], "task 0")
    saver.get_tuple(config)
    list(saver.list(at("t")))
    with monitored(url) as sent:
        child = put(saver, config, {"messages": [words(0, 300), words(1, 300)], "n": words(2, 300)})
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        saver.put_writes(child, [("a", 1), ("b", words(3, 400))], "task 1")
    assert sent == ["EVALSHA"]
    for config in (child, at("t")):
        with monitored(url) as sent:
            assert saver.get_tuple(config) is not None
        assert sent == ["EVALSHA"]
    for _ in range(98):
        child = put(saver, child, {"n": 1})
    with monitored(url) as sent:
        assert len(list(saver.list(at("t")))) == 100
    assert sent in (["EVALSHA"], ["EVALSHA"] * 2)  # a full page may not know that it is the last
    with monitored(url) as sent:
        assert len(list(saver.list(at("t"), limit=7))) == 7
    assert sent == ["EVALSHA"]


async def test_each_operation_is_one_command_on_the_server_async(asaver: RedisSaver, url: str) -> None:
    made = checkpoint({"messages": [words(0, 300)]})
    config = await asaver.aput(at("t"), made, metadata(), made["channel_versions"])
    await asaver.aput_writes(config, [("w", 0)], "task 0")
    await asaver.aget_tuple(config)
    assert [found async for found in asaver.alist(at("t"))]
    made = checkpoint({"messages": [words(0, 300), words(1, 300)]})
    with monitored(url) as sent:
        child = await asaver.aput(config, made, metadata(), made["channel_versions"])
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        await asaver.aput_writes(child, [("a", 1), ("b", words(3, 400))], "task 1")
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        await asaver.aget_tuple(child)
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        assert len([found async for found in asaver.alist(at("t"))]) == 2
    assert sent == ["EVALSHA"]


def test_a_history_of_ancestors_is_one_command_for_a_hundred(saver: RedisSaver, url: str) -> None:
    config = put(saver, at("t"), {"log": _DeltaSnapshot([])})
    for n in range(1, 251):
        saver.put_writes(config, [("log", [n])], "task")
        config = put(saver, config, {}, versions={"log": n + 1})
    saver.get_delta_channel_history(config=config, channels=["log"])  # the server learns the script
    with monitored(url) as sent:
        found = saver.get_delta_channel_history(config=config, channels=["log"])
    assert [value for _, _, value in found["log"]["writes"]] == [[n] for n in range(1, 251)]
    assert sent == ["EVALSHA"] * 4  # three for 250 ancestors, and one for the snapshot at the end


# --- many checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.longer
async def test_thousands_of_checkpoints_are_all_there_whatever_the_page(asaver: RedisSaver, raw: Any, prefix: str) -> None:
    made = [f"{n:05}" for n in range(times(2_500, 12_000, 12_000))]

    async def write(name: str) -> None:
        ns = "" if int(name) % 3 else f"sub:{int(name) % 7}"
        one = checkpoint({"n": name}, id=name)
        await asaver.aput(at("t", ns), one, metadata(), {"n": 1})

    for start in range(0, len(made), 50):
        await asyncio.gather(*(write(name) for name in made[start : start + 50]))
    newest_first = made[::-1]

    async def ids(**options: Any) -> list[str]:
        return [id_of(found.config) async for found in asaver.alist(at("t", None), **options)]

    assert await ids() == newest_first
    assert await ids(limit=1) == newest_first[:1]
    assert await ids(limit=101) == newest_first[:101]
    paged: list[str] = []
    while page := await ids(limit=700, before=at("t", checkpoint_id=paged[-1]) if paged else None):
        paged += page
    assert paged == newest_first
    assert await ids(filter={"step": 0}, limit=2_100) == newest_first[:2_100]
    audit(raw, prefix, "t", clean=True)
    await asaver.adelete_thread("t")
    assert keys_of(raw, prefix) == {"x:t", f"{prefix}:layout"}


# --- expiry -----------------------------------------------------------------------------------------------------------


def left(raw: Any, prefix: str, thread: str) -> int:
    """ms left of a thread; its two keys have the same, to the millisecond."""
    keys = ThreadKeys(prefix, thread.encode())
    first, second, now = expiries(raw, *keys.all[:2])
    assert first == second, "the two keys of the thread expire at different moments"
    score = raw.zscore(keys.all[3], thread.encode())
    if first > 0:
        assert score == first, "the bucket's index says another moment"
    return first - now if first > 0 else first


def test_the_two_keys_of_a_thread_expire_at_one_moment_after_every_write(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=100) as saver, RedisSaver(url, prefix=prefix, ttl=1_000) as longer:
        config = put(saver, at("t"), {"n": 1})
        assert 99_000 < left(raw, prefix, "t") <= 100_000
        longer.put_writes(config, [("w", 1)], "task")
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        put(saver, config, {"n": 2})
        assert 99_000 < left(raw, prefix, "t") <= 100_000
        longer.get_tuple(at("t"))
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        saver.get_tuple(at("t"))  # enough is left
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        saver.copy_thread("t", "copy")
        assert 99_000 < left(raw, prefix, "copy") <= 100_000
        list(longer.list(at("copy")))
        assert 999_000 < left(raw, prefix, "copy") <= 1_000_000
        saver.prune(["t"])
        left(raw, prefix, "t")


def test_an_index_that_was_evicted_comes_back_with_the_expiry_of_its_hash(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        config = put(saver, at("t"), {"n": 1})
        fields = {b"C\0%08d" % n: b"x" for n in range(20_000)}  # so many that writing the index takes milliseconds
        raw.hset(ThreadKeys(prefix, b"t").all[0], mapping=fields)
        raw.delete(ThreadKeys(prefix, b"t").all[1])
        assert saver.get_tuple(config) is not None
        assert raw.zcard(ThreadKeys(prefix, b"t").all[1]) == 20_001
        assert 990_000 < left(raw, prefix, "t") <= 1_000_000


def test_writes_before_the_first_checkpoint_expire_with_it(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=100) as saver:
        saver.put_writes(at("t", "", new_id()), [("w", 1)], "task")
        assert 99_000 < raw.pttl(ThreadKeys(prefix, b"t").hash) <= 100_000
        put(saver, at("t"), {"n": 1})
        assert 99_000 < left(raw, prefix, "t") <= 100_000


def test_a_thread_in_use_outlives_its_ttl_with_every_channel(url: str, raw: Any, prefix: str) -> None:
    old = [words("old", 400)] * 3
    with RedisSaver(url, prefix=prefix, ttl=0.4) as saver:
        config = put(saver, at("t"), {"old": old, "n": 0})
        begun, n = time.monotonic(), 0
        while time.monotonic() < begun + 1.0:
            n += 1
            config = put(saver, config, {"old": old, "n": n}, ["n"])
            if n % 3 == 0:
                assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"old": old, "n": n}
        assert len(list(saver.list(at("t"), limit=20))) == min(20, n + 1)
        audit(raw, prefix, "t", clean=True)


def same_bucket(thread: str, count: int) -> list[str]:
    bucket = bucket_of(thread.encode())
    found: list[str] = []
    n = 0
    while len(found) < count:
        if bucket_of(f"n{n}".encode()) == bucket:
            found.append(f"n{n}")
        n += 1
    return found


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_what_expired_disappears_from_the_indexes_of_its_bucket(url: str, raw: Any, prefix: str) -> None:
    others = same_bucket("t", 4)
    with RedisSaver(url, prefix=prefix, ttl=0.03) as brief, RedisSaver(url, prefix=prefix) as saver:
        for thread in others:
            put(brief, at(thread), {"n": 1}, run_id=f"run of {thread}")
        until(lambda: raw.exists(*(ThreadKeys(prefix, thread.encode()).hash for thread in others)) == 0)
        config = put(saver, at("t"), {"n": 1}, run_id="run of t")
        put(saver, config, {"n": 2}, run_id="run of t")
        keys = ThreadKeys(prefix, b"t")
        assert raw.zrange(keys.all[2], 0, -1) == [b"t"]
        assert raw.zrange(keys.all[3], 0, -1) == []
        assert raw.zrange(keys.all[4], 0, -1) == [b"Rrun of t\0t", b"Tt\0run of t"]


def test_a_thread_that_expired_and_came_back_without_ttl_is_not_forgotten(url: str, raw: Any, prefix: str) -> None:
    (other,) = same_bucket("t", 1)
    with RedisSaver(url, prefix=prefix, ttl=0.03) as brief, RedisSaver(url, prefix=prefix) as saver:
        put(brief, at("t"), {"n": 1}, run_id="old run")
        until(lambda: raw.exists(ThreadKeys(prefix, b"t").hash) == 0)
        put(saver, at("t"), {"n": 2}, run_id="new run")
        put(saver, at(other), {"n": 1})
        put(saver, at(other), {"n": 1})
        assert {found.config["configurable"]["thread_id"] for found in saver.list(None)} == {"t", other}
        saver.delete_for_runs(["old run"])
        assert saver.get_tuple(at("t")) is not None
        saver.delete_for_runs(["new run"])
        assert saver.get_tuple(at("t")) is None


# --- what is stored ---------------------------------------------------------------------------------------------------


def parts_of(raw: Any, prefix: str, thread: str) -> dict[bytes, int]:
    fields = raw.hgetall(ThreadKeys(prefix, thread.encode()).hash)
    return {name: len(content) for name, content in fields.items() if name[:1] in b"DP"}


def test_a_channel_that_did_not_change_is_not_stored_again(saver: RedisSaver, raw: Any, prefix: str) -> None:
    big = [words(n, 300) for n in range(50)]
    config = put(saver, at("t"), {"big": big, "n": 0})
    before = parts_of(raw, prefix, "t")
    for n in range(1, 10):
        config = put(saver, config, {"big": big, "n": n}, ["n"])
    assert parts_of(raw, prefix, "t") == before
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": big, "n": 9}
    put(saver, at("t", "sub:1"), {"big": big}, id=new_id())  # another namespace shares the chunks too
    assert parts_of(raw, prefix, "t") == before
    audit(raw, prefix, "t", clean=True)


def test_an_encrypted_channel_is_stored_whole_when_it_changes_and_once_when_not(url: str, raw: Any, prefix: str) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 32)
    big = ["the same words again and again"] * 2_000
    with RedisSaver(url, prefix=prefix, serde=serde) as saver:
        config = put(saver, at("t"), {"big": big, "n": 0})
        before = parts_of(raw, prefix, "t")
        whole = sum(before.values())
        assert whole > len(serde.dumps_typed(big)[1])  # nothing of it is compressed
        config = put(saver, config, {"big": big, "n": 1}, ["n"])
        assert parts_of(raw, prefix, "t") == before
        put(saver, config, {"big": big, "n": 2})
        assert sum(parts_of(raw, prefix, "t").values()) == 2 * whole
        assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": big, "n": 2}


def test_appending_to_a_long_list_stores_a_few_new_chunks(saver: RedisSaver, raw: Any, prefix: str) -> None:
    messages = [{"role": "user", "id": n, "text": words(n, 20)} for n in range(500)]
    config = put(saver, at("t"), {"messages": messages})
    for n in range(500, 520):
        before = parts_of(raw, prefix, "t")
        messages = [*messages, {"role": "user", "id": n, "text": words(n, 20)}]
        config = put(saver, config, {"messages": messages})
        new = {name: size for name, size in parts_of(raw, prefix, "t").items() if name not in before}
        assert len(new) <= 4
        assert sum(new.values()) <= 3 * RUN_MAX
    before = parts_of(raw, prefix, "t")
    put(saver, config, {"messages": messages[10:]})  # and dropping the first
    new = {name: size for name, size in parts_of(raw, prefix, "t").items() if name not in before}
    assert len(new) <= 8
    assert sum(new.values()) <= 3 * RUN_MAX
    audit(raw, prefix, "t", clean=True)


def test_a_history_costs_what_changed_and_not_history_times_state(saver: RedisSaver, raw: Any, prefix: str) -> None:
    messages: list[Any] = []
    config = at("t")
    sizes = []
    for n in range(240):
        messages = [*messages, {"id": n, "text": words(n, 25)}]
        config = put(saver, config, {"messages": messages})
        if n % 60 == 59:
            sizes.append(audit(raw, prefix, "t", clean=True)["stored"])
    growth = [after - before for before, after in pairwise(sizes)]
    assert growth[-1] < 1.5 * growth[0], sizes


def test_a_large_upload_that_is_sent_again_leaves_nothing_in_staging(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", 10_000)
    values = {"kept": words("kept", 200), "big": words("old", 20)}
    config = put(saver, at("t"), values, versions={"kept": 1, "big": 1})
    thread = ThreadKeys(prefix, b"t").hash
    raw.hdel(thread, *(name for name in raw.hkeys(thread) if name[:1] == b"D"))
    values["big"] = words("new", 5000)
    put(saver, config, values, new=["big"], versions={"kept": 1, "big": 2})
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == values
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]


def test_a_large_upload_goes_through_staging_and_leaves_none_of_it(saver: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    big = random.Random(1).randbytes(uploading.UPLOAD_BYTES + 1_000_000)
    with monitored(url) as sent:
        config = put(saver, at("t"), {"big": big})
    assert sent.count("EVALSHA") + sent.count("EVAL") > 2
    assert not any(name.startswith("u:") for name in keys_of(raw, prefix))
    saver.put_writes(config, [("w", big[::-1])], "task")
    saver.copy_thread("t", "copy")
    assert not any(name.startswith("u:") for name in keys_of(raw, prefix))
    for thread in ("t", "copy"):
        found = saver.get_tuple(at(thread))
        assert found.checkpoint["channel_values"]["big"] == big
        assert found.pending_writes == [("task", "w", big[::-1])]
        audit(raw, prefix, thread, clean=True)


# --- garbage and counts -----------------------------------------------------------------------------------------------


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


def test_nothing_is_left_unreferenced_after_prune_and_deleting_runs(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = grow(saver, "t", 32, 1)
    told = audit(raw, prefix, "t", clean=True)
    assert told["checkpoints"] == 32 + 11
    saver.delete_for_runs(["run 0", "run 3"])
    told = audit(raw, prefix, "t", clean=True)
    assert {id_of(found.config) for found in saver.list(at("t"))} == {
        id_of(config) for n, config in enumerate(made) if n // 4 not in (0, 3)
    }
    saver.prune(["t"])
    audit(raw, prefix, "t", clean=True)
    assert saver.get_tuple(at("t")).checkpoint["channel_values"]["n"] == 31
    saver.delete_for_runs([f"run {n}" for n in range(8)])
    assert keys_of(raw, prefix) == {f"{prefix}:layout"}


def test_max_versions_keeps_so_many_roots_and_no_garbage(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        made = grow(saver, "t", 20, 2)
        put(saver, made[-1], {"n": 20})
        audit(raw, prefix, "t", clean=True)
        listed = [found.config["configurable"] for found in saver.list(at("t", None))]
        roots = [each["checkpoint_id"] for each in listed if not each["checkpoint_ns"]]
        assert len(roots) == 3
        assert roots[1:] == [id_of(config) for config in made[:-3:-1]]
        assert {each["checkpoint_ns"] for each in listed} <= {"", "sub:18"}
        assert saver.get_tuple(made[-1]).checkpoint["channel_values"]["messages"][-1] == words((2, 19), 200)


def test_max_versions_keeps_an_interrupt_that_waits_and_namespaces_that_stay(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        waiting = put(saver, at("t"), {"n": "waits"})
        saver.put_writes(waiting, [(INTERRUPT, [Interrupt("why?", id="i")])], "task")
        inner = put(saver, at("t", "sub:1"), {"n": "inner"}, parents={"": id_of(waiting)})
        kept = put(saver, at("t", "kept"), {"n": "stays"}, parents={"": id_of(waiting)})
        config = at("t")
        for n in range(10):
            config = put(saver, config, {"n": n})
        roots = [id_of(found.config) for found in saver.list(at("t"))]
        assert len(roots) == 4
        assert roots[-1] == id_of(waiting)
        assert saver.get_tuple(waiting).pending_writes[0][1] == INTERRUPT
        assert saver.get_tuple(inner) is not None
        assert saver.get_tuple(kept) is not None
        put(saver, waiting, {"n": "answered"})  # now it has a child
        for n in range(3):
            config = put(saver, config, {"n": n})
        assert saver.get_tuple(waiting) is None
        assert saver.get_tuple(inner) is None
        assert saver.get_tuple(kept) is not None
        audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize("seed", [0, 1, rare(2), rare(3)])
def test_the_counts_are_true_after_any_sequence_of_verbs(url: str, raw: Any, prefix: str, seed: int) -> None:
    chosen = random.Random(seed)
    with RedisSaver(url, prefix=prefix) as one, RedisSaver(url, prefix=prefix, compression="zlib") as two:
        known: list[Any] = []
        puts: list[tuple[Any, ...]] = []
        for step in range(120):
            saver = chosen.choice((one, two))
            what = chosen.choices(
                ("put", "again", "replace", "writes", "big writes", "prune", "runs", "copy", "delete", "index", "orphan"),
                (30, 6, 6, 16, 8, 3, 4, 3, 1, 3, 3),
            )[0]
            if what == "put":
                ns = chosen.choice(("", "", "sub:1", "beside"))
                parent = chosen.choice(known)["configurable"] if known and chosen.random() < 0.8 else None
                if parent is not None and parent["checkpoint_ns"] != ns:
                    parent = None
                base = at("t", ns, parent["checkpoint_id"] if parent else None)
                messages = [words((seed, n), 150) for n in range(chosen.randrange(45))]
                made = checkpoint({"messages": messages, "n": step, "bytes": words(step, chosen.randrange(200))})
                told = metadata(run_id=f"run {chosen.randrange(5)}")
                puts.append((base, made, told, made["channel_versions"]))
                known.append(saver.put(*puts[-1]))
            elif what == "again" and puts:
                saver.put(*puts[-1])  # a retry
            elif what == "replace" and puts:
                base, made, told, versions = chosen.choice(puts)
                other = {**made, "channel_values": {"n": step, "bytes": words(("r", step), 200)}}
                known.append(saver.put(base, other, told, versions))
            elif what in ("writes", "big writes", "orphan"):
                ns = chosen.choice(("", "sub:1"))
                config = at("t", ns, new_id()) if what == "orphan" or not known else chosen.choice(known)
                value = words((seed, step), 400 if what == "big writes" else 3)
                writes = [("a", value), ("b", step), (chosen.choice((RESUME, INTERRUPT)), [value]), ("c", None)]
                task = f"task {chosen.randrange(4)}"
                for _ in range(chosen.choice((1, 1, 2))):
                    saver.put_writes(config, writes[: chosen.randrange(1, 5)], task)
            elif what == "prune":
                saver.prune(["t"])
                audit(raw, prefix, "t")
            elif what == "runs":
                saver.delete_for_runs([f"run {chosen.randrange(5)}"])
            elif what == "copy" and known:
                with contextlib.suppress(LookupError):
                    saver.copy_thread("t", f"copy {step}")
                    copied = audit(raw, prefix, f"copy {step}")
                    assert copied == audit(raw, prefix, "t") | {name: copied[name] for name in ("born", "revision")}
            elif what == "delete" and step > 60:
                saver.delete_thread("t")
                raw.delete(ThreadKeys(prefix, b"t").all[6])
                known.clear()
            elif what == "index":
                raw.delete(ThreadKeys(prefix, b"t").all[1])
                saver.get_tuple(at("t"))
            if known and what not in ("index",):
                audit(raw, prefix, "t")
        put(one, at("t"), {"n": "last"}, run_id="never deleted")
        one.delete_for_runs([f"run {n}" for n in range(5)])
        audit(raw, prefix, "t", clean=True)


def test_a_write_that_is_sent_again_changes_no_count(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = checkpoint({"messages": [words(n, 300) for n in range(30)]})
    config = saver.put(at("t"), made, metadata(), made["channel_versions"])
    saver.put_writes(config, [("a", words("a", 400)), (RESUME, [1])], "task")
    before = audit(raw, prefix, "t", clean=True)
    assert saver.put(at("t"), made, metadata(), made["channel_versions"]) == config
    assert audit(raw, prefix, "t", clean=True) == before
    saver.put_writes(config, [("a", words("other", 400))], "task")  # the first stays
    assert audit(raw, prefix, "t", clean=True) == before
    saver.put_writes(config, [(RESUME, [1])], "task")
    assert audit(raw, prefix, "t", clean=True) == before | {"revision": before["revision"] + 1}


# --- what was lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["get", "list", "put", "put_writes", "prune", "delete_for_runs", "copy", "history"])
def test_an_index_that_was_lost_is_rebuilt_by_whatever_comes_first(
    saver: RedisSaver, raw: Any, prefix: str, first: str
) -> None:
    made = grow(saver, "t", 7, 3)
    expected = [plain(found) for found in saver.list(at("t", None))]
    raw.delete(ThreadKeys(prefix, b"t").all[1])
    if first == "get":
        assert plain(saver.get_tuple(at("t"))) == next(each for each in expected if each["config"][1] == "")
    elif first == "put":
        put(saver, made[-1], {"n": 1})
    elif first == "put_writes":
        saver.put_writes(made[0], [("more", 1)], "another")
    elif first == "prune":
        saver.prune(["t"])
    elif first == "delete_for_runs":
        saver.delete_for_runs(["run 0"])
    elif first == "copy":
        saver.copy_thread("t", "copy")
        audit(raw, prefix, "copy", clean=True)
        saver.get_tuple(at("t"))
    elif first == "history":
        saver.get_delta_channel_history(config=made[-1], channels=["messages"])
    else:
        assert [plain(found) for found in saver.list(at("t", None))] == expected
    audit(raw, prefix, "t", clean=True)
    if first in ("get", "list", "history", "copy"):
        assert [plain(found) for found in saver.list(at("t", None))] == expected


def test_a_thread_whose_hash_was_lost_is_lost_for_every_verb(
    saver: RedisSaver, raw: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = grow(saver, "t", 3, 4)
    raw.delete(ThreadKeys(prefix, b"t").hash)
    for verb in (
        lambda: saver.get_tuple(at("t")),
        lambda: saver.get_tuple(made[0]),
        lambda: list(saver.list(at("t"))),
        lambda: list(saver.list(at("t"), filter={"step": 1})),
        lambda: saver.get_delta_channel_history(config=made[-1], channels=["n"]),
        lambda: saver.put_writes(made[-1], [("a", 1)], "task"),
        lambda: put(saver, made[-1], {"n": 1}),
        lambda: saver.prune(["t"]),
        lambda: saver.stats("t"),
        lambda: list(saver.history("t")),
        lambda: saver.rollback("t", id_of(made[0])),
        lambda: saver.set_ttl("t", 60),
    ):
        with pytest.raises(CheckpointLostError, match="'t'"):
            verb()
    put(saver, at("other"), {"n": 1})
    assert [info.thread_id for info in saver.list_threads()] == ["other"]
    assert "thread 't'" in caplog.text
    assert "evicted" in caplog.text
    saver.delete_thread("other")
    fresh = put(saver, at("t"), {"n": "new"})
    assert [id_of(found.config) for found in saver.list(at("t", None))] == [id_of(fresh)]
    audit(raw, prefix, "t", clean=True)


def test_a_thread_whose_hash_was_lost_is_lost_for_a_copy_too(saver: RedisSaver, raw: Any, prefix: str) -> None:
    put(saver, at("t"), {"n": 1})
    raw.delete(ThreadKeys(prefix, b"t").hash)
    with pytest.raises(CheckpointLostError, match="'t'"):
        saver.copy_thread("t", "copy")


def test_parts_that_another_saver_collected_are_sent_again(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as one, RedisSaver(url, prefix=prefix) as two:
        big = [words(n, 300) for n in range(40)]
        first = put(one, at("t"), {"big": big, "n": 1})
        two.get_tuple(first)
        newest = put(one, at("t"), {"n": 2}, id=new_id())
        two.prune(["t"])  # takes the chunks that `one` believes the server has
        assert not parts_of(raw, prefix, "t")
        child = put(one, first, {"big": big, "n": 3}, ["n"])
        assert one.get_tuple(child).checkpoint["channel_values"] == {"big": big, "n": 3}
        put(two, first, {"big": [*big, "more"], "n": 4}, ["n", "big"])
        audit(raw, prefix, "t", clean=True)
        one.delete_thread("t")
        raw.delete(ThreadKeys(prefix, b"t").all[6])
        again = put(two, at("t"), {"big": big})
        assert two.get_tuple(again).checkpoint["channel_values"] == {"big": big}
        assert id_of(newest) < id_of(again)


def test_a_record_starts_with_its_stamp(saver: RedisSaver, raw: Any, prefix: str) -> None:
    """The fields that scripts write by themselves: clock, version, bytes."""
    for n in range(3):
        put(saver, at("t"), {"n": n}, id=f"{n}")
        content = raw.hget(ThreadKeys(prefix, b"t").hash, f"C\0{n}")
        assert int.from_bytes(content[6:11], "big") == n + 1
        assert abs(int.from_bytes(content[:6], "big") - time.time() * 1000) < 60_000
        assert int.from_bytes(content[11:16], "big") == len(content) + 3
    assert STAMP == 20
