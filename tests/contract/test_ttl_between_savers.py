"""Savers with different options on one thread: the one that writes last decides how long it lives."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.graph import START, MessagesState, StateGraph
from lifetimes import gone, left, put, wait
from shapes import at, checkpoint, metadata
from soak import times

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence
from langgraph_redis_state.history import threads
from langgraph_redis_state.storage.keys import ThreadKeys

NEAR = 20.0
"""Seconds within which a time is the expected one: the times of these tests are further apart."""


def test_a_thread_in_use_by_a_saver_without_ttl_does_not_end_in_mid_conversation(url: str, prefix: str, raw: Any) -> None:
    def graph(saver: RedisSaver) -> Any:
        built = StateGraph(MessagesState).add_node("a", lambda state: {"messages": [("ai", "yes")]}).add_edge(START, "a")
        return built.compile(checkpointer=saver)

    config = {"configurable": {"thread_id": "t"}}
    with RedisSaver(url, prefix=prefix, ttl=1.5) as short, RedisSaver(url, prefix=prefix) as endless:
        graph(short).invoke({"messages": [("user", "first")]}, config)
        graph(endless).invoke({"messages": [("user", "second")]}, config)
        graph(short).invoke({"messages": [("user", "other")]}, {"configurable": {"thread_id": "idle"}})
        wait(lambda: gone(raw, prefix, "idle"))
        assert left(raw, prefix) is None
        assert len(graph(endless).get_state(config).values["messages"]) == 4


def writes_of(saver: RedisSaver, first: str) -> dict[str, Callable[[], Any]]:
    return {
        "put": lambda: put(saver, "t", first),
        "put again": lambda: saver.put(at("t"), checkpoint({"x": 1}, id=first), metadata(), {"x": 1}),
        "put in a namespace": lambda: saver.put(at("t", "child"), checkpoint(), metadata(), {}),
        "put_writes": lambda: saver.put_writes(at("t", "", first), [("x", 1)], uuid.uuid4().hex),
        "put_writes again": lambda: saver.put_writes(at("t", "", first), [("x", 1)], "task"),
        "rollback": lambda: saver.rollback("t", first),
        "tag": lambda: saver.tag("t", uuid.uuid4().hex, first),
        "tag again": lambda: saver.tag("t", "name", first),
        "set_ttl": lambda: saver.set_ttl("t", None),
        "apply_ttl": lambda: saver.apply_ttl(["t"]),
    }


@pytest.mark.parametrize("verb", writes_of(None, ""))  # type: ignore[arg-type]
def test_every_write_goes_by_the_options_of_its_saver(url: str, prefix: str, raw: Any, verb: str) -> None:
    with (
        RedisSaver(url, prefix=prefix, ttl=1_000) as long,
        RedisSaver(url, prefix=prefix) as endless,
        RedisSaver(url, prefix=prefix, ttl=100, refresh_ttl_on_read=False) as short,
    ):
        first = put(long)
        long.put_writes(at("t", "", first), [("x", 1)], "task")
        long.tag("t", "name", first)
        for saver, seconds in ((endless, None), (short, 100), (endless, None), (long, 1_000), (short, 100), (endless, None)):
            writes_of(saver, first)[verb]()
            assert left(raw, prefix) == (None if seconds is None else pytest.approx(seconds, abs=NEAR))


async def test_the_async_verbs_do_the_same(url: str, prefix: str, raw: Any) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=1_000) as long, RedisSaver(url, prefix=prefix) as endless:
        first = put(long)
        made = checkpoint({"x": 2})
        verbs: list[Callable[[], Any]] = [
            lambda: endless.aput(at("t", "", first), made, metadata(), {"x": 1}),
            lambda: endless.aput_writes(at("t", "", first), [("x", 1)], "task"),
            lambda: endless.arollback("t", first),
            lambda: endless.atag("t", "name", first),
            lambda: endless.aset_ttl("t", None),
            lambda: endless.aapply_ttl(["t"]),
        ]
        for verb in verbs:
            assert await long.aapply_ttl(["t"]) == 1
            assert left(raw, prefix) == pytest.approx(1_000, abs=NEAR)
            await verb()
            assert left(raw, prefix) is None


def test_reads_and_removals_by_a_saver_without_ttl_leave_the_moment_as_it_is(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as long, RedisSaver(url, prefix=prefix) as endless:
        first = put(long)
        second = put(long, "t", first)
        long.tag("t", "name", first)
        calls: list[Callable[[], Any]] = [
            lambda: endless.get_tuple(at("t")),
            lambda: list(endless.list(at("t", None))),
            lambda: list(endless.history("t")),
            lambda: endless.tags("t"),
            lambda: endless.diff("t", first, second),
            lambda: endless.stats("t"),
            lambda: list(endless.verify("t")),
            lambda: list(endless.repair("t")),
            lambda: endless.untag("t", "name"),
            lambda: endless.prune(["t"], keep_last=1),
            lambda: endless.delete_for_runs(["none"]),
            lambda: endless.rollback("t", second, mode="truncate"),
        ]
        for call in calls:
            before = left(raw, prefix)
            call()
            after = left(raw, prefix)
            assert before is not None
            assert after is not None
            assert after <= before


def test_a_copy_lives_as_the_saver_that_makes_it_says(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as long, RedisSaver(url, prefix=prefix) as endless:
        put(long)
        endless.copy_thread("t", "copy")
        assert left(raw, prefix, "copy") is None
        long.copy_thread("copy", "back")
        assert left(raw, prefix, "back") == pytest.approx(1_000, abs=NEAR)


def test_states_and_agents_go_by_the_last_save_too(url: str, prefix: str, raw: Any) -> None:
    def states(seconds: float | None) -> RedisStatePersistence:
        return RedisStatePersistence(url, prefix=prefix, default_ttl=seconds)

    with states(1_000) as long, states(None) as endless, states(100) as short:
        for saver, seconds in ((long, 1_000), (endless, None), (short, 100), (endless, None)):
            saved = saver.save_with_metadata({"n": seconds}, "t")
            expected = None if seconds is None else pytest.approx(seconds, abs=NEAR)
            assert saved.ttl_seconds == expected
            assert left(raw, prefix) == expected
        short.save_with_metadata({"n": 1}, "t")
        endless.rollback("t", 1)
        assert left(raw, prefix) is None
        short.save_with_metadata({"n": 1}, "t", ttl_seconds=5_000)
        endless.save_with_metadata({"n": 2}, "t")  # what was said of the state takes precedence
        assert left(raw, prefix) == pytest.approx(5_000, abs=NEAR)
        endless.touch("t")
        assert left(raw, prefix) is None
    agents = prefix + ":agents"
    with (
        AgentCheckpointer(url, prefix=agents, ttl=1_000) as one,
        AgentCheckpointer(url, prefix=agents) as other,
    ):
        one.save_state("t", {"todos": []})
        assert left(raw, agents) == pytest.approx(1_000, abs=NEAR)
        other.save_state("t", {"todos": []})
        assert left(raw, agents) is None


def test_what_came_early_after_a_deletion_still_goes_with_the_tombstone(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, tombstone=100) as saver:
        put(saver)
        saver.delete_thread("t")
        root, inner = checkpoint(), checkpoint()
        parents = metadata(parents={"": root["id"]})
        for _ in range(2):  # a subgraph's checkpoint and its writes, before the root checkpoint they build on
            saver.put(at("t", "sub:1"), inner, parents, {})
            saver.put_writes(at("t", "sub:1", inner["id"]), [("x", 1)], uuid.uuid4().hex)
            assert left(raw, prefix) == pytest.approx(100, abs=NEAR)
        saver.put(at("t"), root, metadata(), {})
        assert left(raw, prefix) is None


def test_writes_on_the_id_of_an_expired_thread_do_not_take_over_what_it_was_found_under(
    url: str, prefix: str, raw: Any
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        put(saver, ttl=0.05)
        wait(lambda: gone(raw, prefix))
        made = checkpoint()
        saver.put_writes(at("t", "", made["id"]), [("x", 1)], "task")
        assert left(raw, prefix) is None  # and the bucket knows no moment of it
        saver.put(at("t"), made, metadata(), {})
        assert list(saver.find_threads(user="t@example.org")) == []
        assert list(saver.verify()) == []


# --- apply_ttl ---


async def test_apply_ttl_reaches_every_thread_without_settings_of_its_own(
    url: str, prefix: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "THREADS_PAGE", 20)
    old = [f"old {n}" for n in range(50)]
    async with RedisSaver(url, prefix=prefix) as endless, RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        for name in [*old, "own", "kept"]:
            put(endless, name)
        put(endless, "run", ttl=300)
        endless.set_ttl("own", 5_000)
        endless.persist("kept")
        told: list[int] = []
        assert saver.apply_ttl(progress=told.append) == 50
        assert told == sorted(told)
        assert told[-1] == 50
        assert {round(left(raw, prefix, name) or 0, -2) for name in old} == {1_000}
        assert left(raw, prefix, "own") == pytest.approx(5_000, abs=NEAR)
        assert left(raw, prefix, "kept") is None
        assert left(raw, prefix, "run") == pytest.approx(300, abs=NEAR)
        assert await saver.aapply_ttl() == 50  # again
        assert await endless.aapply_ttl([*old[:2], "gone", "own"], progress=told.append) == 2
        assert left(raw, prefix, old[0]) is None
        assert left(raw, prefix, old[2]) == pytest.approx(1_000, abs=NEAR)
        put(endless, "kept")
        assert left(raw, prefix, "kept") is None


def test_apply_ttl_leaves_damaged_threads_alone_and_says_so(url: str, prefix: str, raw: Any, caplog: Any) -> None:
    with RedisSaver(url, prefix=prefix) as endless, RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        for name in ("counts", "settings", "sound"):
            put(endless, name)
        endless.set_ttl("settings", 5_000)
        for name, field in (("counts", "S"), ("settings", "T")):
            key = ThreadKeys(prefix, name.encode()).hash
            raw.hset(key, field, "x")
        assert saver.apply_ttl() == 1
        assert left(raw, prefix, "sound") == pytest.approx(1_000, abs=NEAR)
        assert left(raw, prefix, "settings") == pytest.approx(5_000, abs=NEAR)
        assert [record.message for record in caplog.records if "apply_ttl" in record.message and "damaged" in record.message]
    with pytest.raises(TypeError, match="apply_ttl: thread_ids"):
        saver.apply_ttl("sound")


# --- any order of savers and calls, against a model ---

WHO = {"long": 1_000, "short": 100, "endless": None, "still": 400}
CALLS = ["put", "run", "writes", "fork", "tag", "apply", "read", "set", "unset", "persist", "untag", "prune"]
Told = tuple[str, float]


def expected(who: str, call: str, told: Told, before: float | None) -> tuple[Told, float | None]:
    """(what was said of the thread: nothing, its own TTL, that it stays, or the TTL of a run; seconds it has left)"""
    ttl = WHO[who]
    if call == "set":
        return ("own", 3_000), 3_000
    if call == "persist":
        return ("never", 0), None
    if call == "unset":
        return ("", 0), ttl
    if call in ("untag", "prune"):
        return told, before
    if call == "read":
        use = told[1] or ttl or 0
        due = before is not None and who != "still" and before < 0.9 * use
        return told, use if due else before
    if call == "apply":
        return told, before if told[0] else ttl
    if told[0] == "own":
        return told, told[1]
    if told[0] == "never":
        return told, None
    return (("run", 2_000), 2_000) if call == "run" else (("", 0), ttl)


def made_by(saver: RedisSaver, thread: str, first: str) -> dict[str, Callable[[], Any]]:
    return {
        "put": lambda: put(saver, thread, first),
        "run": lambda: put(saver, thread, first, ttl=2_000),
        "writes": lambda: saver.put_writes(at(thread, "", first), [("x", 1)], "task"),
        "fork": lambda: saver.rollback(thread, first),
        "tag": lambda: saver.tag(thread, "name", first),
        "apply": lambda: saver.apply_ttl([thread]),
        "read": lambda: saver.get_tuple(at(thread)),
        "set": lambda: saver.set_ttl(thread, 3_000),
        "unset": lambda: saver.set_ttl(thread, None),
        "persist": lambda: saver.persist(thread),
        "untag": lambda: saver.untag(thread, "name"),
        "prune": lambda: saver.prune([thread], keep_last=50),
    }


@settings(max_examples=times(10, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(st.sampled_from(sorted(WHO)), st.sampled_from(CALLS)), max_size=12))
def test_who_decides_in_any_order(url: str, prefix: str, raw: Any, calls: list[tuple[str, str]]) -> None:
    thread = uuid.uuid4().hex
    savers = {name: RedisSaver(url, prefix=prefix, ttl=ttl, refresh_ttl_on_read=name != "still") for name, ttl in WHO.items()}
    try:
        first = put(savers["endless"], thread)
        told: Told = ("", 0)
        now: float | None = None
        for who, call in calls:
            made_by(savers[who], thread, first)[call]()
            told, now = expected(who, call, told, now)
            assert left(raw, prefix, thread) == (None if now is None else pytest.approx(now, abs=NEAR)), (who, call)
    finally:
        for saver in savers.values():
            saver.close()
