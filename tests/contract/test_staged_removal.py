"""Removals that are large: what stays is copied to staging by short scripts, and becomes the thread in one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import redis
from audit import audit, grow, keys_of, put
from shapes import at, id_of, plain, words
from soak import rare, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import Script
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ThreadBusyError
from langgraph_redis_state.operations import removal_plan, removing, uploading
from langgraph_redis_state.operations.removing import REMOVE, STAGE_REMAINING
from langgraph_redis_state.operations.uploading import COMMIT_COPY, STAGE
from langgraph_redis_state.storage.keys import ThreadKeys


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every removal is one through staging, of several scripts."""
    monkeypatch.setattr(removal_plan, "SHORT", 0)
    monkeypatch.setattr(removing, "KEEP_FIELDS", 10)


def grown(saver: RedisSaver) -> list[str]:
    """A thread with subgraphs, runs, pending writes, also of a checkpoint that has not come, a tag and a TTL of its own."""
    made = [id_of(config) for config in grow(saver, "t", 32, 1)]
    saver.put_writes(at("t", "", "on its way"), [("early", words("early", 50))], "task")
    saver.tag("t", "here", made[3])
    saver.set_ttl("t", 5000)
    return made


def everything(saver: RedisSaver) -> list[Any]:
    return [plain(found) for found in saver.list(at("t", None))]


def copies(raw: Any) -> int:
    """How many threads were made of staging so far, which takes two renames."""
    return int(raw.info("commandstats").get("cmdstat_rename", {}).get("calls", 0))


def stored(raw: Any, prefix: str) -> dict[str, Any]:
    """All that is under a prefix, but for when things expire."""
    found: dict[str, Any] = {}
    for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
        kind = raw.type(key)
        if kind == b"hash":
            found[key] = raw.hgetall(key)
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


# --- the same as in one script ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["sync", "async"])
@pytest.mark.parametrize("kind", ["prune", "truncate", "runs", "latest"])
async def test_the_thread_is_the_same_as_if_one_script_had_removed_it_all(
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

    renames = copies(raw)
    expected = await remove()
    assert copies(raw) == renames
    for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
        raw.delete(key)
    for key, (content, ms) in before.items():
        raw.restore(key, max(ms, 0), content)
    monkeypatch.setattr(removal_plan, "SHORT", 0)
    monkeypatch.setattr(removing, "KEEP_FIELDS", 10)
    assert await remove() == expected
    assert copies(raw) == renames + 2
    assert not list(saver.verify())
    put(saver, at("t", "", id_of(saver.get_tuple(at("t")).config)), {"n": "on"})
    audit(raw, prefix, "t")


@pytest.mark.longer
def test_a_large_removal_holds_the_server_for_a_part_of_what_one_script_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="many") as saver:
            config, many = at("t"), times(1500, 3000, 3000)
            for n in range(many):
                config = put(saver, config, {"n": n})
            for script in (STAGE_REMAINING, STAGE, REMOVE):
                client.script_load(script.source)
            client.config_set("slowlog-max-len", 100_000)
            names = {script.sha: script.name for script in (STAGE_REMAINING, STAGE, REMOVE)}

            def longest() -> dict[str, int]:
                """Of three copies the one that the machine disturbed least; in µs."""
                rounds: list[dict[str, int]] = []
                for _ in range(3):
                    saver.delete_thread("copy")
                    saver.copy_thread("t", "copy")
                    client.slowlog_reset()
                    client.config_set("slowlog-log-slower-than", 0)
                    saver.prune(["copy"], keep_last=many // 2)
                    client.config_set("slowlog-log-slower-than", -1)
                    assert len(list(saver.history("copy"))) == many // 2
                    audit(client, "many", "copy", clean=True)
                    found: dict[str, int] = {}
                    for entry in client.slowlog_get(100_000):
                        command = entry["command"].split(b" ")
                        if len(command) > 1 and command[1] in names:
                            found[names[command[1]]] = max(found.get(names[command[1]], 0), entry["duration"])
                    rounds.append(found)
                assert all(set(found) == set(rounds[0]) for found in rounds)
                return {name: min(found[name] for found in rounds) for name in rounds[0]}

            at_once = longest()
            assert set(at_once) == {"remove"}
            monkeypatch.setattr(removal_plan, "SHORT", 1000)
            monkeypatch.setattr(removing, "KEEP_FIELDS", 200)
            in_steps = longest()
            assert set(in_steps) == {"keep", "stage", "remove"}
            assert 2 * in_steps["remove"] < at_once["remove"], (in_steps, at_once)
            left = meddle(saver, monkeypatch, STAGE_REMAINING, lambda _: None, range(0))
            saver.prune(["t"], keep_last=many // 2)
            fields = client.hlen(ThreadKeys("many", b"t").hash) - 1  # S is not copied
            assert left[0] == -(-fields // 200)


def test_large_fields_are_copied_in_scripts_of_bounded_size(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, config = random.Random(1), at("t")
    for n in range(8):
        config = put(saver, config, {"blob": dice.randbytes(1_500_000), "n": n})
    monkeypatch.setattr(removal_plan, "SHORT", 0)
    left = meddle(saver, monkeypatch, STAGE_REMAINING, lambda _: None, range(0))
    saver.prune(["t"], keep_last=6)
    assert 4 <= left[0] <= 20  # 9 MB
    audit(raw, prefix, "t", clean=True)


def test_so_much_that_staging_would_be_too_large_is_removed_in_place(
    saver: RedisSaver, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(saver)
    renames = copies(raw)
    monkeypatch.setattr(removal_plan, "STAGED_BYTES", 1000)
    saver.prune(["t"], keep_last=12)
    assert copies(raw) == renames
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize("runs", [True, False])
def test_entries_of_runs_that_go_count_too(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    config = at("t")
    for n in range(40):
        config = put(saver, config, {"n": n}, **({"run_id": f"run {n}"} if runs else {}))
    monkeypatch.setattr(removal_plan, "SHORT", 60)  # 20 fields and 20 members go, and with them 40 entries of the bucket
    renames = copies(raw)
    saver.prune(["t"], keep_last=20)
    assert copies(raw) - renames == (2 if runs else 0)
    assert not list(saver.verify())
    audit(raw, prefix, "t", clean=True)


# --- what comes in between --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [STAGE_REMAINING, STAGE, REMOVE], ids=repr)
def test_who_writes_in_between_loses_nothing_and_what_goes_is_chosen_again(
    saver: RedisSaver, url: str, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    made = grown(saver)
    with RedisSaver(url, prefix=prefix) as other:
        came: list[str] = []

        def write(_: list[Any]) -> None:
            config = put(other, at("t", "", made[-1]), {"messages": [words("new", 300)], "n": "new"})
            other.put_writes(config, [("messages", words("new write", 300))], "task")
            other.put_writes(at("t", "", made[-2]), [("late", "x")], "late task")
            came.append(id_of(config))

        meddle(saver, monkeypatch, script, write, ONCE)
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
    saver: RedisSaver, url: str, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch
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
    saver: RedisSaver, url: str, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch
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
                renames = copies(raw)
                left = meddle(saver, patched, REMOVE, lambda _, change=change: change(), ONCE)
                saver.prune(["t"], keep_last=keep_last)
                assert (left[0], copies(raw)) == (1, renames + 2)
            for key in keys.all[:2]:
                assert ttl - 10_000 < raw.pttl(key) <= ttl
            assert (raw.zscore(keys.all[3], "t") is None) == (ttl < 0)
            assert not list(saver.verify("t"))
            audit(raw, prefix, "t", clean=True)
    assert raw.hget(keys.hash, "T") is None


def test_a_thread_deleted_in_between_stays_deleted(
    saver: RedisSaver, url: str, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize(("script", "n"), [(STAGE_REMAINING, 0), (STAGE_REMAINING, 3), (STAGE, 0), (REMOVE, 0)])
def test_a_client_that_dies_before_any_of_the_scripts_leaves_the_thread_and_what_expires(
    saver: RedisSaver, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch, script: Script, n: int
) -> None:
    grown(saver)
    before, fields = everything(saver), stored(raw, prefix)

    def die(_: list[Any]) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        meddle(saver, patched, script, die, range(n, n + 1))
        with pytest.raises(Killed):
            saver.prune(["t"], keep_last=12)
    assert everything(saver) == before
    left = stored(raw, prefix)
    staged = [key for key in left if b"}:u:" in key]
    assert {key: content for key, content in left.items() if key not in staged} == fields
    assert bool(staged) == (n > 0 or script is not STAGE_REMAINING)
    assert all(0 < raw.pttl(key) <= uploading.STAGING_MS for key in staged)
    assert not list(saver.verify())
    saver.prune(["t"], keep_last=12)
    assert len(list(saver.history("t"))) == 13
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize("script", [STAGE_REMAINING, STAGE, REMOVE], ids=repr)
def test_each_script_may_arrive_twice(
    saver: RedisSaver, raw: Any, prefix: str, staging: None, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    """The reply was lost, and redis-py sends it again."""
    made = grown(saver)
    client = saver.client
    evalsha = client.evalsha

    def twice(sha: bytes, *args: Any) -> Any:
        if sha == script.sha:
            evalsha(sha, *args)
        return evalsha(sha, *args)

    client.script_load(script.source)
    monkeypatch.setattr(client, "evalsha", twice)
    renames = copies(raw)
    saver.prune(["t"], keep_last=12)
    assert copies(raw) == renames + 2
    assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize(("script", "n", "which"), [(STAGE_REMAINING, 3, 0), (STAGE, 0, 0), (REMOVE, 0, 0), (REMOVE, 0, 1)])
def test_staging_that_was_evicted_on_the_way_is_never_taken_for_whole(
    saver: RedisSaver,
    raw: Any,
    prefix: str,
    staging: None,
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    n: int,
    which: int,
) -> None:
    made = grown(saver)
    evicted: list[int] = []
    meddle(saver, monkeypatch, script, lambda keys: evicted.append(raw.delete(keys[7 + which])), range(n, n + 1))
    renames = copies(raw)
    saver.prune(["t"], keep_last=12)
    assert evicted == [1]
    assert copies(raw) == renames  # it was removed in place
    assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize(
    ("script", "n", "which"), [(STAGE, 2, 0), (COMMIT_COPY, 0, 1), rare(STAGE, 2, 1), rare(COMMIT_COPY, 0, 0)]
)
def test_the_same_with_staging_of_a_copy(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, script: Script, n: int, which: int
) -> None:
    grow(saver, "t", 300, 1)
    evicted: list[int] = []
    meddle(saver, monkeypatch, script, lambda keys: evicted.append(raw.delete(keys[7 + which])), range(n, n + 1))
    saver.copy_thread("t", "copy")
    assert evicted == [1]
    assert [version.checkpoint_id for version in saver.history("copy")] == [
        version.checkpoint_id for version in saver.history("t")
    ]
    assert [tup.checkpoint for tup in saver.list(at("copy", None))] == [tup.checkpoint for tup in saver.list(at("t", None))]
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]
    audit(raw, prefix, "copy")


@pytest.mark.parametrize(("script", "n"), [(STAGE_REMAINING, 0), (STAGE_REMAINING, 3), (STAGE, 0), (REMOVE, 0)])
def test_a_server_that_gets_full_on_the_way_still_removes(
    staging: None, monkeypatch: pytest.MonkeyPatch, script: Script, n: int
) -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="full") as saver:
            made = grown(saver)
            client.config_set("maxmemory-policy", "noeviction")
            meddle(saver, monkeypatch, script, lambda _: client.config_set("maxmemory", 1), range(n, n + 1))
            for each in (STAGE_REMAINING, STAGE, REMOVE):
                client.script_load(each.source)
            saver.prune(["t"], keep_last=12)
            assert client.config_get("maxmemory")["maxmemory"] == "1"
            assert copies(client) == (2 if script is REMOVE else 0)
            client.config_set("maxmemory", 0)
            assert [version.checkpoint_id for version in saver.history("t")] == [*made[:-13:-1], made[3]]
            assert not [name for name in keys_of(client, "full") if name.startswith("u:")]
            audit(client, "full", "t", clean=True)
