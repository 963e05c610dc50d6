"""`AgentCheckpointer`: the last state of each agent thread, exchanged as JSON."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, messages_to_dict
from soak import times

from langgraph_redis_state import (
    AgentCheckpointer,
    AgentStateSnapshot,
    CheckpointerError,
    SerializationError,
    TodoItem,
    TodoStatus,
)
from langgraph_redis_state.storage.keys import ThreadKeys


@pytest.fixture
def namespace() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def agents(url: str, namespace: str) -> Iterator[AgentCheckpointer]:
    with AgentCheckpointer(url, namespace=namespace) as opened:
        yield opened


def sample_state() -> AgentStateSnapshot:
    """That of the tests of agents-persistence."""
    state = AgentStateSnapshot()
    state.todos.append(TodoItem.pending("Test todo"))
    state.files["test.txt"] = "content"
    state.scratchpad["key"] = "value"
    return state


# --- what the original describes


def test_save_load_delete(agents: AgentCheckpointer) -> None:
    agents.save_state("test-thread", sample_state())
    loaded = agents.load_state("test-thread")
    assert loaded is not None
    assert len(loaded.todos) == 1
    assert loaded.files["test.txt"] == "content"
    assert loaded == sample_state()
    agents.delete_thread("test-thread")
    assert agents.load_state("test-thread") is None
    agents.delete_thread("test-thread")


def test_list_threads(agents: AgentCheckpointer) -> None:
    assert agents.list_threads() == []
    agents.save_state("thread1", sample_state())
    agents.save_state("thread2", sample_state())
    assert sorted(agents.list_threads()) == ["thread1", "thread2"]
    agents.delete_thread("thread1")
    assert agents.list_threads() == ["thread2"]


def test_the_builder(url: str, namespace: str) -> None:
    with AgentCheckpointer.builder().url(url).namespace(namespace).ttl(timedelta(days=1)).build() as agents:
        agents.save_state("t", sample_state())
        _, metadata = agents._states.load_with_metadata("t")  # type: ignore[misc]
        assert 86000 < metadata.ttl_seconds <= 86400
    with AgentCheckpointer.builder().url(url).namespace(namespace).options(max_versions=3).build() as agents:
        assert agents.list_threads() == ["t"]


def test_a_builder_without_url_says_so() -> None:
    with pytest.raises(ValueError, match="no url"):
        AgentCheckpointer.builder().namespace("myapp").build()


async def test_async_twins(url: str, namespace: str) -> None:
    async with AgentCheckpointer(url, namespace=namespace, ttl=60) as agents:
        await agents.asave_state("t", sample_state())
        assert await agents.aload_state("t") == sample_state()
        assert await agents.alist_threads() == ["t"]
        await agents.adelete_thread("t")
        assert await agents.aload_state("t") is None
        assert await agents.aping()


def test_every_method_has_an_async_twin() -> None:
    for name in ("save_state", "load_state", "delete_thread", "list_threads", "ping", "close"):
        assert callable(getattr(AgentCheckpointer, name))
        assert callable(getattr(AgentCheckpointer, f"a{name}"))


def test_statuses() -> None:
    assert [TodoItem.pending("a").status, TodoItem.in_progress("a").status, TodoItem.completed("a").status] == list(TodoStatus)
    assert [status.value for status in TodoStatus] == ["pending", "in_progress", "completed"]


# --- JSON


def test_json_of_the_rust_crate_is_read_and_written_as_it_is() -> None:
    """What serde makes of agents_core::state::AgentStateSnapshot, an interrupt pending."""
    text = json.dumps(
        {
            "todos": [{"content": "task1", "status": "in_progress"}],
            "files": {"a.txt": "x"},
            "scratchpad": {"k": [1, 2.5, None, True]},
            "pending_interrupts": [{"type": "HumanInLoop", "tool_name": "test_tool"}],
        }
    )
    snapshot = AgentStateSnapshot.from_json(text)
    assert snapshot.todos == [TodoItem.in_progress("task1")]
    assert snapshot.extra["pending_interrupts"][0]["tool_name"] == "test_tool"
    assert json.loads(snapshot.to_json()) == json.loads(text)


def test_extra_fields_are_kept_through_the_server(agents: AgentCheckpointer) -> None:
    state = sample_state()
    state.todos[0].extra["owner"] = "me"
    state.extra["pending_interrupts"] = [{"id": 1}]
    state.messages = messages_to_dict([HumanMessage("hi", id="1")])
    agents.save_state("t", state)
    assert agents.load_state("t") == state


def test_a_dict_is_a_state_too(agents: AgentCheckpointer) -> None:
    agents.save_state("t", {"todos": [{"content": "a", "status": "completed"}], "files": {}, "scratchpad": {}, "more": 1})
    assert agents.load_state("t") == AgentStateSnapshot(todos=[TodoItem.completed("a")], extra={"more": 1})


class Dated(TodoItem):
    """With fields of its own, which nothing here would keep."""


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.scratchpad.update(when={"at": [1, datetime(2025, 1, 1)]}), r"scratchpad\['when'\]\['at'\]\[1\].*datetime"),
        (lambda s: s.files.update({"a.bin": b"x"}), r"files\['a.bin'\].*bytes"),
        (lambda s: s.scratchpad.update(x=float("nan")), r"scratchpad\['x'\].*nan"),
        (lambda s: s.scratchpad.update(x=2**70), r"scratchpad\['x'\].*64 bits"),
        (lambda s: s.scratchpad.update(x={1: 2}), r"scratchpad\['x'\].*int"),
        (lambda s: s.scratchpad.update(x={1, 2}), r"scratchpad\['x'\].*set"),
        (lambda s: s.scratchpad.update(x="\ud800"), r"scratchpad\['x'\].*surrogate"),
        (lambda s: s.messages.append(HumanMessage("hi")), r"messages\[0\].*HumanMessage"),
        (lambda s: s.extra.update(other=object()), r"other.*object"),
        (lambda s: s.extra.update(files={}), r"extra.*'files'"),
        (lambda s: s.extra.update({5: 1}), "extra.*names"),
        (lambda s: setattr(s, "extra", None), "extra.*None"),
        (lambda s: setattr(s, "todos", None), "todos.*array.*None"),
        (lambda s: setattr(s, "todos", [{"status": "pending"}]), r"todos\[0\].*content"),
        (lambda s: setattr(s, "todos", [{"content": "a", "status": "lost"}]), r"todos\[0\].*lost.*in_progress"),
        (lambda s: s.todos.append(TodoItem("a", status="done")), r"todos\[\d\].*done.*in_progress"),
        (lambda s: s.todos.insert(0, TodoItem(5)), r"todos\[0\].*text"),
        (lambda s: s.todos.insert(0, TodoItem("a", extra={"content": "b"})), r"todos\[0\].*'content'"),
        (lambda s: s.todos.insert(0, TodoItem("a", extra=None)), r"todos\[0\].*extra"),
        (lambda s: setattr(s, "files", None), "files.*object.*None"),
        (lambda s: s.scratchpad.update(x=10**400), r"scratchpad\['x'\].*64 bits"),
        (lambda s: setattr(s, "todos", [nested(5_000)]), r"todos\[0\].*content"),
        (lambda s: s.todos.insert(0, Dated("a")), r"todos\[0\].*Dated"),
        (lambda s: s.files.update(f=5), r"files\['f'\].*text.*5"),
        (lambda s: setattr(s, "scratchpad", [1]), "scratchpad.*object"),
        (lambda s: setattr(s, "messages", "hi"), "messages.*array"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_field(agents: AgentCheckpointer, change: Any, field: str) -> None:
    agents.save_state("t", sample_state())
    state = sample_state()
    change(state)
    with pytest.raises(SerializationError, match=rf"'t'.*{field}.*nothing was written"):
        agents.save_state("t", state)
    assert agents.load_state("t") == sample_state()


def test_what_something_else_saved_is_an_error_that_names_the_thread(agents: AgentCheckpointer) -> None:
    agents._states.save_with_metadata({"files": 5}, "t")
    with pytest.raises(SerializationError, match=r"'t'.*files.*object"):
        agents.load_state("t")


def test_a_state_that_contains_itself_is_refused(agents: AgentCheckpointer) -> None:
    state = sample_state()
    state.scratchpad["me"] = state.scratchpad
    with pytest.raises(SerializationError, match=r"'t'.*contains itself"):
        agents.save_state("t", state)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"todos": {}}', '{"todos": [1]}', '{"files": null}'])
def test_text_that_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(SerializationError):
        AgentStateSnapshot.from_json(text)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=times(20, 60))
@given(
    scratchpad=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain, max_size=4),
    messages=st.lists(plain, max_size=3),
)
def test_any_json_comes_back_from_json_and_from_the_server(
    server: Any, scratchpad: dict[str, Any], messages: list[Any]
) -> None:
    state = AgentStateSnapshot(scratchpad=scratchpad, messages=messages)
    assert AgentStateSnapshot.from_json(state.to_json()) == state
    with AgentCheckpointer(server.url, namespace=f"h-{uuid.uuid4().hex[:8]}") as agents:
        agents.save_state("t", state)
        assert agents.load_state("t") == state


# --- where it is kept


def test_namespaces_never_see_each_other(url: str, namespace: str) -> None:
    with AgentCheckpointer(url, namespace=namespace) as one, AgentCheckpointer(url, namespace=f"{namespace}:x") as other:
        one.save_state("t", sample_state())
        other.save_state("t", AgentStateSnapshot())
        other.save_state("u", AgentStateSnapshot())
        assert one.list_threads() == ["t"]
        assert one.load_state("t") == sample_state()
        assert one.load_state("u") is None
        other.delete_thread("t")
        assert one.load_state("t") == sample_state()


@pytest.mark.parametrize("namespace", ["", "a{b", "a}b", "a\0b", None])
def test_a_namespace_that_cannot_be_is_refused(url: str, namespace: Any) -> None:
    with pytest.raises(ValueError, match=r"namespace|prefix"):
        AgentCheckpointer(url, namespace=namespace)


def test_only_the_last_state_is_kept_and_nothing_of_the_others(agents: AgentCheckpointer, url: str) -> None:
    keys = ThreadKeys(agents._states._engine.settings.prefix, b"t")
    with redis.Redis.from_url(url) as client:
        for n in range(20):
            agents.save_state("t", AgentStateSnapshot(files={"f": f"{n} " * 1000}))
            assert len(agents._states.list_versions("t")) == 1
            assert sorted(name[:1] for name in client.hkeys(keys.hash)) == [b"C", b"D", b"D", b"S"]


def test_more_states_are_kept_if_told_so(url: str, namespace: str) -> None:
    with AgentCheckpointer(url, namespace=namespace, max_versions=3) as agents:
        for n in range(5):
            agents.save_state("t", AgentStateSnapshot(scratchpad={"n": n}))
        assert [each.version for each in agents._states.list_versions("t")] == [3, 4, 5]
        assert agents.load_state("t") == AgentStateSnapshot(scratchpad={"n": 4})


def test_expired_threads_are_not_listed(url: str, namespace: str) -> None:
    with AgentCheckpointer(url, namespace=namespace, ttl=0.4) as agents, redis.Redis.from_url(url) as client:
        agents.save_state("t", sample_state())
        assert agents.list_threads() == ["t"]
        keys = ThreadKeys(agents._states._engine.settings.prefix, b"t")
        while client.exists(keys.hash):
            time.sleep(0.01)
        assert agents.list_threads() == []
        assert agents.load_state("t") is None


def test_concurrent_savers_leave_one_whole_state(url: str, namespace: str) -> None:
    errors: list[BaseException] = []
    with AgentCheckpointer(url, namespace=namespace) as agents:

        def save(who: int) -> None:
            try:
                for n in range(15):
                    agents.save_state(
                        "t", AgentStateSnapshot(files={"a": f"{who}" * 3000, "b": f"{who}" * 3000}, scratchpad={"n": n})
                    )
                    seen = agents.load_state("t")
                    assert seen is not None
                    assert seen.files["a"] == seen.files["b"]
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=save, args=(who,)) for who in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert [each.version for each in agents._states.list_versions("t")] == [90]


def test_a_flipped_byte_is_an_error_and_no_empty_state(url: str, namespace: str) -> None:
    with AgentCheckpointer(url, namespace=namespace, cache_bytes=0) as agents, redis.Redis.from_url(url) as client:
        agents.save_state("t", AgentStateSnapshot(files={"f": "some text " * 200}))
        keys = ThreadKeys(agents._states._engine.settings.prefix, b"t")
        for name, content in client.hgetall(keys.hash).items():
            if name[:1] in b"CD":
                client.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))
                with pytest.raises(CheckpointerError):
                    agents.load_state("t")
                client.hset(keys.hash, name, content)
        assert agents.load_state("t") is not None
