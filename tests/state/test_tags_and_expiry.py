"""`RedisStatePersistence`: tags, namespaces, TTL, statistics and logging."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from states import Make, loaded, thread

from langgraph_redis_state import EmbeddedServer, RedisStatePersistence
from langgraph_redis_state.storage.keys import BUCKETS, bucket_key

# --- tags, lists, namespaces, expiry ----------------------------------------------------------------------------------


def test_searching_by_tags(states: RedisStatePersistence) -> None:
    states.save_with_metadata({}, "one", tags=["a", "b", "b"])
    states.save_with_metadata({}, "two", tags=["b", "c:d", "é 1"])
    states.save_with_metadata({}, "three")

    def found(*tags: str, **options: Any) -> list[str]:
        return sorted(each.state_id for each in states.search_by_tags(tags, **options))

    assert found("b") == ["one", "two"]
    assert found("a", "c:d") == ["one", "two"]
    assert found("a", "b", match="all") == ["one"]
    assert found("a", "c:d", match="all") == []
    assert found("é 1") == ["two"]
    assert found("c") == found("tag:b") == found() == []
    assert [each.state_id for each in states.list_states(tags=["b"], prefix="o")] == ["one"]
    assert {each.state_id for each in states.list_states(prefix="t")} == {"three", "two"}
    states.save_with_metadata({}, "one")
    assert found("a") == []
    assert found("b") == ["two"]
    with pytest.raises(ValueError, match="match"):
        states.search_by_tags(["a"], match="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("tags", ["user", [""], [1], ["a\0b"]])
def test_tags_that_cannot_be_are_refused(states: RedisStatePersistence, tags: Any) -> None:
    with pytest.raises(ValueError, match="tag"):
        states.save_with_metadata({}, "s", tags=tags)
    assert not states.exists("s")


def test_a_tag_of_a_version_that_another_program_replaced_stays_searchable(make: Make) -> None:
    one, other = make(max_versions=2), make(max_versions=2)
    one.save_with_metadata({"n": 1}, "s", tags=["red"])
    one.save_with_metadata({"n": 2}, "s")
    other.save_with_metadata({"n": 2.5}, "s", version=2, tags=["red"])
    one.save_with_metadata({"n": 3}, "s")
    one.delete_version("s", 3)
    assert [each.version for each in one.search_by_tags(["red"])] == [2]


def test_the_tag_index_does_not_grow_with_saves(make: Make, raw: Any) -> None:
    states = make(max_versions=2)
    for n in range(20):
        states.save_with_metadata({"n": n}, "s", tags=["all", f"step-{n}"])
    held = [each for each in raw.zrange(thread(states, "s").all[5], 0, -1) if each.startswith(b"V")]
    assert sorted(each.split(b"\0")[0] for each in held) == [b"Vtag:all", b"Vtag:step-18", b"Vtag:step-19"]
    states.delete_state("s")
    assert all(not raw.exists(bucket_key(states._engine.settings.prefix, bucket, "m")) for bucket in range(BUCKETS))


@pytest.mark.parametrize("state_id", ["a:b", "*", "{x}", " lead", "é😀", "x" * 1000, "A", "a"])
def test_odd_ids_keep_apart(states: RedisStatePersistence, state_id: str) -> None:
    states.save_with_metadata({"id": state_id}, state_id, tags=["t"])
    states.save_with_metadata({"id": "other"}, state_id + "x")
    assert loaded(states, state_id) == {"id": state_id}
    assert [each.state_id for each in states.search_by_tags(["t"])] == [state_id]


@pytest.mark.parametrize("state_id", ["a\0b", None, 1.5])
def test_ids_that_cannot_be_are_refused(states: RedisStatePersistence, state_id: Any) -> None:
    with pytest.raises(ValueError, match=r"thread_id|NUL"):
        states.save_with_metadata({}, state_id)


def test_namespaces_never_see_each_other(make: Make, namespace: str) -> None:
    one, other = make(), make(namespace=f"{namespace}:2")
    one.save_with_metadata({"n": 1}, "s", tags=["t"])
    other.save_with_metadata({"n": 2}, "s", tags=["t"])
    other.save_with_metadata({"n": 2}, "only")
    assert [each.state_id for each in one.list_states()] == ["s"]
    assert len(one.search_by_tags(["t"])) == 1
    assert one.get_stats()["states"] == 1
    other.delete_state("s")
    assert loaded(one, "s") == {"n": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": ""},
        {"namespace": "a{b}"},
        {"max_versions": 0},
        {"default_ttl": 0},
        {"default_ttl": -1},
        {"compression_type": "gzip"},
        {"redis_options": {"socket_timeoutt": 5}},
    ],
)
def test_options_that_cannot_be_are_refused_at_construction(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"namespace|prefix|max_versions|ttl|compression|socket_timeoutt"):
        RedisStatePersistence(url, **options).ping()


@pytest.mark.parametrize(
    "option", [{"max_age": 5}, {"ttl": 5}, {"conflict": "raise"}, {"index_metadata": ["a"]}, {"no_option": 1}]
)
def test_options_of_the_saver_that_mean_nothing_for_states_are_refused(url: str, option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(option))):
        RedisStatePersistence(url, **option)


def test_a_state_has_the_ttl_it_was_given_or_the_default(make: Make) -> None:
    plain, default = make(), make(default_ttl=timedelta(minutes=1))

    def left(store: RedisStatePersistence, state_id: str) -> float:
        return round(store.list_versions(state_id)[-1].ttl_seconds or -1)

    plain.save_with_metadata({}, "none")
    assert left(plain, "none") == -1
    default.save_with_metadata({}, "default")
    assert left(plain, "default") == 60
    default.save_with_metadata({}, "own", ttl_seconds=500)
    assert left(plain, "own") == 500
    default.save_with_metadata({}, "own")
    assert left(plain, "own") == 500
    default.save_with_metadata({}, "own", ttl_seconds=timedelta(seconds=70))
    assert left(plain, "own") == 70
    assert default.touch("own", 800)
    assert left(plain, "own") == 800
    assert default.touch("own")
    assert left(plain, "own") == 60
    assert plain.touch("own")
    assert left(plain, "own") == -1
    for wrong in (0, -1, "5", True):
        with pytest.raises(ValueError, match="ttl_seconds"):
            default.save_with_metadata({}, "other", ttl_seconds=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="ttl_seconds"):
            default.touch("own", wrong)  # type: ignore[arg-type]
    assert not plain.exists("other")


def test_an_expired_state_is_gone_from_everywhere(make: Make, raw: Any) -> None:
    states = make()
    states.save_with_metadata({}, "s", tags=["t"], ttl_seconds=0.05)
    while raw.exists(thread(states, "s").hash):
        pass
    assert states.load_with_metadata("s") is None
    assert states.list_states() == states.search_by_tags(["t"]) == states.list_versions("s") == []
    assert states.get_stats()["states"] == 0
    assert states.save_with_metadata({}, "s").version == 1


# --- statistics and logging -------------------------------------------------------------------------------------------


def test_statistics(make: Make) -> None:
    states, other = make(), make()
    for n in range(3):
        states.save_with_metadata({"n": n, "text": "word " * 1000}, f"s{n % 2}")
    states.load_with_metadata("s0")
    states.load_with_metadata("s0", 1)
    states.load_with_metadata("missing")
    other.load_with_metadata("missing")
    stats = states.get_stats()
    assert (stats["states"], stats["total_states"], stats["versions"]) == (2, 2, 3)
    assert 0 < stats["stored_bytes"] < stats["logical_bytes"]
    assert stats["compression_ratio"] == stats["logical_bytes"] / stats["stored_bytes"]
    assert (stats["hits"], stats["misses"]) == (2, 1)
    assert type(stats["redis_info"]["used_memory"]) is int
    assert re.fullmatch(r"[\d.]+[BKMG]", stats["redis_info"]["used_memory_human"])
    assert re.match(r"\d+\.\d+", stats["redis_info"]["redis_version"])


def test_statistics_where_info_is_not_allowed(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path / "own") as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all", "-info")
        url = server.url.replace("unix://", "unix://app:pass@")
        with RedisStatePersistence(url) as states:
            states.save_with_metadata({"n": 1}, "s")
            stats = states.get_stats()
            assert (stats["states"], stats["redis_info"]) == (1, {})


def test_each_operation_is_logged(states: RedisStatePersistence, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="langgraph_redis_state"):
        state = {f"k{n}": f"{n}" * 500 for n in range(5)}
        states.save_with_metadata(state, "s")
        states.save_with_metadata({**state, "k0": "new" * 200}, "s")
        states.load_with_metadata("s")
        states.load_with_metadata("t")
        states.list_states()
        states.search_by_tags(["a"])
        states.list_versions("s")
        states.exists("s")
        states.delete_version("s", 9)
        states.rollback("s", 1)
        states.touch("s", 5)
        states.touch("t")
        states.get_stats()
        states.delete_state("s")
    logged = [record.getMessage() for record in caplog.records if record.name == "langgraph_redis_state"]
    assert len(logged) == 14
    assert all(re.search(r"^[a-z_]+ \(.*\): [\d.]+ ms, \d+ round trips, \d+ bytes sent", line) for line in logged), logged
    assert logged[0].startswith("save (")
