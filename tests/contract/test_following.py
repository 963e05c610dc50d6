"""A write that follows the last one of its own process goes a short way (scripts/following.py), and nothing else may differ.

Each story is played twice, on two databases of one server. The second time the savers remember nothing of their last writes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import redis
from audit import audit
from forks import forked
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from shapes import at, checkpoint, id_of, metadata, plain, words
from soak import LEVEL, in_turn, times

from langgraph_redis_state import RedisSaver, effects
from langgraph_redis_state.archive import export_threads, import_threads
from langgraph_redis_state.effects import Compute, Note
from langgraph_redis_state.errors import CheckpointerError
from langgraph_redis_state.history import rollback
from langgraph_redis_state.operations import uploading, writing
from langgraph_redis_state.scripts import commands, following
from langgraph_redis_state.storage.keys import ThreadKeys

pytestmark = pytest.mark.skipif("fresh" in os.environ.get("KEYED", ""), reason="with freshness no write goes a short way")

BIG = words("following", 300)
"""A value of some chunks."""

SPACES = ["", "child:1", "plain"]

SHORT, WHOLE = "short", "whole"


class Standing(datetime):
    """A clock that stands: forks say when they were made."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls(2026, 1, 1, tzinfo=tz)


@pytest.fixture(autouse=True)
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "datetime", Standing)


class Side:
    """A server with two savers. `remembers`: whether they know their last writes, so that the next can go the short way."""

    def __init__(self, url: str, prefix: str, db: int, remembers: bool, others: Any = None, **options: Any) -> None:
        self.prefix, self.remembers, self.url = prefix, remembers, f"{url}?db={db}"
        self.raw = redis.Redis.from_url(self.url)
        self.saver = RedisSaver(self.url, prefix=prefix, **options)
        self.other = RedisSaver(self.url, prefix=prefix, **options, **(others or {}))
        self.told: list[Any] = []
        """What the verbs returned or raised."""
        self.ways: list[str] = []
        """Of the writes of `saver`."""
        self.heads: dict[tuple[str, str], Any] = {}
        self.ids = 0

    def close(self) -> None:
        self.saver.close()
        self.other.close()
        self.raw.close()

    def keys(self, thread: str = "t") -> ThreadKeys:
        return ThreadKeys(self.prefix, thread.encode())

    def fields(self, kind: bytes, thread: str = "t") -> list[bytes]:
        return sorted(name for name in self.raw.hkeys(self.keys(thread).hash) if name[:1] == kind)

    def new_id(self) -> str:
        self.ids += 1
        return f"7f{self.ids:06x}-0000-6000-8000-000000000000"  # of the future, so that those of forks follow from them

    def verb(self, name: str, *arguments: Any, by: RedisSaver | None = None, **options: Any) -> Any:
        """A verb of one of the savers, `saver` by default; an error is an answer too."""
        saver = by or self.saver
        if not self.remembers:
            for each in (self.saver, self.other):
                each._engine.tips._young.clear()
                each._engine.tips._old.clear()
        counted = saver is self.saver and name.startswith("put")
        if counted:
            self.raw.config_resetstat()
        try:
            answer = getattr(saver, name)(*arguments, **options)
        except CheckpointerError as error:
            answer = error
        if counted:
            # what goes its whole way asks for the number of fields before and after
            asked = self.raw.info("commandstats").get("cmdstat_hlen", {}).get("calls")
            self.ways.append(SHORT if asked == 1 and not isinstance(answer, Exception) else WHOLE)
        self.told.append(type(answer).__name__ if isinstance(answer, Exception) else answer)
        return answer

    def put(
        self,
        values: dict[str, Any],
        new: list[str] | None = None,
        *,
        by: RedisSaver | None = None,
        thread: str = "t",
        ns: str = "",
        id: str | None = None,
        config: dict[str, Any] | None = None,
        ttl: float | None = None,
        **more: Any,
    ) -> Any:
        """A checkpoint on the newest of its namespace. `new`: the channels that changed, all of them by default."""
        n = self.ids
        versions = dict.fromkeys(values, n + 1)
        parent, before = self.heads.get((thread, ns), (at(thread, ns), {}))
        if new is not None:
            versions |= {name: version for name, version in before.items() if name not in new and name in values}
        made = checkpoint(values, versions, id=id or self.new_id())
        base = {"configurable": {**(config or parent)["configurable"], **({"ttl": ttl} if ttl else {})}}
        changed = versions if new is None else {name: versions[name] for name in new}
        answer = self.verb("put", base, made, metadata(**more), changed, by=by)
        if isinstance(answer, dict):
            self.heads[thread, ns] = answer, versions
        return answer

    def writes(
        self,
        *values: Any,
        task: str | None = None,
        by: RedisSaver | None = None,
        thread: str = "t",
        ns: str = "",
        channels: list[str] | None = None,
    ) -> None:
        """Pending writes of the newest checkpoint."""
        self.ids += 1
        config = self.heads[thread, ns][0]
        names = channels or [f"channel {n}" for n in range(len(values))]
        self.verb("put_writes", config, list(zip(names, values, strict=True)), task or f"task {self.ids}", by=by)

    def restore(self, before: dict[bytes, bytes]) -> None:
        """The server as it was, as after a failover that lost writes."""
        for key in self.raw.scan_iter(match=f"{self.prefix}:*", count=1000):
            if key not in before:
                self.raw.delete(key)
        for key, content in before.items():
            self.raw.restore(key, 0, content, replace=True)

    def dump(self) -> dict[bytes, bytes]:
        return {key: self.raw.dump(key) for key in self.raw.scan_iter(match=f"{self.prefix}:*", count=1000)}

    def state(self) -> dict[bytes, Any]:
        """All that is stored, but for moments, for who wrote last, and for the checks over these."""
        found: dict[bytes, Any] = {}
        for key in self.raw.scan_iter(match=f"{self.prefix}:*", count=1000):
            kind = self.raw.type(key)
            expires = self.raw.pttl(key) >= 0
            if kind == b"hash":
                found[key] = expires, {name: timeless(name, content) for name, content in self.raw.hgetall(key).items()}
            elif kind == b"zset":
                scored = self.raw.zrange(key, 0, -1, withscores=True)
                found[key] = expires, {member: score == 0 for member, score in scored}
            else:
                found[key] = expires, kind
        return found


def timeless(field: bytes, content: bytes) -> bytes:
    if field[:1] in b"CH":
        return content[6:16] + content[20:]
    if field[:1] == b"S":
        return b" ".join(content.split()[2:-2])
    if field[:1] == b"O":
        return b""
    if field[:1] != b"W" or field.endswith(b"\0"):
        return content
    entries, position = 4 + 96 * (content[0] == 3), 4 + 96 * (content[0] == 3)
    kept = content[:entries]
    while position < len(content):
        end = position + 4 + int.from_bytes(content[position : position + 4], "big")
        record = content[position + 4 : end]
        kept, position = kept + record[6:16] + record[20:], end
    return kept


Story = Callable[[Side], Any]


def played(url: str, prefix: str, story: Story, sound: bool = True, **options: Any) -> list[str]:
    """Plays a story twice, and compares all that is stored and told. Which ways its writes went when they were remembered.
    `sound`: the thread is whole then."""
    sides = [Side(url, prefix, 1 + n, not n, **options) for n in range(2)]
    try:
        for side in sides:
            story(side)
        first, second = sides
        assert first.told == second.told
        assert first.state() == second.state()
        for side in sides if sound else ():
            audit(side.raw, prefix, "t")
            assert [each for each in side.saver.verify("t") if each.kind != "orphan"] == []
        assert set(second.ways) <= {WHOLE}
        return first.ways
    finally:
        for side in sides:
            side.close()


# --- what goes the short way --------------------------------------------------------------------------------------------


def test_a_chain_of_writes_goes_the_short_way(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"messages": [BIG], "n": 0}, run_id="run 1")
        for n in range(1, 5):
            side.put({"messages": [BIG] * n, "n": n}, ["messages"] if n % 2 else ["n"], run_id=f"run {n // 2}")
            side.writes(n, words(n, 300))

    assert played(url, prefix, story) == [WHOLE, *[SHORT] * 8]


def test_it_takes_the_same_eleven_commands_on_the_server(saver: RedisSaver, raw: Any) -> None:
    """Whatever the length of the thread."""
    config = at("t")
    for n in range(12):
        made = checkpoint({"n": n, "text": BIG}, {"n": n + 1, "text": 1})
        raw.config_resetstat()
        config = saver.put(config, made, metadata(run_id="run"), {"n": n + 1} if n else made["channel_versions"])
        took = {name.removeprefix("cmdstat_"): each["calls"] for name, each in raw.info("commandstats").items()}
        if n > 0:
            for clients in ("config", "config|resetstat", "evalsha", "ping", "info"):
                took.pop(clients, None)
            assert took == dict.fromkeys(("hmget", "hlen", "pttl", "time", "hset"), 1) | dict.fromkeys(("zcard", "zadd"), 3)


def test_what_its_process_read_meanwhile_is_followed_too(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        listed = [words(n, 40) for n in range(300)]
        side.put({"list": listed, "n": 0})
        for n in range(1, 4):
            side.put({"list": listed, "n": n}, ["n"])
            side.told.append(plain(side.saver.get_tuple(at("t"))))
            side.told.append([plain(found) for found in side.saver.list(at("t"))])
            side.writes(n)

    for options in ({}, {"encryption_key": bytes(32)}, {"integrity_key": bytes(32)}):
        assert played(url, f"{prefix}{len(options)}{'-'.join(options)}", story, **options) == [WHOLE, *[SHORT] * 6]


def test_namespaces_of_one_thread_follow_each_other(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        for ns in SPACES:
            side.put({"a": BIG, "n": 0}, ns=ns)
        for n in range(1, 4):
            for ns in SPACES:
                side.put({"a": BIG, "n": n}, ["n"], ns=ns, parents={"": side.new_id()} if ns else {})
                side.writes(n, ns=ns)

    assert played(url, prefix, story) == [*[WHOLE] * 3, *[SHORT] * 18]


def test_a_subgraph_before_its_parent(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        parent = side.new_id()
        side.put({"a": BIG}, ns="child:1", parents={"": parent})
        side.put({"a": BIG, "n": 1}, ["n"], ns="child:1", parents={"": parent})
        side.writes("early", ns="child:1")
        side.put({"root": 1}, id=parent)
        side.put({"root": 2})

    assert played(url, prefix, story) == [WHOLE, SHORT, SHORT, WHOLE, SHORT]


def test_stamps_have_the_time_the_number_and_the_size_of_each_write(saver: RedisSaver, raw: Any) -> None:
    config, moments, size = at("t"), [], 0
    for n in range(4):
        made = checkpoint({"n": n, "text": words(n, 300)})
        moments.append(raw.time())
        config = saver.put(config, made, metadata(), made["channel_versions"])
        before, size = size, saver.stats("t").stored_bytes
        newest = next(saver.history("t"))
        assert newest.number == n + 1
        assert newest.new_bytes == size - before
        earliest, latest = (seconds + us // 1000 / 1000 for seconds, us in (moments[-1], raw.time()))
        assert earliest <= newest.created_at.timestamp() + 0.0005 <= latest + 0.001


@pytest.mark.parametrize("limits", [{"max_versions": 3}, {"max_thread_bytes": 12_000}], ids=str)
def test_limits_hold(url: str, prefix: str, limits: dict[str, Any]) -> None:
    def story(side: Side) -> None:
        for n in range(8):
            side.put({"a": words(n, 60)}, run_id=f"run {n}")
            side.writes(words((n, "w"), 60))

    ways = played(url, prefix, story, **limits)
    assert SHORT in ways[1:]
    assert WHOLE in ways[1:]


@pytest.mark.parametrize(
    "options",
    [
        *({"encryption_key": bytes(32)}, {"encryption_key": bytes(32), "name_key": bytes(range(32))}),
        *({"compression": "none"}, {"integrity_key": bytes(32)}, {"cache_bytes": 0}),
    ],
    ids="+".join,
)
def test_savers_of_every_kind_write_the_same_either_way(url: str, prefix: str, options: dict[str, Any]) -> None:
    thread = "ü %{1}"

    def story(side: Side) -> None:
        listed = [words(n, 40) for n in range(200)]
        side.put({"a": BIG, "list": listed, "é": 0}, run_id="run 1", thread=thread)
        for n in range(1, 4):
            side.put({"a": BIG, "list": listed, "é": n}, ["é"], run_id="run 1", thread=thread)
            side.writes(words(n, 300), n, thread=thread, task="ä\u2028")
            side.put({"a": words((n, "inner"), 300)}, ns="ß|:1", thread=thread)
        assert [each for each in side.saver.verify() if each.kind != "orphan"] == []
        if "name_key" not in options:
            audit(side.raw, prefix, thread, clean=True)

    assert played(url, prefix, story, **options) == [WHOLE, SHORT, SHORT, WHOLE, *[SHORT] * 6]


def test_what_is_staged_or_has_many_parts_goes_its_whole_way(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", 50_000)
    monkeypatch.setattr(following, "PARTS_MAX", 6)

    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        side.put({"a": words("large", 8000), "n": 1})
        side.put({"a": words("large", 8000), "n": 2}, ["n"])
        side.put({"a": [words(("part", n), 300) for n in range(8)], "n": 3})
        side.put({"a": [words(("part", n), 300) for n in range(8)], "n": 4}, ["n"])
        side.writes(words("large writes", 8000))
        side.put({"a": [words(("part", n), 300) for n in range(9)], "n": 5})

    assert played(url, prefix, story) == [WHOLE, WHOLE, SHORT, WHOLE, SHORT, WHOLE, SHORT]


# --- what does not ------------------------------------------------------------------------------------------------------


def others_put(side: Side) -> None:
    made = checkpoint({"n": "other"}, {"n": 99}, id=side.new_id())
    side.verb("put", side.heads["t", ""][0], made, metadata(run_id="other"), {"n": 99}, by=side.other)


def archived(side: Side) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export_threads(side.other, f"{folder}/t", threads=["t"])
        side.verb("delete_thread", "t", by=side.other)
        import_threads(f"{folder}/t", side.other)


INTERFERENCE: dict[str, Story] = {
    "a put of another": others_put,
    "writes of another": lambda side: side.writes("x", by=side.other),
    "writes of another that are there": lambda side: side.writes(0, task="task", by=side.other),
    "tag": lambda side: side.verb("tag", "t", "name", by=side.other),
    "tag and untag": lambda side: [side.verb(*call, by=side.other) for call in (("tag", "t", "name"), ("untag", "t", "name"))],
    "set_ttl": lambda side: side.verb("set_ttl", "t", 5000, by=side.other),
    "set_ttl and back": lambda side: [side.verb("set_ttl", "t", seconds, by=side.other) for seconds in (5000, None)],
    "persist": lambda side: side.verb("persist", "t", by=side.other),
    "prune": lambda side: side.verb("prune", ["t"], by=side.other),
    "a prune of its own": lambda side: side.verb("prune", ["t"]),
    "delete_for_runs": lambda side: side.verb("delete_for_runs", ["run 1"], by=side.other),
    "delete_thread": lambda side: side.verb("delete_thread", "t", by=side.other),
    "a deletion of its own": lambda side: side.verb("delete_thread", "t"),
    "deleted and copied back": lambda side: [
        side.verb("copy_thread", "t", "copy", by=side.other),
        side.verb("delete_thread", "t", by=side.other),
        side.verb("copy_thread", "copy", "t", by=side.other),
    ],
    "a fork": lambda side: side.verb("rollback", "t", -1, by=side.other),
    "truncated": lambda side: side.verb("rollback", "t", -1, mode="truncate", by=side.other),
    "a fork of its own": lambda side: side.verb("rollback", "t", -1),
    "exported, deleted, imported": archived,
    "a put with a TTL": lambda side: side.put({"n": "ttl"}, ["n"], by=side.other, ttl=5000),
    "a neighbour in the bucket that expires": lambda side: side.raw.zadd(side.keys().all[3], {"neighbour": 2**42}),
    "expiry of the hash alone": lambda side: side.raw.expire(side.keys().hash, 5000),
    "expiry of both keys": lambda side: [side.raw.expire(key, 5000) for key in side.keys().all[:2]],
    "the index evicted": lambda side: side.raw.unlink(side.keys().all[1]),
    "the hash evicted": lambda side: side.raw.unlink(side.keys().hash),
    "threads evicted": lambda side: side.raw.unlink(side.keys().all[2]),
    "all evicted": lambda side: side.raw.unlink(*side.keys().all),
    "the server emptied": lambda side: side.restore({}),
    "a part lost": lambda side: side.raw.hdel(side.keys().hash, side.fields(b"D")[0]),
    "the counts lost": lambda side: side.raw.hdel(side.keys().hash, "S"),
    "the counts damaged": lambda side: side.raw.hset(side.keys().hash, "S", side.raw.hget(side.keys().hash, "S")[:-1] + b"x"),
    "settings planted": lambda side: side.raw.hset(side.keys().hash, "T", "1 1 0 00000000"),
    "a statement planted": lambda side: side.raw.hset(side.keys().hash, "Z", "statement"),
    "another field": lambda side: side.raw.hset(side.keys().hash, "Dforeign", "\0"),
    "threads of the wrong type": lambda side: [side.raw.delete(side.keys().all[2]), side.raw.set(side.keys().all[2], "x")],
    "expiry of the wrong type": lambda side: [side.raw.delete(side.keys().all[3]), side.raw.set(side.keys().all[3], "x")],
    "runs of the wrong type": lambda side: [side.raw.delete(side.keys().all[4]), side.raw.set(side.keys().all[4], "x")],
    "the index of the wrong type": lambda side: [side.raw.delete(side.keys().all[1]), side.raw.set(side.keys().all[1], "x")],
    "the hash of the wrong type": lambda side: [side.raw.delete(side.keys().hash), side.raw.set(side.keys().hash, "x")],
    "what was remembered of checkpoints forgotten": lambda side: side.saver._engine.manifests.__init__(4096),  # type: ignore[misc]
    "what was remembered of threads forgotten": lambda side: side.saver._engine.tips.take(side.keys().name),
}

DAMAGED = {
    "the hash evicted", "a part lost", "the counts lost", "the counts damaged", "settings planted", "a statement planted",
    "another field",
    "threads of the wrong type", "expiry of the wrong type", "runs of the wrong type",
    "the index of the wrong type", "the hash of the wrong type",
}  # fmt: skip
"""Then the thread is not whole afterwards."""

NOT_FOR_WRITES = {"what was remembered of checkpoints forgotten", "runs of the wrong type"}
"""Pending writes bring all to which they refer, and have no run."""

ORDERS = ["put", "writes"]


@pytest.mark.parametrize(("what", "first"), in_turn(INTERFERENCE, ORDERS))
def test_after_anything_else_the_next_write_goes_its_whole_way(url: str, prefix: str, what: str, first: str) -> None:
    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0}, run_id="run 1")
        side.put({"a": BIG, "n": 1}, ["n"], run_id="run 1")
        side.writes(0, task="task")
        INTERFERENCE[what](side)
        for n, verb in enumerate((first, *ORDERS, *ORDERS)):
            if verb == "put":
                side.put({"a": BIG, "n": 2 + n}, ["n"], run_id="run 2")
            else:
                side.writes(n, words(n, 300))
        side.told.append(plain_or_none(side.saver, at("t")))

    ways = played(url, prefix, story, sound=what not in DAMAGED)
    assert ways[:3] == [WHOLE, SHORT, SHORT]
    if (what, first) not in {(each, "writes") for each in NOT_FOR_WRITES}:
        assert ways[3] == WHOLE


def plain_or_none(saver: RedisSaver, config: Any) -> Any:
    try:
        found = saver.get_tuple(config)
    except CheckpointerError as error:
        return type(error).__name__
    return found and plain(found)


def test_a_run_with_a_ttl_and_the_next_without(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"n": 0})
        side.put({"n": 1})
        side.put({"n": 2}, ttl=5000)
        assert side.raw.pttl(side.keys().hash) > 4_000_000
        for n in range(3, 6):
            side.put({"n": n})
            assert side.raw.pttl(side.keys().hash) == -1

    assert played(url, prefix, story) == [WHOLE, SHORT, WHOLE, WHOLE, WHOLE, SHORT]


def test_two_writes_of_one_marker_in_one_call(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"n": 0})
        side.writes("first", "second", channels=["__error__", "__error__"])

    assert played(url, prefix, story) == [WHOLE, WHOLE]


def test_conflicts_are_looked_for(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"n": 0})
        parent = side.put({"n": 1})
        side.put({"n": 2})
        side.put({"n": 3}, config=parent)
        assert side.told[-1] == "CheckpointConflictError"

    assert played(url, prefix, story, conflict="raise") == [WHOLE] * 4


def test_a_child_with_a_smaller_id_than_its_parent_is_stored_and_told(
    url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    def story(side: Side) -> None:
        early = side.new_id()
        side.put({"a": BIG, "n": 0})
        newest = side.put({"a": BIG, "n": 1}, ["n"])
        caplog.clear()
        side.put({"a": BIG, "n": 2}, ["n"], id=early)
        assert "is a clock behind" in caplog.text
        side.put({"a": BIG, "n": 3}, ["n"], id=f"{early[:-1]}1")  # on one that is not the newest
        assert id_of(side.saver.get_tuple(at("t")).config) == id_of(newest)

    assert played(url, prefix, story) == [WHOLE, SHORT, WHOLE, SHORT]


# --- what builds on a checkpoint finds all that it has ------------------------------------------------------------------


@pytest.mark.parametrize("first", ["nothing", "writes", "put of another namespace"])
def test_a_part_that_was_lost_is_sent_again(url: str, prefix: str, first: str) -> None:
    """Also by a put that follows a write that went its whole way because the part was gone."""

    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        side.put({"b": words("b", 300)}, ns="plain")
        lost = side.raw.hgetall(side.keys().hash)
        side.raw.hdel(side.keys().hash, *side.fields(b"D"))
        if first == "writes":
            side.writes(1)
        elif first != "nothing":
            side.put({"b": 1}, ns="plain")
        side.put({"a": BIG, "n": 1}, ["n"])
        side.told.append(plain(side.saver.get_tuple(at("t"))))
        assert side.raw.hgetall(side.keys().hash).items() >= {(k, v) for k, v in lost.items() if k in side.fields(b"D")}

    played(url, prefix, story, sound=False)


@pytest.mark.parametrize("anew", [True, False])
def test_what_was_known_of_a_checkpoint_that_was_replaced_is_not_built_on(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """A put begins, and before it is sent its process puts the parent again, with other values."""
    monkeypatch.setattr(effects, "COMPUTE_INLINE", -1)

    def story(side: Side) -> None:
        parent = side.put({"a": BIG, "n": 0})
        made = checkpoint({"a": BIG, "n": 1}, {"a": 1, "n": 2}, id=side.new_id())
        begun = writing.put(side.saver._engine, side.saver.serde, parent, made, metadata(), {"n": 2})
        first = next(begun)
        assert isinstance(first, Compute)
        if anew:
            side.verb("delete_thread", "t", by=side.other)
        side.put({"a": words("other", 300), "n": 0}, id=id_of(parent), config=at("t"))
        if not side.remembers:
            side.saver._engine.tips.take(side.keys().name)
        perform(side, begun, first)
        side.told.append(plain(side.saver.get_tuple(at("t"))))

    played(url, prefix, story, tombstone=None)


def perform(side: Side, operation: Any, effect: Any) -> Any:
    """The rest of an operation that was begun, without a driver."""
    try:
        while True:
            if isinstance(effect, Compute | Note):
                effect = operation.send(effect.work() if isinstance(effect, Compute) else None)
            else:
                effect = operation.send(effect.unwrap(side.raw.evalsha(effect.script.sha, *effect.arguments)))
    except StopIteration as done:
        return done.value


def test_a_checkpoint_that_is_put_twice_with_other_content(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        twice = side.put({"a": BIG, "n": 1}, ["n"])
        side.put({"a": words("other", 300), "n": 1}, id=id_of(twice))
        side.put({"a": words("other", 300), "n": 2}, ["n"])
        side.writes("x", "y", task="task", channels=["c", "d"])
        side.writes("other", "y", task="task", channels=["c", "d"])
        side.writes("error", task="task", channels=["__error__"])
        side.writes("other error", task="task", channels=["__error__"])
        side.writes("x", "y", channels=["__error__", "__error__"])

    assert played(url, prefix, story)[:4] == [WHOLE, SHORT, WHOLE, SHORT]


def test_new_keys_give_parts_new_names(url: str, prefix: str) -> None:
    """`rekey` by another process, or by the same."""
    old, new = bytes(32), bytes(range(32))

    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        side.put({"a": BIG, "n": 1}, ["n"])
        with RedisSaver(side.url, prefix=prefix, encryption_key=[new, old]) as turning:
            turning.rekey(["t"])
        side.put({"a": BIG, "n": 2}, ["n"])
        side.put({"a": BIG, "n": 3}, ["n"])
        side.verb("rekey", ["t"])
        side.put({"a": BIG, "n": 4}, ["n"])
        side.told.append(plain(side.saver.get_tuple(at("t"))))

    assert played(url, prefix, story, encryption_key=[old, new])[2] == WHOLE


# --- what was lost on its way, and what was done twice -------------------------------------------------------------------


@pytest.mark.parametrize("equal", [True, False], ids=["an equal write", "nothing"])
def test_after_a_failover_that_lost_a_write(url: str, prefix: str, equal: bool) -> None:
    """And after which another process wrote something of the same size."""

    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        side.put({"a": BIG, "n": 1}, ["n"])
        before, known = side.dump(), dict(side.heads)
        side.put({"a": BIG, "b": words(1, 300), "n": 2}, ["b", "n"])
        lost, size = dict(side.heads), side.raw.hget(side.keys().hash, "S").split()
        side.restore(before)
        if equal:
            side.heads = known
            side.ids += 1
            side.put({"a": BIG, "b": words(2, 300), "n": 2}, ["b", "n"], by=side.other)
            assert abs(int(side.raw.hget(side.keys().hash, "S").split()[7]) - int(size[7])) < 50
        side.heads = lost
        side.put({"a": BIG, "b": words(1, 300), "n": 3}, ["n"])
        side.writes("x")
        side.told.append(plain(side.saver.get_tuple(at("t"))))

    ways = played(url, prefix, story)
    assert ways[:4] == [WHOLE, SHORT, SHORT, WHOLE]


def test_after_a_failover_that_lost_only_what_others_wrote_a_write_follows(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        before = side.dump()
        others_put(side)
        side.restore(before)
        side.put({"a": BIG, "n": 1}, ["n"])

    assert played(url, prefix, story) == [WHOLE, SHORT]


@pytest.mark.parametrize("meanwhile", ["nothing", "a put", "a deletion"])
@pytest.mark.parametrize("verb", ["put", "writes"])
def test_a_command_that_is_repeated_since_its_reply_was_lost(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, verb: str, meanwhile: str
) -> None:
    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        evalsha = side.saver.client.evalsha

        def twice(*arguments: Any) -> Any:
            evalsha(*arguments)
            monkeypatch.setattr(side.saver.client, "evalsha", evalsha)
            if meanwhile == "a put":
                others_put(side)
            elif meanwhile == "a deletion":
                side.verb("delete_thread", "t", by=side.other)
            return evalsha(*arguments)

        monkeypatch.setattr(side.saver.client, "evalsha", twice)
        for n in range(1, 4):
            if verb == "put":
                side.put({"a": BIG, "n": n}, ["n"])
            else:
                side.writes(n)
        side.put({"a": BIG, "n": 9}, ["n"])
        side.told.append(plain_or_none(side.saver, at("t")))

    played(url, prefix, story)


def test_a_command_that_arrives_late_changes_nothing(url: str, prefix: str) -> None:
    """The first of two attempts may be performed last."""

    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        calls, made = [], commands._call

        def kept(*arguments: Any, **more: Any) -> Any:
            calls.append(made(*arguments, **more))
            return calls[-1]

        commands._call = kept  # type: ignore[assignment]
        try:
            side.put({"a": BIG, "n": 1}, ["n"])
            side.writes("x")
        finally:
            commands._call = made
        side.put({"a": BIG, "n": 2}, ["n"])
        state = side.state()
        for call in calls:
            side.raw.evalsha(call.script.sha, *call.arguments)
        assert side.state() == state
        side.put({"a": BIG, "n": 3}, ["n"])

    assert played(url, prefix, story) == [WHOLE, SHORT, SHORT, SHORT, WHOLE]


def test_nothing_is_written_on_a_server_that_is_full(url: str, prefix: str) -> None:
    def story(side: Side) -> None:
        side.put({"a": BIG, "n": 0})
        side.put({"a": BIG, "n": 1}, ["n"])
        state = side.state()
        policy = side.raw.config_get("maxmemory-policy")["maxmemory-policy"]
        side.raw.config_set("maxmemory-policy", "noeviction")
        side.raw.config_set("maxmemory", 1)
        try:
            side.put({"a": BIG, "n": 2}, ["n"])
            side.writes("x")
        finally:
            side.raw.config_set("maxmemory", 0)
            side.raw.config_set("maxmemory-policy", policy)
        assert side.state() == state
        side.put({"a": BIG, "n": 3}, ["n"])
        side.writes("x")

    ways = played(url, prefix, story)
    assert ways[-2:] == [SHORT, SHORT]


# --- many at once -------------------------------------------------------------------------------------------------------


async def test_tasks_of_one_process_that_write_at_once(url: str, prefix: str, raw: Any) -> None:
    async with RedisSaver(url, prefix=prefix) as saver:

        async def chain(ns: str) -> None:
            config = at("t", ns)
            for n in range(8):
                made = checkpoint({"a": words(ns, 300), "n": n}, {"a": 1, "n": n + 1})
                config = await saver.aput(config, made, metadata(), {"n": n + 1} if n else made["channel_versions"])
                await asyncio.gather(*(saver.aput_writes(config, [("n", words((ns, n), 40))], f"task {k}") for k in range(3)))

        await asyncio.gather(*map(chain, ["", "child:1", "child:2", "plain"]))
        told = audit(raw, prefix, "t", clean=True)
        assert (told["checkpoints"], told["writes"], told["versions"]) == (32, 96, 32)
        assert told["revision"] == 128
        assert [len(found.pending_writes or []) async for found in saver.alist(at("t", None))] == [3] * 32
        assert [each async for each in saver.averify("t")] == []


FORKED = """
for n in range(rounds):
    made = checkpoint({"a": text, "n": n, "by": number}, {"a": 1, "n": n + 2, "by": 1})
    config = saver.put(config, made, metadata(), {"n": n + 2, "by": 1})
    saver.put_writes(config, [("n", n)], f"task {number}")
print(int(new_token()), flush=True)
os._exit(0)
"""


def test_forked_processes_that_know_the_same_last_write(url: str, prefix: str, raw: Any) -> None:
    rounds = times(8, 40)
    imports = f"""
from shapes import at, checkpoint, metadata, words
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import new_token
saver, text, rounds = RedisSaver({url!r}, prefix={prefix!r}), words("forked", 300), {rounds}
made = checkpoint({{"a": text, "n": 0}}, {{"a": 1, "n": 1}})
config = saver.put(at("t"), made, metadata(), {{"a": 1, "n": 1}})
"""
    done = subprocess.run(forked(2, imports, FORKED), check=True, timeout=60, capture_output=True)
    first, second = map(int, done.stdout.split())
    assert abs(first - second) > 1000  # tokens of one process never occur in the other
    told = audit(raw, prefix, "t", clean=True)
    assert (told["checkpoints"], told["writes"], told["revision"]) == (2 * rounds + 1, 2 * rounds, 4 * rounds + 1)


# --- any history --------------------------------------------------------------------------------------------------------

CHAT = [HumanMessage(words(("message", n), 20), id=str(n)) for n in range(24)]
VALUES: list[Any] = [
    *(0, 1, BIG, BIG + "more", words(1, 300), words(2, 900), [words(n, 40) for n in range(30)]),
    *(CHAT[:16], CHAT[:20], CHAT),
]
values = st.integers(0, len(VALUES) - 1)
spaces = st.sampled_from(["", "", *SPACES])
VERBS = ["tag", "untag", "prune", "keep", "runs", "expire", "persist", "delete", "copy", "repair", "index", "fork"]
steps = st.one_of(
    st.tuples(st.just("put"), spaces, values, st.booleans(), st.booleans()),
    st.tuples(st.just("put"), spaces, values, st.booleans(), st.booleans()),
    st.tuples(st.just("writes"), spaces, st.lists(values, min_size=1, max_size=3), st.integers(0, 9), st.booleans()),
    st.tuples(
        st.just("verb"),
        st.sampled_from(VERBS),
    ),
)


def take(side: Side, step: Any) -> None:
    kind, *more = step
    if kind == "put":
        ns, value, carried, other = more
        side.put(
            {"a": VALUES[value], "n": side.ids, "big": BIG},
            ["n"] if carried else None,
            ns=ns,
            by=side.other if other else None,
            run_id=f"run {side.ids % 3}",
            parents={"": id_of(side.heads["t", ""][0])} if ns and ("t", "") in side.heads else {},
        )
    elif kind == "writes":
        ns, written, task, other = more
        if ("t", ns) in side.heads:
            channels = ["a", "__error__", "a"][: len(written)]
            side.writes(
                *(VALUES[each] for each in written),
                ns=ns,
                task=f"task {task}",
                channels=channels,
                by=side.other if other else None,
            )
    else:
        verb(side, more[0])


def verb(side: Side, name: str) -> None:
    by = side.other
    if name in ("tag", "untag", "persist"):
        side.verb(name, "t", *(["name"] if name != "persist" else []), by=by)
    elif name in ("prune", "keep"):
        side.verb("prune", ["t"], by=by, **({"keep_last": 2} if name == "keep" else {}))
    elif name == "runs":
        side.verb("delete_for_runs", ["run 1"], by=by)
    elif name == "expire":
        side.verb("set_ttl", "t", 5000, by=by)
        side.verb("set_ttl", "t", None, by=by)
    elif name == "delete":
        side.verb("delete_thread", "t", by=by)
    elif name == "copy":
        side.verb("copy_thread", "t", "copy", by=by)
        side.verb("delete_thread", "t", by=by)
        side.verb("copy_thread", "copy", "t", by=by)
        side.verb("delete_thread", "copy", by=by)
    elif name == "fork":
        side.verb("rollback", "t", -1, by=by)
    elif name == "repair":
        list(side.other.repair("t"))
    else:
        side.raw.unlink(side.keys().all[1])


@settings(
    max_examples=times(12, 150, 3000),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if LEVEL == 2 else [])],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(
    history=st.lists(steps, min_size=4, max_size=times(25, 50)),
    tombstone=st.sampled_from([None, 600]),
    others=st.sampled_from([{}, {}, {"ttl": 5000}, {"index_metadata": ["step"]}, {"max_versions": 2}, {"conflict": "raise"}]),
)
def test_any_history_leaves_what_the_whole_way_leaves(url: str, history: list[Any], tombstone: Any, others: Any) -> None:
    def story(side: Side) -> None:
        for step in history:
            take(side, step)
        for ns in SPACES:
            side.put({"a": 1, "n": -1, "big": BIG}, ["n"], ns=ns)
        side.told.append([plain(found) for found in side.saver.list(at("t", None))])

    played(url, f"t-{uuid.uuid4().hex[:12]}", story, tombstone=tombstone, others=others)
