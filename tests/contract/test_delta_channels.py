"""DeltaChannels whose ancestors were removed: beside LangGraph's own saver, which removes nothing."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from shapes import at
from soak import in_turn, rare, times

from langgraph_redis_state import CheckpointLostError, RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.operations import removing

THREAD: Any = {"configurable": {"thread_id": "t"}}


def extend(had: list[Any] | None, got: list[list[Any]]) -> list[Any]:
    return [*(had or []), *itertools.chain(*got)]


class Two(TypedDict, total=False):
    n: int
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=10)]
    third: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]
    never: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=10)]
    once: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=1000)]


class Inner(TypedDict, total=False):
    n: int
    memory: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=10)]


def chat(saver: Any, state: Any = Two) -> Any:
    """`log` is written each turn, `third` each third turn, `once` in the first, `never` never."""

    def step(state: Any) -> dict[str, Any]:
        n = state["n"]
        written: dict[str, Any] = {"log": [f"log {n}" * 20]}
        if n % 3 == 0:
            written["third"] = [f"third {n}"]
        if n == 0:
            written["once"] = ["once"]
        return written

    builder = StateGraph(state)
    builder.add_node("step", step)
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    return builder.compile(checkpointer=saver)


def turns(savers: Any, first: int, last: int, durability: Any = "sync") -> None:
    """The same turns with each saver; LangGraph's ids differ, steps do not."""
    for n in range(first, last):
        for saver in savers:
            chat(saver).invoke({"n": n}, THREAD, durability=durability)


def by_step(saver: Any, config: Any = THREAD) -> dict[int, Any]:
    return {each.metadata["step"]: each.values for each in chat(saver).get_state_history(config)}


def same_as(saver: Any, memory: Any, config: Any = THREAD) -> dict[int, Any]:
    """Every listed checkpoint reads as it does with the saver that removed nothing."""
    mine, all_ = by_step(saver, config), by_step(memory)
    assert mine
    assert mine == {step: all_[step] for step in mine}
    return mine


def sound(saver: RedisSaver) -> None:
    """Counts are what is stored, nothing is left over, no chain is broken."""
    assert list(saver.verify()) == []


@pytest.fixture(params=[{"max_versions": 5}, {"max_versions": 40}, {"max_age": 0.05}], ids=str)
def options(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.longer
def test_channels_of_different_rhythms_are_right_at_every_listed_checkpoint(url: str, prefix: str, options: Any) -> None:
    memory = InMemorySaver()
    with RedisSaver(url, prefix=prefix, **options) as saver:
        turns([saver, memory], 0, times(14, 60))
        left = same_as(saver, memory)
        assert len(left) < 2 * times(14, 60) if "max_age" in options else len(left) <= 52
        sound(saver)


@pytest.mark.longer
@pytest.mark.parametrize("durability", ["sync", rare("async"), "exit"])
def test_retention_goes_on_with_a_channel_that_was_never_written_and_one_written_long_ago(
    url: str, prefix: str, durability: Any
) -> None:
    memory = InMemorySaver()
    with RedisSaver(url, prefix=prefix, max_versions=5) as saver:
        turns([saver, memory], 0, times(18, 150), durability)
        assert 5 <= len(same_as(saver, memory)) <= 7  # LangGraph's pending writes may overtake a removal: the next put does it
        assert chat(saver).get_state(THREAD).values["once"] == ["once"]
        sound(saver)


@pytest.mark.longer
@pytest.mark.parametrize("how", [{}, rare({"keep_last": 1}), {"keep_last": 7}], ids=str)
def test_pruning_again_and_again_loses_nothing(saver: RedisSaver, how: Any) -> None:
    memory = InMemorySaver()
    saver_and_memory = [saver, memory]
    for n in range(0, times(21, 60), 7):
        turns(saver_and_memory, n, n + 7)
        saver.prune(["t"], **how)
        left = same_as(saver, memory)
        assert len(left) == how.get("keep_last", 1)
        sound(saver)


@pytest.mark.longer
@pytest.mark.parametrize("mode", ["fork", "truncate"])
def test_a_thread_goes_back_to_every_listed_checkpoint_and_on_from_there(url: str, prefix: str, mode: Any) -> None:
    memory = InMemorySaver()
    with RedisSaver(url, prefix=prefix, max_versions=5) as saver:
        turns([saver, memory], 0, times(10, 60))
        expected = same_as(saver, memory)
        ids = [(each.checkpoint_id, each.step) for each in saver.history("t")]
        for n, (id, step) in enumerate(ids):
            saver.copy_thread("t", f"copy {n}")
            config: Any = {"configurable": {"thread_id": f"copy {n}"}}
            assert by_step(saver, config) == expected
            saver.rollback(f"copy {n}", id, mode=mode)
            graph = chat(saver)
            assert graph.get_state(config).values == expected[step]
            went_on = graph.invoke({"n": 100}, config)
            assert went_on["log"] == [*expected[step]["log"], "log 100" * 20]
            assert went_on["third"] == expected[step]["third"]
            saver.prune([f"copy {n}"])
            assert graph.get_state(config).values == went_on
        sound(saver)


def test_tagged_checkpoints_keep_their_values_and_can_be_gone_back_to(url: str, prefix: str) -> None:
    memory = InMemorySaver()
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        for n in range(0, 25, 5):
            turns([saver, memory], n, n + 5)
            saver.tag("t", f"at {n}")
        assert len(same_as(saver, memory)) >= 5
        sound(saver)
        expected = by_step(saver)
        back = saver.rollback("t", "at 10")
        step = next(each.step for each in saver.history("t") if "at 10" in each.tags)
        assert step is not None
        assert chat(saver).get_state(back).values == expected[step]


def test_deleting_runs_leaves_later_checkpoints_readable(saver: RedisSaver) -> None:
    memory = InMemorySaver()
    runs = []
    for n in range(16):
        runs.append(f"00000000-0000-0000-0000-{n:012d}")
        for each in (saver, memory):
            chat(each).invoke({"n": n}, {**THREAD, "metadata": {"run_id": runs[-1]}})
    saver.delete_for_runs(runs[3:7] + runs[9:10] + runs[13:14])
    left = same_as(saver, memory)
    assert len(left) == 3 * 10
    sound(saver)
    saver.prune(["t"], keep_last=2)
    assert len(same_as(saver, memory)) == 2
    sound(saver)


def test_what_is_broken_by_a_loss_is_told_and_not_gone_back_to(saver: RedisSaver, raw: Any, prefix: str) -> None:
    turns([saver], 0, 6)
    saver.prune(["t"], keep_last=3)
    (key,) = [name for name in raw.keys(f"{prefix}:*") if b"}:t:" in name]
    (field,) = [name for name in raw.hkeys(key) if name.startswith(b"H")]
    raw.hdel(key, field)
    assert "its parent" in " ".join(each.problem for each in saver.verify() if each.kind == "lost")
    oldest = [each.checkpoint_id for each in saver.history("t")][-1]
    before = raw.hgetall(key)
    for act in (
        lambda: saver.rollback("t", oldest),
        lambda: saver.rollback("t", oldest, mode="truncate"),
        lambda: saver.tag("t", "it", oldest),
        lambda: saver.get_delta_channel_history(config=at("t", "", oldest), channels=["log"]),
    ):
        with pytest.raises(CheckpointLostError, match="log"):
            act()
    assert raw.hgetall(key) == before
    saver.prune(["t"])  # what was lost before stays lost, and no value becomes a shorter one
    with pytest.raises(CheckpointLostError):
        chat(saver).get_state(THREAD)


def test_a_put_repeated_after_its_checkpoint_became_the_cut_changes_nothing(saver: RedisSaver, raw: Any) -> None:
    memory = InMemorySaver()
    turns([saver, memory], 0, 12)
    tuples = list(saver.list(THREAD))
    saver.prune(["t"], keep_last=2)
    expected = same_as(saver, memory)
    for tup in tuples[:4]:  # the newest, the cut, and two that were removed
        config: Any = tup.parent_config
        saver.put(config, tup.checkpoint, tup.metadata, {})
    newest = chat(saver).get_state(THREAD).values
    assert newest == expected[max(expected)]
    oldest = chat(saver).get_state(tuples[1].config).values
    assert oldest == expected[min(expected)]


def test_a_removal_cut_off_before_its_script_changes_nothing(saver: RedisSaver) -> None:
    memory = InMemorySaver()
    turns([saver, memory], 0, 12)
    removal = removing.prune(saver._engine, saver.serde, ["t"], "keep_latest", None)
    sent = 0
    answer: Any = None
    try:
        while True:  # performs each effect, but not the last
            effect = removal.send(answer)
            if getattr(getattr(effect, "script", None), "name", "") == "remove":
                break
            answer = run(_one(effect), saver._connection)
            sent += 1
    finally:
        removal.close()
    assert sent
    assert len(same_as(saver, memory)) == 36
    sound(saver)
    turns([saver, memory], 12, 14)
    saver.prune(["t"])
    same_as(saver, memory)
    sound(saver)


def _one(effect: Any) -> Any:
    return (yield effect)


@pytest.mark.longer
@pytest.mark.parametrize("own", [True, None])
def test_subgraphs_with_delta_channels_are_right_after_removals(url: str, prefix: str, own: Any) -> None:
    def build(saver: Any) -> Any:
        inner = StateGraph(Inner)
        inner.add_node("inner", lambda state: {"memory": [f"inner {state['n']} after {len(state['memory'])}"]})
        inner.add_edge(START, "inner")
        outer = StateGraph(Two)
        compiled = inner.compile(checkpointer=own)
        outer.add_node("sub", lambda state: {"log": compiled.invoke({"n": state["n"]})["memory"][-1:]})
        outer.add_edge(START, "sub")
        return outer.compile(checkpointer=saver)

    memory = InMemorySaver()
    with RedisSaver(url, prefix=prefix, max_versions=4) as saver:
        for n in range(times(8, 25)):
            for each in (saver, memory):
                graph = build(each)
                graph.invoke({"n": n}, THREAD)
        assert graph.get_state(THREAD).values == build(saver).get_state(THREAD).values
        for _ in range(3):
            assert build(saver).invoke({"n": 99}, THREAD) == build(memory).invoke({"n": 99}, THREAD)
        sound(saver)
        saver.prune(["t"])
        assert build(saver).invoke({"n": 100}, THREAD) == build(memory).invoke({"n": 100}, THREAD)
        sound(saver)


async def test_history_awaited_continues_at_the_cut(asaver: RedisSaver) -> None:
    turns([asaver], 0, 15)
    before = chat(asaver).get_state(THREAD).values
    await asaver.aprune(["t"])
    assert (await chat(asaver).aget_state(THREAD)).values == before
    assert [each.metadata["step"] async for each in chat(asaver).aget_state_history(THREAD)] == [43]


def test_a_look_that_removed_little_is_not_repeated_at_each_put(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=2) as saver:
        for n in range(40):
            turns([saver], n, n + 1)
            saver.tag("t", f"{n}")
        asked = []
        read = removing.read_headers
        monkeypatch.setattr(removing, "read_headers", lambda *args, **more: asked.append(1) or read(*args, **more))  # type: ignore[func-returns-value]
        turns([saver], 40, 50)
        assert len(asked) <= 8  # of thirty puts


class Uncounted(RedisSaver):
    """Stores what `update_state` of LangGraph before 1.2.13 gives: metadata without counters."""

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["source"] == "update":
            metadata = {name: value for name, value in metadata.items() if name != "counters_since_delta_snapshot"}
        return super().put(config, checkpoint, metadata, new_versions)


@pytest.mark.parametrize(
    ("changed", "cache_bytes"), in_turn([{"n": 7}, {"log": ["told"]}, {"third": ["told"]}], [2**25, 0]), ids=str
)
def test_an_update_that_langgraph_did_not_count_keeps_its_ancestors_values(
    url: str, prefix: str, changed: Any, cache_bytes: int
) -> None:
    def update(times: int) -> None:
        for _ in range(times):  # each in a process of its own, as far as what is remembered goes
            with Uncounted(url, prefix=prefix, cache_bytes=cache_bytes) as saver:
                chat(saver).update_state(THREAD, changed, as_node="step")

    with RedisSaver(url, prefix=prefix) as saver:
        turns([saver], 0, 7)
        for updates in (1, 3):
            update(updates)
            before = chat(saver).get_state(THREAD).values
            assert len(before["log"]) >= 7
            saver.prune(["t"], keep_last=1)
            assert chat(saver).get_state(THREAD).values == before
            sound(saver)
        turns([saver], 8, 10)
        before = chat(saver).get_state(THREAD).values
        saver.prune(["t"], keep_last=1)
        assert chat(saver).get_state(THREAD).values == before
