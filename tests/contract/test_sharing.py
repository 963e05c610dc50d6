"""Nothing that a saver remembers can be reached from what it was given or gave: whoever changes that changes no state.

LangGraph 1.2.0 to 1.2.12 change `channel_versions` of a loaded checkpoint in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from shapes import at, checkpoint, id_of, metadata, plain, spoil, words
from typing_extensions import TypedDict

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence
from langgraph_redis_state.operations.writing import put

# ---  -----------------------------------------------------------------------------------------------------------------


Make = Callable[..., RedisSaver]


@pytest.fixture
def make(url: str, prefix: str) -> Iterator[Make]:
    made: list[RedisSaver] = []

    def build(**options: Any) -> RedisSaver:
        made.append(RedisSaver(url, prefix=prefix, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.mark.parametrize("cache_bytes", [0, 64 * 1024 * 1024])
def test_versions_changed_in_what_was_read_change_no_later_put(cache_bytes: int, make: Make) -> None:
    """A channel with another version than the parent's is stored anew, though the loaded parent was made to say the same."""
    saver = make(cache_bytes=cache_bytes)
    first = saver.put(at("t"), checkpoint({"log": ["old"] * 9}, {"log": 1}), metadata(), {"log": 1})
    for read in (saver.get_tuple, lambda config: next(saver.list(config))):
        read(first).checkpoint["channel_versions"]["log"] = 2
        second = saver.put(first, checkpoint({"log": ["new"] * 9}, {"log": 2}), metadata(), {})
        assert make().get_tuple(second).checkpoint["channel_values"] == {"log": ["new"] * 9}


def test_versions_changed_after_a_put_change_no_later_put(make: Make) -> None:
    saver = make()
    made, new = checkpoint({"log": ["old"] * 9}, {"log": 1}), {"log": 1}
    first = saver.put(at("t"), made, metadata(), new)
    made["channel_versions"]["log"] = new["log"] = 2
    second = saver.put(first, checkpoint({"log": ["new"] * 9}, {"log": 2}), metadata(), {})
    assert make().get_tuple(second).checkpoint["channel_values"] == {"log": ["new"] * 9}


@pytest.mark.parametrize("cache_bytes", [0, 64 * 1024 * 1024])
def test_everything_given_and_got_may_be_changed(cache_bytes: int, make: Make) -> None:
    """A chat, its forks and pending writes, after each call everything spoiled: what is stored is as it was given."""
    saver, truth = make(cache_bytes=cache_bytes), InMemorySaver()
    configs: list[Any] = [at("t")]
    value: list[Any] = []
    for n in range(12):
        parent = configs[-1 if n % 4 else n // 2]
        value = [*value, *(AIMessage(words((n, each), 30), id=f"{n}-{each}") for each in range(4))]
        id_ = checkpoint()["id"]
        results = []
        for each in (saver, truth):
            versions = {"messages": n + 1, "files": 1 + n // 3, "n": n + 1}
            values = {"messages": [m.model_copy() for m in value], "files": {"a": [words(n // 3, 500)]}, "n": [n]}
            made, told = checkpoint(values, versions, id=id_), metadata(step=n, k={"deep": [n]})
            new = {name: version for name, version in versions.items() if name != "files" or not n % 3}
            config = {"configurable": dict(parent["configurable"])}
            got = each.put(config, made, told, new)
            results.append({"configurable": dict(got["configurable"])})
            writes = [("messages", [AIMessage(words(n, 400), id="w")]), ("n", {"a": [n]})]
            each.put_writes(got, writes, "task", "path")
            if each is saver:
                spoil([config, made, told, new, got, writes])
        assert results[0] == results[1]
        configs.append(results[0])
        for config in (at("t"), configs[-1], configs[n // 2 + 1]):
            found = saver.get_tuple({"configurable": dict(config["configurable"])})
            assert plain(found) == plain(truth.get_tuple(config))
            spoil([found.config, found.checkpoint, found.metadata, found.parent_config, found.pending_writes])
        for found in saver.list(at("t")):
            spoil([found.config, found.checkpoint, found.metadata, found.parent_config, found.pending_writes])
    for saver_ in (saver, make()):
        assert [plain(each) for each in saver_.list(at("t"))] == [plain(each) for each in truth.list(at("t"))]


async def test_what_aput_was_given_may_change_while_it_waits(make: Make, raw: Any) -> None:
    """Between its first effect and its end: metadata, index, config, versions and the state."""
    async with make(index_metadata=["user"]) as saver:
        first = saver.put(at("t"), checkpoint({"a": ["old"] * 40, "b": 1}, {"a": 1, "b": 1}), metadata(), {"a": 1, "b": 1})
        made = checkpoint({"a": ["new"] * 40, "b": 2}, {"a": 2, "b": 2})
        truth, told = made["id"], metadata(user="u", parents={"": id_of(first)})
        config, new = at("t", checkpoint_id=id_of(first), ttl=100), {"a": 2, "b": 2}
        putting = put(saver._engine, saver.serde, config, made, told, new)
        effect, result = next(putting), None
        spoil([config, made, told, new])
        while effect is not None:
            reply = await _performed(saver, effect)
            try:
                effect = putting.send(reply)
            except StopIteration as done:
                effect, result = None, done.value
        assert id_of(result) == truth
        assert make().get_tuple(at("t")).checkpoint["channel_values"] == {"a": ["new"] * 40, "b": 2}
        assert [each.thread_id for each in saver.find_threads(user="u")] == ["t"]


async def _performed(saver: RedisSaver, effect: Any) -> Any:
    from langgraph_redis_state.client.driver import arun

    def once() -> Any:
        return (yield effect)

    return await arun(once(), saver._connection)


def test_a_running_list_keeps_its_filter_and_its_bounds(make: Make) -> None:
    saver = make()
    config: Any = at("t")
    for n in range(130):
        config = saver.put(config, checkpoint({"n": n}, {"n": n + 1}), metadata(k={"a": [n % 2]}), {"n": n + 1})
    asked, wanted, before = at("t"), {"k": {"a": [1]}}, dict(config)
    truth = [id_of(each.config) for each in saver.list(asked, filter=wanted, before=before)]
    for early in (True, False):
        asked, wanted, before = at("t"), {"k": {"a": [1]}}, at("t", checkpoint_id=id_of(config))
        listing = saver.list(asked, filter=wanted, before=before)
        got = [] if early else [id_of(next(listing).config)]
        spoil([asked, wanted, before])
        assert got + [id_of(each.config) for each in listing] == truth


async def test_a_running_alist_keeps_its_filter_and_its_bounds(make: Make) -> None:
    async with make() as saver:
        saver.put(at("t"), checkpoint({"n": 1}), metadata(k={"a": [1]}), {"n": 1})
        asked, wanted = at("t"), {"k": {"a": [1]}}
        listing = saver.alist(asked, filter=wanted)
        spoil([asked, wanted])
        assert len([each async for each in listing]) == 1


def test_a_value_made_again_after_its_parts_were_lost_is_the_one_that_was_put(make: Make, raw: Any, prefix: str) -> None:
    """A carried value that stands in the record needs nothing from the server, whatever became of the caller's."""
    saver = make()
    values = {"small": "small", "large": words(1, 500)}
    first = saver.put(at("t"), checkpoint(values, {"small": 1, "large": 1}), metadata(), {"small": 1, "large": 1})
    key = next(name for name in raw.scan_iter(f"{prefix}:*") if raw.type(name) == b"hash" and raw.hexists(name, "S"))
    raw.hdel(key, *(field for field in raw.hkeys(key) if field[:1] == b"D"))
    made = checkpoint({"large": values["large"]}, {"small": 1, "large": 1})
    second = saver.put(first, made, metadata(), {})
    assert make().get_tuple(second).checkpoint["channel_values"] == values


def test_an_allowlisted_copy_and_its_origin_share_nothing_that_can_be_changed(make: Make) -> None:
    saver = make()
    copy = saver.with_allowlist([("builtins", "set")])
    first = saver.put(at("t"), checkpoint({"log": ["old"] * 9}, {"log": 1}), metadata(), {"log": 1})
    spoil(copy.get_tuple(first).checkpoint)
    assert saver.get_tuple(first).checkpoint["channel_values"] == {"log": ["old"] * 9}
    second = copy.put(first, checkpoint({"log": ["new"] * 9}, {"log": "spoiled"}), metadata(), {})
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"log": ["new"] * 9}


def test_differences_may_be_changed(make: Make) -> None:
    saver = make()
    first = saver.put(at("t"), checkpoint({"log": [["a"]]}, {"log": 1}), metadata(), {"log": 1})
    second = saver.put(first, checkpoint({"log": [["a"], ["b"]]}, {"log": 2}), metadata(), {"log": 2})
    for _ in range(2):
        found = saver.diff("t", id_of(first), id_of(second))["log"]
        assert (found.before, found.after, found.appended) == ([["a"]], [["a"], ["b"]], [["b"]])
        spoil([found.before, found.after])


def test_saved_states_share_nothing(url: str, prefix: str) -> None:
    with RedisStatePersistence(url, prefix=prefix) as states:
        for n in range(3):
            state, tags = {"n": [n], "big": [words(1, 400)]}, ["one", f"{n}"]
            found = states.save_with_metadata(state, "s", tags=tags)
            spoil([state, tags, found.tags])
            loaded, told = states.load_with_metadata("s")
            assert loaded == {"n": [n], "big": [words(1, 400)]}
            assert told.tags == ["one", f"{n}"]
            spoil([loaded, told.tags])
            assert [each.tags for each in states.list_states(["one"])] == [["one", f"{n}"]]


def test_agent_states_share_nothing(url: str, prefix: str) -> None:
    with AgentCheckpointer(url, prefix=prefix) as agents:
        for _ in range(2):
            todo = {"content": "a", "status": "pending", "extra": {"x": [1]}}
            given = {"todos": [todo], "files": {"f": "text"}, "scratchpad": {"deep": [{"a": 1}]}}
            agents.save_state("t", given)
            spoil([given["todos"], given["scratchpad"]])
            found = agents.load_state("t")
            assert found.scratchpad == {"deep": [{"a": 1}]}
            spoil([found.scratchpad, found.files])
            assert agents.load_state("t").files == {"f": "text"}


# --- a graph ----------------------------------------------------------------------------------------------------------


class Log(TypedDict):
    log: Annotated[list[str], operator.add]
    note: str


def graph(saver: BaseCheckpointSaver[Any]) -> Any:
    builder = StateGraph(Log)
    for name in "abc":
        builder.add_node(name, lambda state, name=name: {"log": [f"{name} after {len(state['log'])}"], "note": name})
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge("c", END)
    return builder.compile(checkpointer=saver, interrupt_before=["c"])


class InPlace(RedisSaver):
    """What LangGraph 1.2.0 to 1.2.12 do to a loaded checkpoint, whichever LangGraph runs here."""

    def get_tuple(self, config: Any) -> Any:
        found = super().get_tuple(config)
        if found is not None:
            self.given.append(found.checkpoint["channel_versions"])
        return found

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        for versions in self.given:
            versions.update(checkpoint["channel_versions"])
        return super().put(config, checkpoint, metadata, new_versions)

    given: list[Any] = []  # noqa: RUF012 - one for the test


@pytest.mark.parametrize("kind", [RedisSaver, InPlace])
@pytest.mark.parametrize("cache_bytes", [0, 64 * 1024 * 1024])
def test_a_copy_of_a_state_after_an_edit_of_an_older_one_keeps_each_step(
    kind: type[RedisSaver], cache_bytes: int, url: str, prefix: str
) -> None:
    """a -> b -> c, interrupted before c: edit an old state as a, run, copy. The step of b must be in the copy."""
    told = []
    with kind(url, prefix=prefix, cache_bytes=cache_bytes) as saver:
        for each in (saver, InMemorySaver()):
            app, config = graph(each), {"configurable": {"thread_id": "t"}}
            app.invoke({"log": ["in"], "note": ""}, config)
            old = next(state for state in app.get_state_history(config) if state.next == ("b",))
            edited = app.update_state(old.config, {"log": ["edit"], "note": "edit"}, as_node="a")
            app.invoke(None, edited)
            copied = app.update_state(config, None, as_node="__copy__")
            states = [app.get_state(copied).values, app.get_state(config).values]
            states.append(app.invoke(None, config))
            states += [state.values for state in app.get_state_history(config)]
            told.append(states)
        InPlace.given.clear()
    assert "b after" in told[1][0]["log"][-1]
    assert told[0] == told[1]
