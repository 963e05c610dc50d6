"""The saver of the agent server behind an adapter that passes on what the server's does. integration_tests/agent_server has
the server itself."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from shapes import at, put

import langgraph_redis_state
from langgraph_redis_state import CheckpointLostError, InvalidConfigError, RedisSaver, ThreadExistsError
from langgraph_redis_state.server import ServedSaver, SharedAllowList, checkpointer, serializer
from langgraph_redis_state.storage.keys import ThreadKeys

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Adapter(BaseCheckpointSaver[Any]):
    """What langgraph-api 0.16 passes on, and nothing else."""

    def __init__(self, inner: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=inner.serde)
        self.inner = inner

    async def aget_tuple(self, config: Any) -> Any:
        return await self.inner.aget_tuple(config)

    async def alist(self, config: Any, **narrowing: Any) -> AsyncIterator[Any]:
        async for found in self.inner.alist(config, **narrowing):
            yield found

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return await self.inner.aput(
            config, checkpoint, {**metadata, "thread_id": config["configurable"]["thread_id"]}, new_versions
        )

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await self.inner.aput_writes(config, writes, task_id, task_path)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.inner.get_next_version(current, channel)


@pytest.fixture
async def served(url: str, prefix: str) -> AsyncIterator[ServedSaver]:
    async with ServedSaver(url, prefix=prefix) as opened:
        yield opened


def extend(had: list[Any] | None, got: list[list[Any]]) -> list[Any]:
    return [*(had or []), *itertools.chain(*got)]


class State(TypedDict, total=False):
    n: int
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=7)]
    once: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=1000)]
    never: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=10)]


def graph(saver: Any) -> Any:
    def step(state: Any) -> dict[str, Any]:
        return {"log": [f"log {state['n']}"], **({"once": ["once"]} if state["n"] == 0 else {})}

    return StateGraph(State).add_node(step).add_edge(START, "step").compile(checkpointer=saver)


REMOVALS: dict[str, Callable[[RedisSaver], Any]] = {
    "pruned": lambda saver: saver.aprune(["t"], strategy="keep_latest"),
    "the last five kept": lambda saver: saver.aprune(["t"], keep_last=5),
    "copied after it was pruned": lambda saver: pruned_copy(saver),
}


async def pruned_copy(saver: RedisSaver) -> None:
    await saver.aprune(["t"], strategy="keep_latest")
    await saver.acopy_thread("t", "copy")
    await saver.adelete_thread("t")
    await saver.acopy_thread("copy", "t")


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS.keys())
async def test_delta_channels_keep_their_values_behind_an_adapter_after_a_removal(
    served: ServedSaver, removal: Callable[[RedisSaver], Any]
) -> None:
    memory, adapted = graph(InMemorySaver()), graph(Adapter(served))
    for n in range(6):
        await memory.ainvoke({"n": n}, THREAD)
        await adapted.ainvoke({"n": n}, THREAD)
    await removal(served)
    assert (await adapted.aget_state(THREAD)).values == (await memory.aget_state(THREAD)).values
    for n in range(6, 9):
        assert await adapted.ainvoke({"n": n}, THREAD) == await memory.ainvoke({"n": n}, THREAD)
    whole = {each.metadata["step"]: each.values async for each in memory.aget_state_history(THREAD)}
    listed = {each.metadata["step"]: each.values async for each in adapted.aget_state_history(THREAD)}
    assert len(listed) < len(whole) or removal is REMOVALS["pruned"]
    assert listed == {step: whole[step] for step in listed}


async def test_a_parent_that_was_removed_is_absent_to_everybody_who_names_it_by_its_id(served: ServedSaver) -> None:
    for n in range(4):
        await graph(Adapter(served)).ainvoke({"n": n}, THREAD)
    await served.aprune(["t"])
    kept = await served.aget_tuple(THREAD)
    assert kept is not None
    assert kept.parent_config is not None
    gone = kept.parent_config["configurable"]["checkpoint_id"]
    assert await served.aget_tuple(at("t", gone)) is None
    assert [each.config["configurable"]["checkpoint_id"] async for each in served.alist(THREAD)] != [gone]


async def test_a_chain_that_was_broken_otherwise_is_an_error_behind_an_adapter_too(
    served: ServedSaver, prefix: str, raw: Any
) -> None:
    for n in range(4):
        await graph(Adapter(served)).ainvoke({"n": n}, THREAD)
    third = [each.config["configurable"]["checkpoint_id"] async for each in served.alist(THREAD)][2].encode()
    stored = ThreadKeys(prefix, b"t")
    assert raw.hdel(stored.hash, *(field for field in raw.hkeys(stored.hash) if third in field))
    assert raw.zrem(stored.all[1], *(member for member in raw.zrange(stored.all[1], 0, -1) if third in member))
    with pytest.raises(CheckpointLostError):
        await graph(Adapter(served)).aget_state(THREAD)


async def test_metadata_of_a_copied_thread_names_the_copy(served: ServedSaver) -> None:
    await graph(Adapter(served)).ainvoke({"n": 0}, THREAD)
    await served.acopy_thread("t", "copy")
    there = await served.aget_tuple(at("copy"))
    assert there is not None
    assert there.metadata["thread_id"] == "copy"  # type: ignore[typeddict-item]
    assert [each.metadata["thread_id"] async for each in served.alist(at("copy"))] == ["copy"] * 3  # type: ignore[typeddict-item]


async def test_a_thread_in_which_nothing_ran_is_copied_and_an_existing_target_is_refused(served: ServedSaver) -> None:
    await served.acopy_thread("nothing", "copy")
    assert await served.aget_tuple(at("copy")) is None
    await put(served, at("t"), {"x": 1})
    await put(served, at("copy"), {"x": 2})
    with pytest.raises(ThreadExistsError):
        await served.acopy_thread("t", "copy")


@dataclass
class Invoice:
    number: int


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_strict_serializer_knows_the_types_of_graphs_that_came_later(
    url: str, prefix: str, caplog: pytest.LogCaptureFixture, encrypted: bool
) -> None:
    serde: Any = serializer([("collections", "OrderedDict")])
    if encrypted:
        serde = EncryptedSerializer.from_pycryptodome_aes(serde, key=b"k" * 32)
    async with ServedSaver(url, prefix=prefix, serde=serde) as served:
        await put(served, at("t"), {"x": Invoice(7)})
        before = await served.aget_tuple(at("t"))
        assert before is not None
        assert before.checkpoint["channel_values"]["x"] == {"number": 7}
        adapted = Adapter(served).with_allowlist([(Invoice.__module__, "Invoice")])
        after = await adapted.aget_tuple(at("t"))
        assert after is not None
        assert after.checkpoint["channel_values"]["x"] == Invoice(7)


def test_the_serializer_is_langgraphs_own_unless_it_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serializer(None) is None
    assert isinstance(serializer([("a", "B")]), SharedAllowList)
    monkeypatch.setattr("langgraph.checkpoint.serde._msgpack.STRICT_MSGPACK_ENABLED", True)
    assert isinstance(serializer(None), SharedAllowList)


async def test_the_checkpointer_takes_its_options_from_the_environment(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LGRS_URL": url, "LGRS_PREFIX": prefix, "LGRS_TTL": "2h"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LGRS_SOAK", raising=False)
    async with checkpointer() as saver:
        await put(saver, at("t"), {"x": 1})
        assert 7100 < saver.client.ttl(ThreadKeys(prefix, b"t").hash) <= 7200
    with pytest.raises(Exception, match="closed"):
        await saver.aget_tuple(at("t"))


async def test_the_agent_server_does_not_start_with_a_wrong_variable_or_without_its_server(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LGRS_SOAK", raising=False)
    monkeypatch.setenv("LGRS_URL", url)
    monkeypatch.setenv("LGRS_PREFIX", "a{b")
    with pytest.raises(InvalidConfigError, match=r"LGRS_\*.*prefix"):
        async with checkpointer():
            raise AssertionError("it started")
    monkeypatch.setenv("LGRS_PREFIX", prefix)
    monkeypatch.setenv("LGRS_URL", "unix:///nowhere/redis.sock")
    with pytest.raises(langgraph_redis_state.ServerUnavailableError):
        async with checkpointer():
            raise AssertionError("it started")


def test_the_path_that_the_agent_server_is_given_leads_to_the_checkpointer() -> None:
    """langgraph-api 0.16 imports what stands before the last dot, and looks up the rest in its `__dict__`."""
    module, _, name = "langgraph_redis_state.server:checkpointer".rpartition(".")
    assert vars(langgraph_redis_state)[name] is checkpointer
    assert module == "langgraph_redis_state"
