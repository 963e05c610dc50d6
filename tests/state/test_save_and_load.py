"""`RedisStatePersistence`: saving, loading, and content of every type."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from shapes import assert_same
from soak import times
from states import Make, loaded, numbers

from langgraph_redis_state import CompressionType, EmbeddedServer, RedisStatePersistence, SerializationError, StateMetadata

# ---  -----------------------------------------------------------------------------------------------------------------


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


def test_every_method_has_an_async_twin_of_the_same_arguments() -> None:
    public = {name for name in dir(RedisStatePersistence) if not name.startswith("_")}
    assert public == {*TWINS, "close"} | {f"a{name}" for name in [*TWINS, "close"]}
    for name in TWINS:
        one, other = (inspect.signature(getattr(RedisStatePersistence, each)) for each in (name, f"a{name}"))
        assert one == other


# --- what the original describes, with its names of arguments ---------------------------------------------------------


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


# --- content ----------------------------------------------------------------------------------------------------------


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


STATE = {"s": {f"name {n}" for n in range(20)}, "n": [1]}
SETS = """
import sys
from langgraph_redis_state import RedisStatePersistence
with RedisStatePersistence(sys.argv[1], namespace=sys.argv[2]) as states:
    print(states.save_with_metadata({"s": {f"name {n}" for n in range(20)}, "n": [1]}, "s").checksum, end="")
"""


def test_a_checksum_is_that_of_another_process(url: str, namespace: str, states: RedisStatePersistence) -> None:
    there = subprocess.run(
        [sys.executable, "-c", SETS, url, namespace],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},  # another order of the set
    )
    assert there.stdout == states.save_with_metadata(STATE, "s").checksum


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
