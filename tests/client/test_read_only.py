"""`read_only`, `ttl="keep"` and `rights`: tools that look change nothing, and those that write leave expiries as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from shapes import SyncSurface, at, id_of, put

from langgraph_redis_state import CheckpointLostError, InvalidConfigError, RedisSaver, ServerRefusedError
from langgraph_redis_state.storage.keys import ThreadKeys

LOOKING = "+ping +get +exists +time +pttl +hget +hmget +hscan +zcard +zrange +zrangebylex +zrevrangebylex +zscan +zscore +scan"
LOOKING_COMMANDS = f"+evalsha +eval {LOOKING}"


@contextlib.contextmanager
def user(raw: redis.Redis, prefix: str, *rules: str) -> Iterator[str]:
    raw.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">pw", *rules)
    try:
        yield f"unix://{prefix}:pw@{raw.connection_pool.connection_kwargs['path']}"
    finally:
        raw.execute_command("ACL", "DELUSER", prefix)


def contents(raw: redis.Redis, prefix: str) -> dict[bytes, tuple[Any, int]]:
    """Every key of a prefix with its content, and the minutes until it expires."""
    read = {b"hash": raw.hgetall, b"zset": lambda name: raw.zrange(name, 0, -1, withscores=True), b"string": raw.get}
    names = sorted(raw.scan_iter(f"{prefix}:*", count=1000))
    return {name: (read[raw.type(name)](name), raw.pttl(name) // 60_000) for name in names}


async def built(url: str, prefix: str) -> Any:
    with RedisSaver(url, prefix=prefix, ttl=86_400, index_metadata=("user",)) as whole:
        first = await put(SyncSurface(whole), at("t"), {"x": 1, "big": "y" * 3000}, user="ada")
        second = await put(SyncSurface(whole), first, {"x": 0, "big": "y" * 3500}, user="ada")
        config = await put(SyncSurface(whole), second, {"x": 2, "big": "y" * 4000}, user="ada")
        whole.put_writes(config, [("x", 3)], "task")
        whole.tag("t", "there", id_of(first))
    return config


LOOKS: dict[str, Callable[[RedisSaver], Any]] = {
    "get_tuple": lambda saver: saver.get_tuple(at("t")),
    "list": lambda saver: list(saver.list(at("t"))),
    "filtered list": lambda saver: list(saver.list(at("t"), filter={"user": "ada"})),
    "history": lambda saver: list(saver.history("t", checkpoint_ns=None)),
    "heads": lambda saver: list(saver.heads(["t"])),
    "writes": lambda saver: saver.writes("t", -1) or saver.writes("t"),
    "diff": lambda saver: saver.diff("t", "there", -1) or saver.diff("t", "there", saver.get_tuple(at("t")).checkpoint["id"]),
    "tags": lambda saver: saver.tags("t"),
    "stats": lambda saver: saver.stats("t"),
    "threads": lambda saver: list(saver.list_threads()),
    "find": lambda saver: list(saver.find_threads(user="ada")),
    "verify": lambda saver: [*saver.verify("t"), "done"],
    "verify all": lambda saver: [*saver.verify(), "done"],
}

WRITES: dict[str, Callable[[RedisSaver], Any]] = {
    "put_writes": lambda saver: saver.put_writes(saver.get_tuple(at("t")).config, [("x", 9)], "another"),
    "delete_thread": lambda saver: saver.delete_thread("t"),
    "prune": lambda saver: saver.prune(["t"], keep_last=1),
    "delete_for_runs": lambda saver: saver.delete_for_runs(["run"]) or saver.delete_thread("t"),
    "copy_thread": lambda saver: saver.copy_thread("t", "copy"),
    "rekey": lambda saver: saver.rekey(["t"]),
    "rollback": lambda saver: saver.rollback("t", -1),
    "truncate": lambda saver: saver.rollback("t", -1, mode="truncate"),
    "tag": lambda saver: saver.tag("t", "new"),
    "untag": lambda saver: saver.untag("t", "there"),
    "set_ttl": lambda saver: saver.set_ttl("t", 60),
    "persist": lambda saver: saver.persist("t"),
    "apply_ttl": lambda saver: saver.apply_ttl(["t"]),
    "repair": lambda saver: list(saver.repair("t")),
}


async def test_a_user_without_any_command_that_writes_can_look_at_everything(url: str, prefix: str, raw: redis.Redis) -> None:
    await built(url, prefix)
    for key in ThreadKeys(prefix, b"t").all[:2]:
        raw.pexpire(key, 3_600_000)  # a read of any other saver with this TTL would move it
    before = contents(raw, prefix)
    with user(raw, prefix, f"~{prefix}:*", *LOOKING_COMMANDS.split()) as limited:
        with RedisSaver(limited, prefix=prefix, ttl=86_400, read_only=True, index_metadata=("user",)) as saver:
            for name, look in LOOKS.items():
                assert look(saver), name
        async with RedisSaver(limited, prefix=prefix, ttl=86_400, read_only=True) as saver:
            assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"]["x"] == 2
    assert contents(raw, prefix) == before


async def test_a_user_with_the_right_to_read_keys_only_can_look(url: str, prefix: str, raw: redis.Redis) -> None:
    if int(raw.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("rights to read keys are of Redis 7.0; integration_tests/test_looking.py has this on such servers")
    await built(url, prefix)
    with user(raw, prefix, f"%R~{prefix}:*", "+evalsha_ro", "+eval_ro", *LOOKING.split()) as limited:
        with RedisSaver(limited, prefix=prefix, read_only=True, index_metadata=("user",)) as saver:
            for name, look in LOOKS.items():
                assert look(saver), name
        with RedisSaver(limited, prefix=prefix) as saver, pytest.raises(ServerRefusedError):
            saver.get_tuple(at("t"))


@pytest.mark.parametrize("verb", WRITES)
async def test_a_verb_that_writes_is_refused_before_anything_is_sent(
    url: str, prefix: str, raw: redis.Redis, verb: str
) -> None:
    await built(url, prefix)
    before = contents(raw, prefix)
    with RedisSaver(url, prefix=prefix, read_only=True) as saver, pytest.raises(InvalidConfigError, match="read_only"):
        WRITES[verb](saver)
    assert contents(raw, prefix) == before


async def test_a_lost_index_is_told_and_not_rebuilt(url: str, prefix: str, raw: redis.Redis) -> None:
    await built(url, prefix)
    raw.delete(ThreadKeys(prefix, b"t").all[1])
    before = contents(raw, prefix)
    with RedisSaver(url, prefix=prefix, read_only=True) as saver:
        for look in (lambda: saver.get_tuple(at("t")), lambda: list(saver.list(at("t"))), lambda: list(saver.history("t"))):
            with pytest.raises(CheckpointLostError, match="repair rebuilds it"):
                look()
    assert contents(raw, prefix) == before


async def test_an_expired_thread_is_left_out_and_not_forgotten(url: str, prefix: str, raw: redis.Redis) -> None:
    await built(url, prefix)
    raw.delete(*ThreadKeys(prefix, b"t").all[:2])
    before = contents(raw, prefix)
    with RedisSaver(url, prefix=prefix, read_only=True) as saver:
        assert list(saver.list_threads()) == []
    assert contents(raw, prefix) == before


KEEPS: dict[str, Callable[[RedisSaver], Any]] = {
    "tag": lambda saver: saver.tag("t", "new"),
    "untag": lambda saver: saver.untag("t", "there"),
    "rollback": lambda saver: saver.rollback("t", -1),
    "truncate": lambda saver: saver.rollback("t", -1, mode="truncate"),
    "put_writes": lambda saver: saver.put_writes(saver.get_tuple(at("t")).config, [("x", 9)], "another"),
    "prune": lambda saver: saver.prune(["t"], keep_last=1),
    "get_tuple": lambda saver: saver.get_tuple(at("t")),
}


@pytest.mark.parametrize("verb", KEEPS)
@pytest.mark.parametrize("left", [3_600_000, None])
async def test_a_saver_that_keeps_expiries_leaves_that_of_a_thread_as_it_is(
    url: str, prefix: str, raw: redis.Redis, verb: str, left: int | None
) -> None:
    await built(url, prefix)
    keys = ThreadKeys(prefix, b"t").all[:2]
    for key in keys:
        raw.persist(key) if left is None else raw.pexpire(key, left)
    with RedisSaver(url, prefix=prefix, ttl="keep") as saver:
        KEEPS[verb](saver)
    for key in keys:
        assert raw.pttl(key) == -1 if left is None else left - 60_000 < raw.pttl(key) <= left


async def test_a_copy_by_a_saver_that_keeps_expiries_stays(url: str, prefix: str, raw: redis.Redis) -> None:
    await built(url, prefix)
    with RedisSaver(url, prefix=prefix, ttl="keep") as saver:
        saver.copy_thread("t", "copy")
        assert raw.pttl(ThreadKeys(prefix, b"copy").hash) == -1
        with pytest.raises(ValueError, match="keep"):
            saver.apply_ttl()


async def test_rights_names_what_a_user_lacks_for_each_group_of_verbs(url: str, prefix: str, raw: redis.Redis) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        assert not any(saver.rights().values())
        assert saver.rights() == await saver.arights()
    with user(raw, prefix, f"~{prefix}:*", *LOOKING_COMMANDS.split()) as limited, RedisSaver(limited, prefix=prefix) as saver:
        lacking = saver.rights()
        assert lacking["look"] == lacking["verify"] == {}
        assert {"HSET", "ZADD", "UNLINK"} <= lacking["run graphs"].keys()
        assert "ZADD" in lacking["steer"]
        assert not list(raw.scan_iter(f"{prefix}:*", count=1000)), "nothing was written"
