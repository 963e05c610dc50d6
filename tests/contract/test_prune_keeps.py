"""`prune(keep_last=...)`, and removal on a full server."""

from __future__ import annotations

import os
from typing import Any

import pytest
import redis
from chats import assert_tidy, chain, put
from shapes import at, checkpoint, id_of, metadata, new_id
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ServerRefusedError
from langgraph_redis_state.operations import removal_plan
from langgraph_redis_state.scripts.commands import LIST, REMOVE
from langgraph_redis_state.storage.keys import ThreadKeys


def roots(saver: RedisSaver, thread: str = "t") -> list[str]:
    return [version.checkpoint_id for version in saver.history(thread)]


async def test_prune_keeps_the_last_of_a_thread(saver: RedisSaver, asaver: RedisSaver, raw: Any, prefix: str) -> None:
    made = chain(saver, 10)
    owned = [put(saver, {}, None, f"sub:{n}", parents={"": made[n]}) for n in (3, 7, 9)]
    plain_ns = [put(saver, {}, None, "memory", parents={"": made[n]}) for n in (2, 5)]
    saver.prune(["t", "no such thread"], keep_last=4)
    assert roots(saver) == made[:5:-1]
    spaces = {each.config["configurable"]["checkpoint_ns"]: id_of(each.config) for each in saver.list(at("t", None))}
    del spaces[""]
    assert spaces == {"sub:7": owned[1], "sub:9": owned[2], "memory": plain_ns[1]}
    assert_tidy(raw, prefix)
    await asaver.aprune(["t"], keep_last=1)
    assert roots(saver) == made[:8:-1]
    assert_tidy(raw, prefix)
    for bad in (0, -1, True):
        with pytest.raises(ValueError, match="keep_last"):
            saver.prune(["t"], keep_last=bad)
    with pytest.raises(ValueError, match="keep_last"):
        saver.prune(["t"], strategy="delete", keep_last=1)
    assert roots(saver) == made[:8:-1]


def test_what_overtook_the_first_checkpoint_of_its_root_is_not_pruned(saver: RedisSaver) -> None:
    first, second = (put(saver, ns="sub", parents={"": "on its way"}) for _ in range(2))
    saver.prune(["t"], keep_last=1)
    assert [id_of(found.config) for found in saver.list(at("t", "sub"))] == [second, first]


def test_a_branch_that_ended_is_pruned_by_its_age_in_ids(saver: RedisSaver) -> None:
    made = chain(saver, 3)
    side = put(saver, {"side": 1}, made[0])
    saver.prune(["t"], keep_last=2)
    assert roots(saver) == [side, made[2]]
    assert saver.get_tuple(at("t", "", side)).checkpoint["channel_values"] == {"side": 1}


@pytest.mark.parametrize("remade", [removal_plan.REMADE, -1000], ids=["what is less", "anew"])
def test_on_a_full_server_one_can_prune_truncate_and_delete(remade: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal_plan, "REMADE", remade)
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="full", redis_options={"retry_on_timeout": False}) as saver:
            words = [os.urandom(300).hex() for _ in range(200)]
            for thread in ("prune", "truncate", "delete", "clock"):
                parent = None
                for n in range(20):
                    made = checkpoint({"words": words[n * 10 :], "n": n})
                    saver.put(at(thread, "", parent), made, metadata(), made["channel_versions"])
                    saver.put_writes(at(thread, "", made["id"]), [("n", n)], "task")
                    parent = made["id"]
            oldest = roots(saver, "truncate")[-5]
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            with pytest.raises(ServerRefusedError, match=r"(?i)memory"):
                put(saver, {"x": 1})
            saver.prune(["prune"], keep_last=2)
            saver.rollback("truncate", oldest, mode="truncate")
            saver.delete_thread("delete")
            assert len(roots(saver, "prune")) == 2
            assert len(roots(saver, "truncate")) == 5
            assert saver.get_tuple(at("delete")) is None
            client.config_set("maxmemory", 0)
            assert_tidy(client, "full", "prune")
            assert_tidy(client, "full", "truncate")
            put(saver, {"x": 1})


@pytest.mark.parametrize("left", [1, 2, 15, 35, 39])
def test_little_or_much_may_stay_and_all_that_is_not_checkpoints_stays_too(
    saver: RedisSaver, raw: Any, prefix: str, left: int
) -> None:
    made: list[str] = []
    for n in range(40):
        each = checkpoint({"text": f"{n} " * 200, "n": n})
        saver.put(at("t", "", made[-1] if made else None), each, metadata(), each["channel_versions"])
        saver.put_writes(at("t", "", each["id"]), [("n", n), ("text", f"{n}" * 900)], "task")
        made.append(each["id"])
    saver.put_writes(at("t", "", new_id()), [("early", "x" * 2000)], "task")
    saver.tag("t", "oldest", made[0])
    chain(saver, 3, "inner:1")
    saver.set_ttl("t", 1000)
    keys = ThreadKeys(prefix, b"t")
    settings, before = raw.hget(keys.hash, "T"), raw.pttl(keys.hash)
    writes = {name for name in raw.hkeys(keys.hash) if name[:1] == b"W"}
    saver.prune(["t"], keep_last=left)
    assert [each.checkpoint_id for each in saver.history("t")] == [*made[-left:][::-1], made[0]][: left + 1]
    assert saver.tags("t") == {"oldest": made[0]}
    assert raw.hget(keys.hash, "T") == settings
    times = [raw.pttl(key) for key in keys.all[:2]]
    assert all(before - 60_000 < each <= before for each in times)
    assert raw.zscore(keys.all[3], keys.name) is not None
    assert len(writes) - 39 + left == len([name for name in raw.hkeys(keys.hash) if name[:1] == b"W"])
    assert_tidy(raw, prefix)


@pytest.mark.longer
def test_leaving_a_few_of_many_holds_the_server_no_longer_than_reading_a_page_of_them() -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="many") as saver:
            chain(saver, times(1500, 3000, 3000))
            saver.copy_thread("t", "warm")
            saver.prune(["warm"], keep_last=10)  # from here on scripts are called by name
            client.config_set("slowlog-max-len", 100_000)
            client.config_set("slowlog-log-slower-than", 0)
            saver.prune(["t"], keep_last=10)
            client.config_set("slowlog-log-slower-than", -1)
            assert len(roots(saver)) == 10
            assert_tidy(client, "many")
            longest: dict[bytes, int] = {}
            for entry in client.slowlog_get(100_000):
                command, _, rest = entry["command"].partition(b" ")
                if command.upper() == b"EVALSHA":
                    name = rest.split()[0]
                    longest[name] = max(longest.get(name, 0), entry["duration"])
            assert longest[REMOVE.sha] < 2 * longest[LIST.sha]
