"""Removals at the moment when something else happens: other writers, clients that die, replies that are lost, a full server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from audit import audit, grow, keys_of, put
from shapes import at, id_of, plain, words
from soak import in_turn, rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import Script
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ThreadBusyError
from langgraph_redis_state.operations import removal_plan, removing, uploading
from langgraph_redis_state.scripts.commands import COMMIT_COPY, REMOVE, STAGE, STAGE_REMAINING
from langgraph_redis_state.storage.keys import ThreadKeys


def remove_by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small threads too are removed from in this way."""
    monkeypatch.setattr(removal_plan, "REMADE", {"anew": -1000, "taken out": 1000, "staged": 5}[way])
    monkeypatch.setattr(removal_plan, "HELD", -(10**9) if way == "staged" else 10**9)
    monkeypatch.setattr(removing, "STAGED_TOGETHER", 10)


@pytest.fixture(params=["anew", "taken out", "staged"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the three ways to remove."""
    remove_by(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_by("staged", monkeypatch)


def renames(raw: Any) -> int:
    """How many renames there were: two for each removal through staging."""
    return int(raw.info("commandstats").get("cmdstat_rename", {}).get("calls", 0))


def grown(saver: RedisSaver) -> list[str]:
    """A thread with subgraphs, runs, pending writes, also of a checkpoint that has not come, a tag and a TTL of its own."""
    made = [id_of(config) for config in grow(saver, "t", 32, 1)]
    saver.put_writes(at("t", "", "on its way"), [("early", words("early", 50))], "task")
    saver.tag("t", "here", made[3])
    saver.set_ttl("t", 5000)
    return made


def everything(saver: RedisSaver) -> list[Any]:
    return [plain(found) for found in saver.list(at("t", None))]


def stored(raw: Any, prefix: str) -> dict[str, Any]:
    """All that is under a prefix, but for when things expire."""
    found: dict[str, Any] = {}
    for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
        kind = raw.type(key)
        if kind == b"hash":
            found[key] = raw.hgetall(key)
            counts = found[key].get(b"S")
            found[key][b"S"] = counts and counts.rsplit(b" ", 2)[0]  # behind it stands which write it was
        elif kind == b"zset":
            expiry = key.endswith(b":expiry")
            found[key] = raw.zrange(key, 0, -1) if expiry else raw.zrange(key, 0, -1, withscores=True)
        else:
            found[key] = raw.get(key)
    return found


def meddle(
    saver: RedisSaver, monkeypatch: pytest.MonkeyPatch, script: Script, what: Callable[[list[Any]], Any], times: range
) -> list[int]:
    """Does something before these calls of a script leave (the first is 0); `what` is given their keys. How many left."""
    client = saver.client
    client.script_load(script.source)
    evalsha, count = client.evalsha, [0]

    def first(sha: bytes, n: bytes, *args: Any) -> Any:
        if sha == script.sha:
            count[0] += 1
            if count[0] - 1 in times:
                what(list(args[: int(n)]))
        return evalsha(sha, n, *args)

    monkeypatch.setattr(client, "evalsha", first)
    return count


ONCE, ALWAYS = range(1), range(10**9)


# --- all ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "surface"), in_turn(["prune", "truncate", "runs", "latest"], ["sync", "async"]))
async def test_the_thread_is_the_same_taken_out_or_made_anew_or_staged(
    saver: RedisSaver, asaver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, kind: str, surface: str
) -> None:
    made = grown(saver)
    keys = ThreadKeys(prefix, b"t")
    before = {key: (raw.dump(key), raw.pttl(key)) for key in raw.scan_iter(match=f"{prefix}:*", count=10_000)}

    async def remove() -> dict[str, Any]:
        if kind == "prune":
            saver.prune(["t"], keep_last=12) if surface == "sync" else await asaver.aprune(["t"], keep_last=12)
        elif kind == "truncate":
            to = made[12]
            saver.rollback("t", to, mode="truncate") if surface == "sync" else await asaver.arollback("t", to, mode="truncate")
        elif kind == "runs":
            runs = [f"run {n}" for n in range(4)]
            saver.delete_for_runs(runs) if surface == "sync" else await asaver.adelete_for_runs(runs)
        else:
            saver.prune(["t"]) if surface == "sync" else await asaver.aprune(["t"])
        audit(raw, prefix, "t", clean=True)
        for key in keys.all[:2]:
            assert 4_900_000 < raw.pttl(key) <= 5_000_000
        assert not list(saver.verify("t"))  # they expire at one moment, and the bucket says when
        return stored(raw, prefix)

    remove_by("taken out", monkeypatch)
    expected = await remove()
    for way in ("anew", "staged"):
        for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
            raw.delete(key)
        for key, (content, ms) in before.items():
            raw.restore(key, max(ms, 0), content)
        remove_by(way, monkeypatch)
        assert await remove() == expected
    assert not list(saver.verify())
    put(saver, at("t", "", id_of(saver.get_tuple(at("t")).config)), {"n": "on"})
    audit(raw, prefix, "t")


# --- what comes in between --------------------------------------------------------------------------------------------


def test_who_writes_in_between_loses_nothing_and_what_goes_is_chosen_again(
    saver: RedisSaver, url: str, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grown(saver)
    with RedisSaver(url, prefix=prefix) as other:
        came: list[str] = []

        def write(_: list[Any]) -> None:
            config = put(other, at("t", "", made[-1]), {"messages": [words("new", 300)], "n": "new"})
            other.put_writes(config, [("messages", words("new write", 300))], "task")
            other.put_writes(at("t", "", made[-2]), [("late", "x")], "late task")
            came.append(id_of(config))

        meddle(saver, monkeypatch, REMOVE, write, ONCE)
        saver.prune(["t"], keep_last=12)
        assert len(came) == 1
        found = saver.get_tuple(at("t"))
        assert (id_of(found.config), found.checkpoint["channel_values"]["n"]) == (came[0], "new")
        assert found.pending_writes == [("task", "messages", words("new write", 300))]
        assert ("late task", "late", "x") in saver.get_tuple(at("t", "", made[-2])).pending_writes
        assert [version.checkpoint_id for version in saver.history("t")] == [came[0], *made[:-12:-1], made[3]]
        audit(raw, prefix, "t", clean=True)
        assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]


def test_who_always_writes_in_between_is_told_of_and_keeps_all(
    saver: RedisSaver, url: str, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grown(saver)
    with RedisSaver(url, prefix=prefix) as other:
        meddle(saver, monkeypatch, REMOVE, lambda _: put(other, at("t", "", made[-1]), {"n": "new"}), ALWAYS)
        with pytest.raises(ThreadBusyError):
            saver.prune(["t"], keep_last=12)
    assert len(list(saver.history("t"))) == 32 + removing.BUSY_TRIES
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    assert not list(saver.verify())


def test_settings_made_in_between_hold(
    saver: RedisSaver, url: str, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(saver)
    keys = ThreadKeys(prefix, b"t")
    with RedisSaver(url, prefix=prefix) as other:
        for keep_last, change, ttl in (
            (20, lambda: other.set_ttl("t", 90), 90_000),
            (12, lambda: other.persist("t"), -1),
            (8, lambda: other.set_ttl("t", None), -1),
        ):
            with monkeypatch.context() as patched:
                left = meddle(saver, patched, REMOVE, lambda _, change=change: change(), ONCE)
                saver.prune(["t"], keep_last=keep_last)
                assert left[0] == 1
            for key in keys.all[:2]:
                assert ttl - 10_000 < raw.pttl(key) <= ttl
            assert (raw.zscore(keys.all[3], keys.name) is None) == (ttl < 0)
            assert not list(saver.verify("t"))
            audit(raw, prefix, "t", clean=True)
    assert raw.hget(keys.hash, "T") is None


def test_a_thread_deleted_in_between_stays_deleted(
    saver: RedisSaver, url: str, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(saver)
    with RedisSaver(url, prefix=prefix) as other:
        meddle(saver, monkeypatch, REMOVE, lambda _: other.delete_thread("t"), ONCE)
        saver.prune(["t"], keep_last=12)
    assert saver.get_tuple(at("t")) is None
    assert keys_of(raw, prefix) == {"x:t", f"{prefix}:layout"}


# --- halfway ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_a_client_that_dies_before_the_script_leaves_the_thread(
    saver: RedisSaver, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(saver)
    before, fields = everything(saver), stored(raw, prefix)

    def die(_: list[Any]) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        meddle(saver, patched, REMOVE, die, ONCE)
        with pytest.raises(Killed):
            saver.prune(["t"], keep_last=12)
    assert everything(saver) == before
    left = stored(raw, prefix)
    copies = [key for key in left if b"}:u:" in key]
    assert {key: content for key, content in left.items() if key not in copies} == fields
    assert len(copies) == (2 if way == "staged" else 0)
    assert all(0 < raw.pttl(key) <= uploading.STAGING_MS for key in copies)
    assert not list(saver.verify())
    saver.prune(["t"], keep_last=12)
    assert len(list(saver.history("t"))) == 13
    audit(raw, prefix, "t", clean=True)


def test_the_script_may_arrive_twice(
    saver: RedisSaver, raw: Any, prefix: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply was lost, and redis-py sends it again."""
    made = grown(saver)
    client = saver.client
    evalsha = client.evalsha

    def twice(sha: bytes, *args: Any) -> Any:
        if sha == REMOVE.sha:
            evalsha(sha, *args)
        return evalsha(sha, *args)

    client.script_load(REMOVE.source)
    monkeypatch.setattr(client, "evalsha", twice)
    saver.prune(["t"], keep_last=12)
    assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize("script", [STAGE_REMAINING, rare(STAGE)])
def test_who_writes_while_what_stays_is_copied_loses_nothing(
    saver: RedisSaver, url: str, raw: Any, prefix: str, staged: None, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    made = grown(saver)
    with RedisSaver(url, prefix=prefix) as other:
        came: list[str] = []
        write = lambda _: came.append(id_of(put(other, at("t", "", made[-1]), {"messages": [words("new", 300)]})))  # noqa: E731
        left = meddle(saver, monkeypatch, script, write, range(1, 2) if script is STAGE_REMAINING else ONCE)
        saver.prune(["t"], keep_last=12)
    assert len(came) == 1
    assert left[0] > 1
    assert [version.checkpoint_id for version in saver.history("t")] == [came[0], *made[:-12:-1], made[3]]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "t", clean=True)


def test_copying_what_stays_may_arrive_twice(
    saver: RedisSaver, raw: Any, prefix: str, staged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grown(saver)
    client, before = saver.client, renames(raw)
    evalsha = client.evalsha

    def twice(sha: bytes, *args: Any) -> Any:
        if sha in (STAGE_REMAINING.sha, STAGE.sha):
            evalsha(sha, *args)
        return evalsha(sha, *args)

    for script in (STAGE_REMAINING, STAGE):
        client.script_load(script.source)
    monkeypatch.setattr(client, "evalsha", twice)
    saver.prune(["t"], keep_last=12)
    assert renames(raw) == before + 2
    assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize(
    ("script", "n", "which"), [(STAGE_REMAINING, 3, 0), rare(STAGE, 0, 0), rare(REMOVE, 0, 0), (REMOVE, 0, 1)]
)
def test_staging_of_a_removal_that_was_evicted_on_the_way_is_never_taken_for_whole(
    saver: RedisSaver,
    raw: Any,
    prefix: str,
    staged: None,
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    n: int,
    which: int,
) -> None:
    made, before = grown(saver), renames(raw)
    evicted: list[int] = []
    meddle(saver, monkeypatch, script, lambda keys: evicted.append(raw.delete(keys[7 + which])), range(n, n + 1))
    saver.prune(["t"], keep_last=12)
    assert evicted == [1]
    assert renames(raw) == before  # one script removed it
    assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "t", clean=True)


def test_what_stays_is_not_copied_if_it_is_too_much_or_little_goes(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(saver)
    for limit, value, copied in (("HELD", 10**9, 0), ("STAGED_BYTES", 100, 0), ("HELD", 1, 2)):
        with monkeypatch.context() as patched:
            patched.setattr(removal_plan, "HELD", 1)
            patched.setattr(removal_plan, limit, value)
            before, keep = renames(raw), len(list(saver.history("t"))) - 5
            saver.prune(["t"], keep_last=keep)
            assert renames(raw) == before + copied, limit
        audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize(
    ("script", "n", "which"), [(STAGE, 2, 0), (COMMIT_COPY, 0, 1), rare(STAGE, 2, 1), rare(COMMIT_COPY, 0, 0)]
)
def test_staging_of_a_copy_that_was_evicted_on_the_way_is_never_taken_for_whole(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, script: Script, n: int, which: int
) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", uploading.UPLOAD_BYTES // 16)
    grow(saver, "t", 60, 1)
    evicted: list[int] = []

    def evict(keys: list[Any]) -> None:
        if not evicted and raw.delete(keys[7 + which]):  # a scan may meet the fields that make the index late
            evicted.append(1)

    meddle(saver, monkeypatch, script, evict, range(n, 10**9))
    saver.copy_thread("t", "copy")
    assert evicted == [1]
    assert [version.checkpoint_id for version in saver.history("copy")] == [
        version.checkpoint_id for version in saver.history("t")
    ]
    assert [tup.checkpoint for tup in saver.list(at("copy", None))] == [tup.checkpoint for tup in saver.list(at("t", None))]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "copy")


@pytest.mark.parametrize(("script", "n"), [(STAGE_REMAINING, 0), (STAGE_REMAINING, 3), rare(STAGE, 0), (REMOVE, 0)])
def test_a_server_that_gets_full_while_what_stays_is_copied_still_removes(
    staged: None, monkeypatch: pytest.MonkeyPatch, script: Script, n: int
) -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="full") as saver:
            made = grown(saver)
            client.config_set("maxmemory-policy", "noeviction")
            for each in (STAGE_REMAINING, STAGE, REMOVE):
                client.script_load(each.source)
            meddle(saver, monkeypatch, script, lambda _: client.config_set("maxmemory", 1), range(n, n + 1))
            before = renames(client)
            saver.prune(["t"], keep_last=12)
            assert client.config_get("maxmemory")["maxmemory"] == "1"
            assert renames(client) == before + (2 if script is REMOVE else 0)
            client.config_set("maxmemory", 0)
            assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
            assert not [name for name in keys_of(client, "full") if name.startswith("u:")]
            audit(client, "full", "t", clean=True)


def test_a_server_that_gets_full_on_the_way_still_removes(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="full") as saver:
            made = grown(saver)
            client.config_set("maxmemory-policy", "noeviction")
            meddle(saver, monkeypatch, REMOVE, lambda _: client.config_set("maxmemory", 1), ONCE)
            saver.prune(["t"], keep_last=12)
            assert client.config_get("maxmemory")["maxmemory"] == "1"
            client.config_set("maxmemory", 0)
            assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
            audit(client, "full", "t", clean=True)
