"""`RedisStatePersistence`: versions, tags, expiry and statistics of states; the faults of the saver; what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from shapes import assert_same, state_calls
from soak import times
from test_storage import audit, monitored

from benchmarks.states import SIZES, shares
from langgraph_redis_state import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    CompressionType,
    EmbeddedServer,
    RedisSaver,
    RedisStatePersistence,
    SaverClosedError,
    SerializationError,
    ServerUnavailableError,
    StateMetadata,
)
from langgraph_redis_state.effects import Script
from langgraph_redis_state.scripts.commands import PUT, REMOVE
from langgraph_redis_state.storage.keys import BUCKETS, ThreadKeys, bucket_key

Make = Callable[..., RedisStatePersistence]
TWINS = [
    "save_with_metadata",
    "load_with_metadata",
    "list_states",
    "search_by_tags",
    "list_versions",
    "exists",
    "delete_version",
    "delete_state",
    "rollback",
    "touch",
    "get_stats",
    "ping",
]


@pytest.fixture
def namespace() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(url: str, namespace: str) -> Iterator[Make]:
    """Makes stores on the test's own namespace."""
    made: list[RedisStatePersistence] = []

    def build(**options: Any) -> RedisStatePersistence:
        made.append(RedisStatePersistence(url, **{"namespace": namespace, **options}))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def states(make: Make) -> RedisStatePersistence:
    return make()


class Surface:
    """The sync or the async methods under one name: a test that awaits them covers both."""

    def __init__(self, store: RedisStatePersistence, is_async: bool) -> None:
        self.store, self.is_async = store, is_async

    def __getattr__(self, name: str) -> Any:
        if self.is_async:
            return getattr(self.store, f"a{name}")

        async def call(*args: Any, **options: Any) -> Any:
            return getattr(self.store, name)(*args, **options)

        return call


@pytest.fixture(params=["sync", "async"])
async def either(request: pytest.FixtureRequest, url: str, namespace: str) -> Any:
    async with RedisStatePersistence(url, namespace=namespace) as store:
        yield Surface(store, request.param == "async")


def numbers(store: RedisStatePersistence, state_id: str) -> list[int | str]:
    return [each.version for each in store.list_versions(state_id)]


def loaded(store: RedisStatePersistence, state_id: str, version: Any = None) -> Any:
    found = store.load_with_metadata(state_id, version)
    assert found is not None
    return found[0]


def thread(store: RedisStatePersistence, state_id: str) -> ThreadKeys:
    return ThreadKeys(store._engine.settings.prefix, state_id.encode())


def test_every_method_has_an_async_twin_of_the_same_arguments() -> None:
    public = {name for name in dir(RedisStatePersistence) if not name.startswith("_")}
    assert public == {*TWINS, "close"} | {f"a{name}" for name in [*TWINS, "close"]}
    for name in TWINS:
        one, other = (inspect.signature(getattr(RedisStatePersistence, each)) for each in (name, f"a{name}"))
        assert one == other


# --- what the original describes, with its names of arguments


@pytest.mark.parametrize("compression_type", list(CompressionType))
def test_save_and_load_with_metadata(url: str, namespace: str, compression_type: CompressionType) -> None:
    with RedisStatePersistence(
        redis_url=url,
        compression_type=compression_type,
        enable_versioning=True,
        max_versions=10,
        default_ttl=3600,
        namespace=namespace,
    ) as persistence:
        before = datetime.now(timezone.utc) - timedelta(seconds=1)
        saved = persistence.save_with_metadata(
            state={"user_id": "123", "data": "important_data"},
            state_id="user_session_123",
            version=1,
            tags=["user", "session"],
            ttl_seconds=7200,
        )
        result = persistence.load_with_metadata("user_session_123")
        assert result
        state, metadata = result
        assert state == {"user_id": "123", "data": "important_data"}
        assert isinstance(metadata, StateMetadata)
        assert metadata.state_id == "user_session_123"
        assert metadata.version == 1
        assert before < metadata.created_at == metadata.updated_at
        assert metadata.tags == ["user", "session"]
        assert 0 < metadata.size_bytes < 60
        assert metadata.stored_bytes > 0
        assert metadata.compression_type is compression_type
        assert re.fullmatch("[0-9a-f]{32}", metadata.checksum)
        assert metadata.ttl_seconds is not None
        assert 7190 < metadata.ttl_seconds <= 7200
        assert dataclasses.replace(saved, ttl_seconds=None) == dataclasses.replace(metadata, ttl_seconds=None)


def test_redis_options_of_the_original(url: str, namespace: str) -> None:
    for decode_responses in (False, True):
        with RedisStatePersistence(
            redis_url=url,
            compression_type=CompressionType.LZ4,
            enable_versioning=True,
            max_versions=20,
            default_ttl=7200,
            redis_options={
                "socket_timeout": 5,
                "socket_connect_timeout": 5,
                "retry_on_timeout": True,
                "decode_responses": decode_responses,
                "max_connections": 20,
                "socket_keepalive": True,
                "socket_keepalive_options": {},
            },
            namespace=namespace,
        ) as persistence:
            persistence.save_with_metadata(state={"blob": b"\xff\x00", "text": "é"}, state_id="my_state")
            assert loaded(persistence, "my_state") == {"blob": b"\xff\x00", "text": "é"}


def test_versioning_of_the_original(states: RedisStatePersistence) -> None:
    states.save_with_metadata(state={"data": "v1"}, state_id="my_state", version=1)
    states.save_with_metadata(state={"data": "v2"}, state_id="my_state", version=2)
    versions = states.list_versions("my_state")
    assert [version.version for version in versions] == [1, 2]
    result = states.load_with_metadata("my_state", version=1)
    assert result is not None
    assert result[0] == {"data": "v1"}


def test_the_memory_clean_up_loop(make: Make) -> None:
    """The original compares used_memory_human with "100MB", which is text; bytes can be compared."""
    states = make(max_versions=None)
    for n in range(8):
        states.save_with_metadata({"n": n}, "my_state")
    stats = states.get_stats()
    assert isinstance(stats["redis_info"]["used_memory_human"], str)
    if stats["redis_info"]["used_memory"] > 100 * 1024:
        for state in states.list_states():
            for version in states.list_versions(state)[:-5]:
                assert states.delete_version(state, version)
    assert numbers(states, "my_state") == [4, 5, 6, 7, 8]


async def test_all_methods_sync_and_async(either: Any) -> None:
    assert await either.ping()
    assert await either.load_with_metadata("s") is None
    assert await either.list_versions("s") == []
    assert not await either.exists("s")
    assert not await either.delete_version("s", 1)
    assert not await either.delete_state("s")
    assert not await either.touch("s", 5)
    first = await either.save_with_metadata({"n": 1}, "s", tags=["a"])
    second = await either.save_with_metadata({"n": 2}, "s", tags=["a", "b"])
    assert (first.version, second.version) == (1, 2)
    assert [each.version for each in await either.list_versions("s")] == [1, 2]
    assert [each.state_id for each in await either.list_states()] == ["s"]
    assert [each.version for each in await either.search_by_tags(["b"])] == [2]
    assert await either.exists("s", 1)
    assert await either.touch("s", 50)
    assert (await either.rollback("s", 1)).version == 3
    found = await either.load_with_metadata("s")
    assert found[0] == {"n": 1}
    assert found[1].tags == ["a"]
    assert 40 < found[1].ttl_seconds <= 50
    assert await either.delete_version("s", 1)
    assert (await either.get_stats())["versions"] == 2
    assert await either.delete_state("s")
    assert await either.list_states() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_counts_loads(states: RedisStatePersistence) -> None:
    states.save_with_metadata({"n": 1}, "s")
    with states._states.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # ends a child that waits for the lock
            os._exit(0 if states.load_with_metadata("s")[0] == {"n": 1} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- content


class Cart(BaseModel):
    items: list[str]
    when: datetime


STATES = {
    "dict": {"a": 1, "b": [1, 2.5, None, True, "é", b"\0"], "c": {"d": (1, 2)}},
    "order of keys": {"z": 1, "a": 2, "m": 3},
    "empty dict": {},
    "empty key": {"": 1, "\0": 2},
    "keys that are no text": {1: "a", (2, 3): "b"},
    "mixed keys": {"a": 1, 2: 3},
    "list": [1, {"a": {1, 2}}],
    "none": None,
    "bytes": b"\0\1",
    "text": "x" * 3000,
    "model": Cart(items=["a"], when=datetime(2025, 5, 5, tzinfo=timezone.utc)),
    "messages": [HumanMessage("hi", id="1"), AIMessage("there", id="2")],
    "dict of models": {"cart": Cart(items=[], when=datetime(2025, 1, 1)), "seen": {"x", "y"}, "day": date(2025, 1, 2)},
    "many keys": {f"k{n}": n for n in range(500)},
    "many keys of one": {f"k{n}": "v" * 200 for n in range(128)},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_whatever_the_serializer_takes_comes_back_with_its_type(make: Make, state: Any) -> None:
    serde = JsonPlusSerializer(allowed_msgpack_modules=[(__name__, "Cart")])
    states = make(serde=serde)
    states.save_with_metadata(state, "s")
    assert_same(serde.loads_typed(serde.dumps_typed(state)), loaded(make(serde=serde), "s"))


def test_a_model_comes_back_from_versions_and_rollbacks(make: Make) -> None:
    states = make(serde=JsonPlusSerializer(allowed_msgpack_modules=[(__name__, "Cart")]))
    cart = Cart(items=["a"], when=datetime(2025, 5, 5))
    states.save_with_metadata(cart, "s")
    states.save_with_metadata({"other": 1}, "s")
    states.rollback("s", 1)
    assert loaded(states, "s") == cart
    assert loaded(states, "s", 2) == {"other": 1}


def test_what_the_serializer_refuses_is_named(states: RedisStatePersistence) -> None:
    states.save_with_metadata({"n": 1}, "s")
    with pytest.raises(SerializationError, match=r"'s', key 'socket'"):
        states.save_with_metadata({"n": 1, "socket": threading.Lock()}, "s")
    with pytest.raises(SerializationError, match="'s'"):
        states.save_with_metadata([threading.Lock()], "s")
    assert numbers(states, "s") == [1]


async def test_a_state_may_change_while_it_is_saved(url: str, namespace: str) -> None:
    async with RedisStatePersistence(url, namespace=namespace) as states:
        state: dict[str, Any] = {"a": [1], "b": {"c": 1}}
        saving = asyncio.create_task(states.asave_with_metadata(state, "s"))
        await asyncio.sleep(0)
        state["a"].append(2)
        state["b"]["c"] = 2
        await saving
        found = await states.aload_with_metadata("s")
        assert found is not None
        assert found[0] == {"a": [1], "b": {"c": 1}}


def test_equal_content_has_an_equal_checksum(states: RedisStatePersistence) -> None:
    def checksum(state: Any) -> str:
        return states.save_with_metadata(state, "s").checksum

    one = {"a": {"x": 1, "y": [{"p": 1, "q": {"s", "t", "u"}}]}, "b": 2.0}
    same = {"b": 2.0, "a": {"y": [{"q": {"u", "t", "s"}, "p": 1}], "x": 1}}
    assert checksum(one) == checksum(same)
    assert checksum([one]) == checksum([same])
    others = [
        {"a": 1},
        {"a": 2},
        {"b": 1},
        [1],
        [1.0],
        [True],
        "1",
        b"1",
        None,
        {},
        {"a": "1"},
        {"a": b"1"},
        {"a": "b", "c": ""},
    ]
    assert len({checksum(other) for other in others}) == len(others)


SETS = """
import sys
from langgraph_redis_state import RedisStatePersistence
with RedisStatePersistence(sys.argv[1], namespace=sys.argv[2]) as states:
    print(states.save_with_metadata({"s": {"alpha", "beta", "gamma", "delta"}, "n": [1]}, "s").checksum)
"""


def test_a_checksum_is_that_of_another_process(url: str, namespace: str) -> None:
    sums = {
        subprocess.run(
            [sys.executable, "-c", SETS, url, namespace],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(sums) == 1


@settings(deadline=None, max_examples=times(8, 40))
@given(
    saved=st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.none() | st.integers(-9, 9) | st.binary(max_size=300) | st.lists(st.text("ab", max_size=200), max_size=4),
            max_size=6,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_versions_come_back(server: EmbeddedServer, saved: list[dict[str, Any]]) -> None:
    with RedisStatePersistence(server.url, namespace=f"h-{uuid.uuid4().hex[:8]}") as states:
        for state in saved:
            states.save_with_metadata(state, "s")
        for number, state in enumerate(saved, 1):
            assert_same(state, loaded(states, "s", number))


# --- versions


def test_versions_count_on_from_the_highest_number(states: RedisStatePersistence) -> None:
    def save(version: Any = None) -> int | str:
        return states.save_with_metadata({"v": version}, "s", version=version).version

    assert [save(), save(), save(7), save(), save("draft"), save(), save(3), save()] == [1, 2, 7, 8, "draft", 9, 3, 10]
    assert numbers(states, "s") == [1, 2, 7, 8, "draft", 9, 3, 10]
    assert loaded(states, "s", "draft") == {"v": "draft"}
    assert loaded(states, "s", "7") == loaded(states, "s", 7) == {"v": 7}


def test_a_number_is_not_given_again_after_its_version_was_deleted(make: Make) -> None:
    states, other = make(), make()
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s")
    assert other.delete_version("s", 3)
    assert states.save_with_metadata({"n": 4}, "s").version == 4
    assert states.delete_version("s", 4)
    assert other.save_with_metadata({"n": 5}, "s").version == 5
    states.rollback("s", 1, truncate=True)
    assert other.save_with_metadata({"n": 6}, "s").version == 6
    assert states.rollback("s", 1).version == 7
    assert numbers(states, "s") == [1, 6, 7]
    assert states.save_with_metadata({"n": 5}, "s", version=5).version == 5, "but to who gives it"
    assert numbers(states, "s") == [1, 6, 7, 5]
    assert states.save_with_metadata({}, "s").version == 8


@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_changes_by_several_programs(make: Make, raw: Any, namespace: str, seed: int) -> None:
    """What is shown is what a list in memory would show, nothing is left on the server that nobody refers to, and no number
    that was counted comes twice."""
    chosen = random.Random(seed)
    keep = chosen.choice([1, 2, 4, None])
    stores = [make(max_versions=keep) for _ in range(2)]
    expected: list[tuple[int | str, Any]] = []
    counted: set[int] = set()
    fields = {f"k{n}": f"{chosen.getrandbits(1600):x}" for n in range(chosen.choice([3, 60]))}
    for _ in range(60):
        states = chosen.choice([*stores, make(max_versions=keep)])
        what = chosen.choice(["save"] * 8 + ["named", "named", "replace", "delete", "newest", "rollback", "truncate", "all"])
        at = chosen.randrange(len(expected)) if expected else None
        if what == "save" or what == "named" or (what == "replace" and at is not None):
            fields[chosen.choice(list(fields))] = f"{chosen.getrandbits(1600):x}"
            label = {"save": None, "named": f"name-{chosen.random()}", "replace": at is not None and expected[at][0]}[what]
            saved = states.save_with_metadata(fields, "s", version=label).version
            if what == "replace" and at is not None:
                expected[at] = saved, dict(fields)
            else:
                expected.append((saved, dict(fields)))
        elif what in ("delete", "newest") and at is not None:
            label = expected.pop(at if what == "delete" else -1)[0]
            assert states.delete_version("s", label)
        elif what == "rollback" and at is not None:
            expected.append((states.rollback("s", expected[at][0]).version, expected[at][1]))
        elif what == "truncate" and at is not None:
            states.rollback("s", expected[at][0], truncate=True)
            del expected[at + 1 :]
        elif what == "all" and not chosen.randrange(4):
            assert states.delete_state("s") == bool(expected)
            expected.clear()
        if what in ("save", "rollback") and expected and at is not None:
            assert expected[-1][0] not in counted
        counted |= {label for label, _ in expected if isinstance(label, int)}
        if not expected:
            counted.clear()
        del expected[: -keep if keep else 0]
        reader = chosen.choice(stores)
        assert numbers(reader, "s") == [label for label, _ in expected]
        for label, content in expected[-2:]:
            assert loaded(reader, "s", label) == content
        audit(raw, states._engine.settings.prefix, "s", clean=True)


@pytest.mark.parametrize("keys", [5, 80])
def test_a_save_is_one_round_trip_and_one_more_where_it_pushes_a_version_out(make: Make, url: str, keys: int) -> None:
    states = make(max_versions=3)
    for n in range(4):  # the server learns the scripts
        states.save_with_metadata({"n": n}, "warm")
    for n in range(8):
        with monitored(url) as sent:
            states.save_with_metadata({f"k{k}": f"{k} {n} " * 50 for k in range(keys)}, "s", tags=[f"t{n}"])
        if n:
            assert sent == ["EVALSHA"] * (1 if n < 3 else 2)
    make(max_versions=3).save_with_metadata({"other": 1}, "s")
    with monitored(url) as sent:
        states.save_with_metadata({"n": 1}, "s")
    assert len([name for name in sent if name != "PING"]) <= 5, "refused, looked again, saved, removed what the other left"


def test_a_save_by_who_does_not_know_the_newest_version_looks_first(make: Make, url: str) -> None:
    one, other = make(), make()
    for states in (one, other):  # the server learns the scripts
        states.save_with_metadata({"n": 0}, "warm", ttl_seconds=100)
    one.save_with_metadata({"n": 1}, "s")
    for states, more, round_trips in (
        (other, {}, 2),  # looked, saved
        (one, {}, 3),  # refused, looked, saved
        (one, {}, 1),
        (one, {"ttl_seconds": 100}, 2),
    ):
        with monitored(url) as sent:
            states.save_with_metadata({"n": 2}, "s", **more)
        assert sent == ["EVALSHA"] * round_trips


async def test_a_save_is_one_round_trip_async(url: str, namespace: str) -> None:
    async with RedisStatePersistence(url, namespace=namespace) as states:
        for n in range(3):
            with monitored(url) as sent:
                await states.asave_with_metadata({"n": n}, "s")
        assert sent == ["EVALSHA"]


@pytest.mark.parametrize("version", [True, "", 1.5, b"1", [1], 2**63, -(2**70)])
def test_other_versions_are_refused(states: RedisStatePersistence, version: Any) -> None:
    with pytest.raises(ValueError, match="version"):
        states.save_with_metadata({}, "s", version=version)
    assert not states.exists("s")


def test_saving_an_existing_version_replaces_it_where_it_stands(states: RedisStatePersistence, raw: Any) -> None:
    secret, other = "secret " * 400, "another " * 400
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n, "own": f"{n} " * 500, "text": secret if n == 2 else other}, "s", tags=[f"t{n}"])
    before = states.list_versions("s")[1]
    chunks = raw.hlen(thread(states, "s").hash)
    again = states.save_with_metadata({"n": "new"}, "s", version=2, tags=["t9"])
    assert again.version == 2
    assert again.created_at == before.created_at <= again.updated_at
    assert numbers(states, "s") == [1, 2, 3]
    assert loaded(states, "s", 2) == {"n": "new"}
    assert loaded(states, "s") == {"n": 3, "own": "3 " * 500, "text": other}
    assert raw.hlen(thread(states, "s").hash) < chunks, "the replaced content is gone from the server"
    assert states.save_with_metadata({}, "s").version == 4


def test_replacing_the_newest_replaces_its_tags(states: RedisStatePersistence, raw: Any) -> None:
    states.save_with_metadata({"n": 1}, "s", version=1, tags=["a", "b"])
    states.save_with_metadata({"n": 2}, "s", version=1, tags=["b", "c"])
    assert states.search_by_tags(["a"]) == []
    assert [each.version for each in states.search_by_tags(["c"])] == [1]
    assert b"tag:a" not in b" ".join(raw.zrange(thread(states, "s").all[5], 0, -1))


def test_never_more_than_max_versions(make: Make, raw: Any) -> None:
    states = make(max_versions=3)
    for n in range(1, 9):
        states.save_with_metadata({"n": n, "text": f"{n}" * 2000}, "s")
        assert numbers(states, "s") == list(range(max(1, n - 2), n + 1))
        assert raw.zcard(thread(states, "s").all[1]) == min(n, 3)
    assert states.load_with_metadata("s", 5) is None
    assert states.get_stats()["versions"] == 3
    names = raw.hkeys(thread(states, "s").hash)
    assert sum(name[:1] == b"D" for name in names) == 3


def test_versions_beyond_those_kept_are_never_shown(make: Make) -> None:
    """A program that died between saving and removing left one too many; or the limit is lower now."""
    wide, narrow = make(max_versions=None), make(max_versions=2)
    for n in range(5):
        wide.save_with_metadata({"n": n}, "s")
    assert numbers(narrow, "s") == [4, 5]
    assert narrow.load_with_metadata("s", 3) is None
    assert not narrow.exists("s", 3)
    narrow.save_with_metadata({"n": 5}, "s")
    assert numbers(wide, "s") == [5, 6]


def test_a_surplus_version_is_not_shown_again_when_a_newer_one_goes(make: Make) -> None:
    wide, narrow = make(max_versions=None), make(max_versions=3)
    for n in range(7):
        wide.save_with_metadata({"n": n}, "s")
    assert narrow.delete_version("s", 7)
    assert numbers(narrow, "s") == numbers(wide, "s") == [5, 6]
    for n in range(7):
        wide.save_with_metadata({"n": n}, "s")
    assert narrow.rollback("s", 13, truncate=True).version == 13
    assert numbers(narrow, "s") == numbers(wide, "s") == [12, 13]


def test_surplus_versions_are_removed_a_quarter_of_max_versions_at_a_time(make: Make, raw: Any, url: str) -> None:
    states = make(max_versions=12)
    for n in range(1, 31):
        with monitored(url) as sent:
            states.save_with_metadata({"n": n, "text": f"{n}" * 2000}, "s", tags=[f"t{n}"])
        due = n > 12 and n % 3 == 0
        assert n < 16 or sent == ["EVALSHA"] * (2 if due else 1)
        assert numbers(states, "s") == list(range(max(1, n - 11), n + 1))
        assert states.get_stats()["versions"] == (n if n < 12 else 12 + n % 3)
        assert not states.exists("s", n - 12)
        assert states.search_by_tags([f"t{n - 12}"]) == []
    assert sum(name[:1] == b"D" for name in raw.hkeys(thread(states, "s").hash)) == 12
    audit(raw, states._engine.settings.prefix, "s", clean=True)


def test_without_versioning_one_is_kept(make: Make, raw: Any) -> None:
    states = make(enable_versioning=False)
    for n in range(5):
        states.save_with_metadata({"text": f"{n} " * 1000}, "s", tags=[f"t{n}"])
    assert numbers(states, "s") == [5]
    assert loaded(states, "s") == {"text": "4 " * 1000}
    names = raw.hkeys(thread(states, "s").hash)
    assert sorted(name[:1] for name in names) == [b"C", b"D", b"S"]
    assert len([each for each in raw.zrange(thread(states, "s").all[5], 0, -1) if each.startswith(b"Vtag:")]) == 1


def test_rollback_adds_a_version_and_loses_none(states: RedisStatePersistence) -> None:
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n, "text": "t" * 500}, "s", tags=[f"t{n}"])
    back = states.rollback("s", 1)
    assert (back.version, back.tags) == (4, ["t1"])
    assert back.checksum == states.list_versions("s")[0].checksum
    assert numbers(states, "s") == [1, 2, 3, 4]
    assert loaded(states, "s")["n"] == 1
    assert loaded(states, "s", 3)["n"] == 3
    assert [each.version for each in states.search_by_tags(["t1"])] == [4]


def test_rollback_by_truncation_removes_what_came_after(states: RedisStatePersistence) -> None:
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s", tags=[f"t{n}"])
    assert states.rollback("s", 2, truncate=True).version == 2
    assert numbers(states, "s") == [1, 2]
    assert states.search_by_tags(["t3"]) == []
    assert [each.version for each in states.search_by_tags(["t2"])] == [2]
    assert states.save_with_metadata({}, "s").version == 4


def test_rollback_to_nothing_is_an_error(states: RedisStatePersistence) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'s'"):
        states.rollback("s", 1)
    states.save_with_metadata({}, "s")
    for truncate in (False, True):
        with pytest.raises(CheckpointNotFoundError, match="version 7"):
            states.rollback("s", 7, truncate=truncate)
    assert numbers(states, "s") == [1]


def test_deleting_versions_and_with_the_last_the_state(states: RedisStatePersistence, raw: Any) -> None:
    states.save_with_metadata({"n": 1}, "s", tags=["a"])
    states.save_with_metadata({"n": 2}, "s", tags=["b"])
    assert states.delete_version("s", 2)
    assert not states.delete_version("s", 2)
    assert loaded(states, "s") == {"n": 1}
    assert [each.version for each in states.search_by_tags(["a"])] == [1]
    assert states.search_by_tags(["b"]) == []
    assert states.delete_version("s", 1)
    assert not states.exists("s")
    assert states.list_states() == []
    assert raw.keys(f"{states._engine.settings.prefix}:*") == [f"{states._engine.settings.prefix}:layout".encode()]


def test_a_deleted_state_can_be_saved_again_at_once(states: RedisStatePersistence) -> None:
    states.save_with_metadata({"n": 1}, "s")
    states.save_with_metadata({"n": 2}, "s")
    assert states.delete_state("s")
    assert states.save_with_metadata({"n": 3}, "s").version == 1
    assert loaded(states, "s") == {"n": 3}


def test_a_clock_behind_does_not_misplace_a_version(states: RedisStatePersistence, monkeypatch: pytest.MonkeyPatch) -> None:
    states.save_with_metadata({"n": 1}, "s")
    monkeypatch.setattr("langgraph_redis_state.storage.ids.uuid6", lambda: uuid.UUID("1d000000-0000-6000-8000-000000000000"))
    states.save_with_metadata({"n": 2}, "s")
    states.save_with_metadata({"n": 3}, "s")
    assert numbers(states, "s") == [1, 2, 3]
    assert loaded(states, "s") == {"n": 3}


# --- tags, lists, namespaces, expiry


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


# --- statistics and logging


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
    assert re.match(
        r"save: state 's' version 1: 2\d\d\d bytes, \d+ new on the server, 5 new and 0 shared chunks, [\d.]+ ms", logged[0]
    )
    assert re.match(
        r"save: state 's' version 2: 2\d\d\d bytes, \d+ new on the server, 1 new and 4 shared chunks, [\d.]+ ms", logged[1]
    )
    for line, beginning in zip(
        (line for line in logged[2:] if not line.startswith("save:")),
        (
            *(r"load\('s', None\): 2\d\d\d bytes", r"load\('t', None\): not there", r"list_states\(.*\): 1 found"),
            *(r"list_states\(\['a'\].*\): 0 found", r"list_versions\('s'\): 2 found", r"exists\('s', None\): True"),
            *(r"delete_version\('s', 9\): False", r"rollback\('s', 1, False\): version 3", r"touch\('s', 5\): True"),
            *(r"touch\('t', None\): False", r"stats\(\): done", r"delete_state\('s'\): True"),
        ),
        strict=True,
    ):
        assert re.fullmatch(beginning + r", [\d.]+ ms", line), line


# --- concurrency


def test_threads_that_save_one_state_lose_none(make: Make) -> None:
    states = make(max_versions=None)
    got: list[int | str] = []
    errors: list[BaseException] = []

    def save(who: int) -> None:
        try:
            for n in range(20):
                got.append(states.save_with_metadata({"who": who, "n": n}, "s").version)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=save, args=(who,)) for who in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert sorted(got) == list(range(1, 161))  # type: ignore[type-var]
    assert numbers(states, "s") == list(range(1, 161))
    contents = [loaded(states, "s", version) for version in range(1, 161, 13)]
    assert len({(each["who"], each["n"]) for each in contents}) == len(contents)


async def test_tasks_that_save_one_state_lose_none(url: str, namespace: str) -> None:
    async with RedisStatePersistence(url, namespace=namespace, max_versions=5) as states:
        saved = await asyncio.gather(*(states.asave_with_metadata({"n": n}, "s") for n in range(40)))
        assert sorted(each.version for each in saved) == list(range(1, 41))  # type: ignore[type-var]
        assert [each.version for each in await states.alist_versions("s")] == [36, 37, 38, 39, 40]


@pytest.mark.parametrize("keys", [3, 60])
@pytest.mark.parametrize("version", [None, 1])
def test_programs_that_push_out_or_replace_each_others_versions_leave_nothing(
    make: Make, raw: Any, keys: int, version: int | None
) -> None:
    stores = [make(max_versions=3) for _ in range(4)]
    errors: list[BaseException] = []

    def save(who: int) -> None:
        try:
            for n in range(25):
                fields = {f"k{k}": f"{who} {k} " * 60 for k in range(keys)}
                fields["k0"] = f"{who} {n} " * 60
                stores[who].save_with_metadata(fields, "s", version=version)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=save, args=(who,)) for who in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert numbers(stores[0], "s") == ([98, 99, 100] if version is None else [1])
    assert loaded(stores[1], "s")["k1"].split()[0] in "0123"
    audit(raw, stores[0]._engine.settings.prefix, "s", clean=True)


WORKER = """
import sys
from langgraph_redis_state import RedisStatePersistence
with RedisStatePersistence(sys.argv[1], namespace=sys.argv[2], max_versions=None) as states:
    print(*(states.save_with_metadata({"who": sys.argv[3], "n": n, "text": sys.argv[3] * 500}, "s").version for n in range(15)))
"""


def test_processes_that_save_one_state_lose_none(url: str, namespace: str, make: Make) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, url, namespace, who], stdout=subprocess.PIPE, text=True)
        for who in "abcd"
    ]
    printed = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(int(version) for line in printed for version in line) == list(range(1, 61))
    states = make(max_versions=None)
    assert numbers(states, "s") == list(range(1, 61))
    for who, line in zip("abcd", printed, strict=True):
        assert [loaded(states, "s", int(version))["n"] for version in line] == list(range(15))
        assert loaded(states, "s", int(line[-1]))["who"] == who


def repeating(
    store: RedisStatePersistence, monkeypatch: pytest.MonkeyPatch, between: Callable[[], Any], script: Script = PUT
) -> None:
    """Each such script arrives, its reply is lost, `between` happens, and the client sends it again, as redis-py does."""
    client = store._saver.client
    evalsha, busy = client.evalsha, threading.local()

    def twice(sha: bytes, *args: Any) -> Any:
        reply = evalsha(sha, *args)
        if getattr(busy, "on", False) or reply[0] != b"ok" or sha != script.sha:
            return reply
        busy.on = True
        try:
            between()
        finally:
            busy.on = False
        return evalsha(sha, *args)

    monkeypatch.setattr(client, "evalsha", twice)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_command_repeated_after_a_lost_reply_makes_no_second_version(
    make: Make, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    states, other = make(), make()
    repeating(states, monkeypatch, lambda: [other.save_with_metadata({"other": 1}, "s") for _ in range(others)])
    assert states.save_with_metadata({"n": 1}, "s").version == 1
    assert states.save_with_metadata({"n": 2}, "s", version=1).version == 1
    expected = list(range(1, 2 * others + 2))
    assert numbers(states, "s") == expected
    assert loaded(states, "s", 1) == {"n": 2}


def test_a_version_whose_deletion_was_repeated_after_a_lost_reply_was_there(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = make()
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s")
    assert states.delete_version("s", 3)  # from here on the server knows the script
    repeating(states, monkeypatch, lambda: None, REMOVE)
    assert states.delete_version("s", 1)
    assert not states.delete_version("s", 1)


# --- faults


def test_every_flipped_byte_is_found(make: Make, raw: Any) -> None:
    states = make(cache_bytes=0)
    chosen = random.Random(5)
    truth = {
        f"k{n}": f"{chosen.getrandbits(1600):x}" for n in range(4)
    }  # in text that repeats, LZ4 can say one thing in two ways
    states.save_with_metadata(truth, "s")
    keys = thread(states, "s")
    for name, content in raw.hgetall(keys.hash).items():
        if name[:1] not in b"CD":
            continue
        for at in range(len(content)) if name[:1] == b"C" else chosen.sample(range(len(content)), 20):
            raw.hset(keys.hash, name, content[:at] + bytes([content[at] ^ 1 << chosen.randrange(8)]) + content[at + 1 :])
            with pytest.raises(CheckpointerError) as caught:
                states.load_with_metadata("s")
            assert "'s'" in str(caught.value)
            if name[:1] == b"D":
                assert isinstance(caught.value, CheckpointCorruptError)
        raw.hset(keys.hash, name, content)
    assert loaded(states, "s") == truth


def test_lost_parts_are_errors_and_not_empty_states(make: Make, raw: Any) -> None:
    states = make(cache_bytes=0)
    states.save_with_metadata({"text": "word " * 500}, "s")
    keys = thread(states, "s")
    chunk = next(name for name in raw.hkeys(keys.hash) if name[:1] == b"D")
    raw.hdel(keys.hash, chunk)
    with pytest.raises(CheckpointLostError):
        states.load_with_metadata("s")
    raw.delete(keys.hash)
    for verb in (
        lambda: states.load_with_metadata("s"),
        lambda: states.list_versions("s"),
        lambda: states.exists("s"),
        lambda: states.save_with_metadata({}, "s"),
    ):
        with pytest.raises(CheckpointLostError):
            verb()
    states.delete_state("s")
    assert states.save_with_metadata({"n": 1}, "s").version == 1


def test_what_is_no_state_is_said_to_be_none(url: str, states: RedisStatePersistence) -> None:
    with RedisSaver(url, prefix=states._engine.settings.prefix) as saver:
        made: Any = {"v": 4, "id": "1", "ts": "", "channel_values": {}, "channel_versions": {}, "versions_seen": {}}
        for metadata in ({}, {"checksum": b"", "compression": "lz4"}):
            saver.put({"configurable": {"thread_id": "s", "checkpoint_ns": ""}}, made, metadata, {})  # type: ignore[arg-type]
            with pytest.raises(SerializationError, match="no saved state"):
                states.load_with_metadata("s")


def test_a_server_that_is_down_is_unavailable_and_works_when_it_is_back(tmp_path: Path) -> None:
    server = EmbeddedServer.start(tmp_path / "own")
    with RedisStatePersistence(server.url, redis_options={"retry": None}) as states:
        states.save_with_metadata({"n": 1}, "s", tags=["t"])
        server.close()
        for verb in (*state_calls(states), lambda: asyncio.run(states.aload_with_metadata("s"))):
            with pytest.raises(ServerUnavailableError):
                verb()
        with EmbeddedServer.start(tmp_path / "own") as back:
            assert back.url == server.url
            assert loaded(states, "s") == {"n": 1}
            assert states.save_with_metadata({"n": 2}, "s").version == 2
            assert states.get_stats()["misses"] == 0


def test_a_closed_store_says_so(make: Make) -> None:
    states = make()
    states.close()
    with pytest.raises(SaverClosedError):
        states.load_with_metadata("s")


def test_signed_states(make: Make) -> None:
    make(integrity_key="the right key of tests").save_with_metadata({"n": 1}, "s")
    assert loaded(make(integrity_key=["the new key of tests", "the right key of tests"]), "s") == {"n": 1}
    for wrong in (make(), make(integrity_key="the wrong key of tests")):
        with pytest.raises(CheckpointCorruptError):
            wrong.load_with_metadata("s")


# --- what it costs


ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| ([\d,]+) \|((?: [\d.]+ % \|){6})$", (ROOT / "docs" / "state.md").read_text("utf-8"), re.MULTILINE)


def test_the_guide_has_a_row_for_each_size() -> None:
    assert [int(size.replace(",", "")) for size, _ in ROWS] == [*SIZES]


@pytest.mark.parametrize("kind", ["words", "random"])
@pytest.mark.parametrize(("size", "row"), ROWS, ids=[size for size, _ in ROWS])
def test_100_versions_of_50_keys_cost_what_the_guide_says(make: Make, namespace: str, kind: str, size: str, row: str) -> None:
    told = [float(share) for share in re.findall(r"[\d.]+", row)]
    bytes_each = int(size.replace(",", ""))
    measured = shares(make(max_versions=100), make(namespace=f"{namespace}-copies"), kind, bytes_each)
    assert [100 * share for share in measured] == pytest.approx(told[:3] if kind == "words" else told[3:], abs=0.3)
    if bytes_each >= 300:  # a tenth of 100 copies
        assert measured[0] <= 0.1
        assert measured[1] <= 0.1
