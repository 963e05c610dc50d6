"""A thread of which the server lost its index or its hash: rebuilt, or lost for every verb."""

from __future__ import annotations

from typing import Any

import pytest
from audit import audit, grow, put
from shapes import at, id_of, plain

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointLostError
from langgraph_redis_state.storage.keys import ThreadKeys


@pytest.mark.parametrize("first", ["get", "list", "put", "put_writes", "prune", "delete_for_runs", "copy", "history"])
def test_an_index_that_was_lost_is_rebuilt_by_whatever_comes_first(
    saver: RedisSaver, raw: Any, prefix: str, first: str
) -> None:
    made = grow(saver, "t", 7, 3)
    expected = [plain(found) for found in saver.list(at("t", None))]
    raw.delete(ThreadKeys(prefix, b"t").all[1])
    if first == "get":
        assert plain(saver.get_tuple(at("t"))) == next(each for each in expected if each["config"][1] == "")
    elif first == "put":
        put(saver, made[-1], {"n": 1})
    elif first == "put_writes":
        saver.put_writes(made[0], [("more", 1)], "another")
    elif first == "prune":
        saver.prune(["t"])
    elif first == "delete_for_runs":
        saver.delete_for_runs(["run 0"])
    elif first == "copy":
        saver.copy_thread("t", "copy")
        audit(raw, prefix, "copy", clean=True)
        saver.get_tuple(at("t"))
    elif first == "history":
        saver.get_delta_channel_history(config=made[-1], channels=["messages"])
    else:
        assert [plain(found) for found in saver.list(at("t", None))] == expected
    audit(raw, prefix, "t", clean=True)
    if first in ("get", "list", "history", "copy"):
        assert [plain(found) for found in saver.list(at("t", None))] == expected


def test_a_thread_whose_hash_was_lost_is_lost_for_every_verb(
    saver: RedisSaver, raw: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = grow(saver, "t", 3, 4)
    raw.delete(ThreadKeys(prefix, b"t").hash)
    for verb in (
        lambda: saver.get_tuple(at("t")),
        lambda: saver.get_tuple(made[0]),
        lambda: list(saver.list(at("t"))),
        lambda: list(saver.list(at("t"), filter={"step": 1})),
        lambda: saver.get_delta_channel_history(config=made[-1], channels=["n"]),
        lambda: saver.put_writes(made[-1], [("a", 1)], "task"),
        lambda: put(saver, made[-1], {"n": 1}),
        lambda: saver.prune(["t"]),
        lambda: saver.stats("t"),
        lambda: list(saver.history("t")),
        lambda: saver.rollback("t", id_of(made[0])),
        lambda: saver.set_ttl("t", 60),
    ):
        with pytest.raises(CheckpointLostError, match="'t'"):
            verb()
    put(saver, at("other"), {"n": 1})
    assert [info.thread_id for info in saver.list_threads()] == ["other"]
    assert "thread 't'" in caplog.text
    assert "evicted" in caplog.text
    saver.delete_thread("other")
    fresh = put(saver, at("t"), {"n": "new"})
    assert [id_of(found.config) for found in saver.list(at("t", None))] == [id_of(fresh)]
    audit(raw, prefix, "t", clean=True)


def test_a_thread_whose_hash_was_lost_is_lost_for_a_copy_too(saver: RedisSaver, raw: Any, prefix: str) -> None:
    put(saver, at("t"), {"n": 1})
    raw.delete(ThreadKeys(prefix, b"t").hash)
    with pytest.raises(CheckpointLostError, match="'t'"):
        saver.copy_thread("t", "copy")
