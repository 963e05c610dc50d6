"""A user who lacks one command: a call is refused with its name before anything is written, or does not need it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis
from shapes import SyncSurface, at, id_of, put
from soak import in_turn, rare

from langgraph_redis_state import RedisSaver, RedisStatePersistence
from langgraph_redis_state.effects import all_commands
from langgraph_redis_state.errors import ServerRefusedError

COMMANDS = sorted(all_commands())


@contextlib.contextmanager
def user(raw: redis.Redis, prefix: str, *rules: str) -> Iterator[str]:
    """The URL of a user with these rules."""
    raw.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">pw", f"~{prefix}:*", "+@all", *rules)
    try:
        yield f"unix://{prefix}:pw@{raw.connection_pool.connection_kwargs['path']}"
    finally:
        raw.execute_command("ACL", "DELUSER", prefix)


def keyspace(raw: redis.Redis, prefix: str) -> dict[bytes, tuple[bytes, int]]:
    """Every key of a prefix with its content, and when it expires."""
    names = sorted(raw.scan_iter(match=f"{prefix}:*", count=1000))
    found: dict[bytes, tuple[bytes, int]] = {}
    for name in names:
        moment = raw.eval("local l = redis.call('PTTL', KEYS[1]) return l < 0 and l or 1", 1, name)
        found[name] = (raw.dump(name), moment)
    return found


async def built(saver: RedisSaver) -> list[Any]:
    """A thread with all that there can be in one."""
    configs: list[Any] = [at("t")]
    for n in range(4):
        configs.append(await put(saver, configs[-1], {"x": n, "big": "y" * 3000 * (n + 1)}, run_id=f"run-{n}"))
        saver.put_writes(configs[-1], [("x", n)], f"task-{n}")
    saver.tag("t", "there", id_of(configs[2]))
    return configs


VERBS: dict[str, Callable[[RedisSaver, list[Any]], Any]] = {
    "put_writes": lambda saver, configs: saver.put_writes(configs[-1], [("x", 9)], "another"),
    "delete_thread": lambda saver, configs: saver.delete_thread("t"),
    "delete_for_runs": lambda saver, configs: saver.delete_for_runs(["run-1"]),
    "prune": lambda saver, configs: saver.prune(["t"], keep_last=1),
    "prune delete": lambda saver, configs: saver.prune(["t"], strategy="delete"),
    "copy_thread": lambda saver, configs: saver.copy_thread("t", "copy"),
    "rollback": lambda saver, configs: saver.rollback("t", id_of(configs[2])),
    "truncate": lambda saver, configs: saver.rollback("t", id_of(configs[2]), mode="truncate"),
    "tag": lambda saver, configs: saver.tag("t", "new", id_of(configs[1])),
    "untag": lambda saver, configs: saver.untag("t", "there"),
    "set_ttl": lambda saver, configs: saver.set_ttl("t", 60),
    "persist": lambda saver, configs: saver.persist("t"),
    "repair": lambda saver, configs: list(saver.repair("t")),
}
OFTEN = ("put_writes", "prune", "copy_thread")


async def refusal(call: Callable[[], Awaitable[Any]]) -> str:
    """What a refused call said; "" if it was done."""
    try:
        await call()
    except ServerRefusedError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("verb", [verb if verb in OFTEN else rare(verb) for verb in VERBS])
async def test_a_right_that_is_missing_refuses_the_call_before_anything_is_written(
    url: str, prefix: str, raw: redis.Redis, verb: str
) -> None:
    refused = set()
    configs: list[Any] = []
    with RedisSaver(url, prefix=prefix, ttl=3600) as whole:
        for command in COMMANDS:
            if not configs:
                raw.delete(*raw.scan_iter(match=f"{prefix}:*", count=1000), "none")
                whole._engine.manifests = type(whole._engine.manifests)(1 << 20)
                configs = await built(whole)
            before = keyspace(raw, prefix)
            with user(raw, prefix, f"-{command.lower()}") as limited, RedisSaver(limited, prefix=prefix, ttl=3600) as saver:

                async def call(saver: RedisSaver = saver, configs: list[Any] = configs) -> None:
                    VERBS[verb](saver, configs)

                said = await refusal(call)
            if said:
                refused.add(command)
                # a command that reads, by itself: Redis 6.2 does not say which
                assert command in said or command.lower() in said or "can't run this command" in said
                assert keyspace(raw, prefix) == before
            else:
                configs = []
    small = verb in ("tag", "untag", "set_ttl", "persist")  # their scripts remove nothing
    whole_thread = verb in ("delete_thread", "prune delete")  # removed without a field being written
    unlinks = not small and verb != "rollback"
    needed = {"ZADD", *(("UNLINK",) if unlinks else ()), *(() if small else ("ZREM",)), *(() if whole_thread else ("HSET",))}
    assert refused >= needed, verb


@pytest.mark.parametrize(
    ("fresh", "kind", "options"), in_turn([True, False], ["sync", "async"], [{}, {"max_versions": 2}, {"ttl": 60}])
)
async def test_a_put_is_refused_before_anything_is_written(
    url: str, prefix: str, raw: redis.Redis, kind: str, options: dict[str, Any], fresh: bool
) -> None:
    refused = set()
    with RedisSaver(url, prefix=prefix) as whole:
        parent: Any = at("t") if fresh else (await built(whole))[-1]
        for command in COMMANDS:
            with user(raw, prefix, f"-{command.lower()}") as limited:
                async with RedisSaver(limited, prefix=prefix, **options) as saver:
                    before = keyspace(raw, prefix)
                    surface = saver if kind == "async" else SyncSurface(saver)

                    async def call(surface: Any = surface) -> None:
                        await put(surface, parent, {"x": "y" * 5000})

                    if said := await refusal(call):
                        refused.add(command)
                        assert command in said
                        assert "nothing was written" in said
                        assert keyspace(raw, prefix) == before
                    elif fresh:
                        raw.delete(*before, *keyspace(raw, prefix))
    assert refused >= {"HSET", "HDEL", "ZADD", "ZREM", "PERSIST", "PEXPIREAT", "UNLINK", "HMGET", "TIME"}
    assert "RENAME" not in refused, "what a script does not use is not asked for"


async def test_a_state_is_refused_before_anything_is_written(url: str, prefix: str, raw: redis.Redis) -> None:
    with RedisStatePersistence(url, prefix=prefix) as whole:
        whole.save_with_metadata({"x": 1}, "s")
        for command in ("ZADD", "PEXPIREAT", "PERSIST", "ZREM", "HDEL"):
            with user(raw, prefix, f"-{command.lower()}") as limited, RedisStatePersistence(limited, prefix=prefix) as states:
                before = keyspace(raw, prefix)

                async def save(states: RedisStatePersistence = states) -> None:
                    states.save_with_metadata({"x": 2}, "s")

                async def delete(states: RedisStatePersistence = states) -> None:
                    states.delete_state("s")

                assert command in await refusal(save)
                if command in ("ZADD", "PEXPIREAT", "PERSIST", "ZREM"):
                    assert command in await refusal(delete)
                assert keyspace(raw, prefix) == before


async def test_a_right_that_is_granted_later_is_found(url: str, prefix: str, raw: redis.Redis) -> None:
    with user(raw, prefix, "-zadd") as limited:
        async with RedisSaver(limited, prefix=prefix) as saver:
            with pytest.raises(ServerRefusedError, match=r"ZADD.*Grant \+zadd"):
                await put(saver, at("t"), {"x": 1})
            raw.execute_command("ACL", "SETUSER", prefix, "+zadd")
            await put(saver, at("t"), {"x": 1})
            assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 1}


async def test_rights_cost_one_round_trip_for_each_saver(url: str, prefix: str, raw: redis.Redis) -> None:
    with RedisSaver(url, prefix=prefix) as saver, raw.monitor() as monitor:
        config = await put(SyncSurface(saver), at("t"), {"x": 1})
        saver.put_writes(config, [("x", 2)], "task")
        saver.tag("t", "name", id_of(config))
        saver.delete_thread("t")
        raw.echo(prefix)
        sent = 0
        while prefix not in (told := monitor.next_command())["command"] or not told["command"].startswith("ECHO"):
            sent += told["client_type"] != "lua" and told["command"].startswith("EVALSHA")
    assert sent - 5 <= 5, "layout and rights, four verbs; each once more if the server did not know it"


async def test_a_read_that_refreshes_the_ttl_needs_no_right_to_write(saver: RedisSaver, prefix: str, raw: redis.Redis) -> None:
    """A read moves the expiry of both keys and of the bucket's index, or none of the keys'."""
    with RedisSaver(url_of(raw), prefix=prefix, ttl=600) as whole:
        await put(SyncSurface(whole), at("t"), {"x": 1})
        keys = whole._engine.address("t").keys
        for command in ("zadd", "pexpireat"):
            for key in keys.all[:2]:
                raw.pexpire(key, 300_000)
            with user(raw, prefix, f"-{command}") as limited, RedisSaver(limited, prefix=prefix, ttl=600) as other:
                assert other.get_tuple(at("t")).checkpoint["channel_values"] == {"x": 1}
            assert max(raw.pttl(key) for key in keys.all[:2]) <= 300_000


async def test_a_read_without_the_right_is_refused_and_not_damaged(saver: RedisSaver, prefix: str, raw: redis.Redis) -> None:
    await put(saver, at("t"), {"x": 1})
    for command in ("hmget", "zrevrangebylex", "time"):
        with user(raw, prefix, f"-{command}") as limited, RedisSaver(limited, prefix=prefix) as other:
            with pytest.raises(ServerRefusedError):
                other.get_tuple(at("t"))
            with pytest.raises(ServerRefusedError):
                await other.aget_tuple(at("t"))


def url_of(raw: redis.Redis) -> str:
    return f"unix://{raw.connection_pool.connection_kwargs['path']}"
