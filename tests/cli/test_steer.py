"""Commands that change threads: what they do, what they say first, and that nothing goes without a yes."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from commandline import Lgrs, Result
from langgraph.graph import START, StateGraph
from shapes import at
from storehouse import State, asks, beside, says, sync

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.cli.command import FIELDS
from langgraph_redis_state.storage.keys import ThreadKeys


@pytest.fixture
def mine(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> Any:
    """`lgrs` on a prefix of the test's own, with a thread of five steps and one that asks."""
    builder = StateGraph(State).add_node("a", says("a")).add_node("b", says("b")).add_edge(START, "a").add_edge("a", "b")
    sync(builder, saver, {"log": ["begin"]}, "t")
    sync(beside(asks, says("drafted")), saver, {"log": []}, "asks")

    def call(*arguments: str) -> Result:
        return lgrs("--prefix", prefix, *arguments)

    return call


def log(saver: RedisSaver, thread: str = "t") -> Any:
    found = saver.get_tuple(at(thread))
    return None if found is None else found.checkpoint["channel_values"]["log"]


def test_tag_and_untag(mine: Any, saver: RedisSaver) -> None:
    told = mine("tag", "t@-1", "before", "--json")
    assert list(told.record) == list(FIELDS["tag"])
    assert saver.tags("t") == {"before": told.record["checkpoint_id"]}
    assert mine("untag", "t", "before").code == 3, "no terminal and no --yes"
    assert "--yes" in mine("untag", "t", "before").err
    assert saver.tags("t")
    assert mine("untag", "t", "before", "--dry-run").code == 0
    assert mine("untag", "t", "before", "--yes", "--json").record == {"thread_id": "t", "tag": "before", "done": True}
    assert saver.tags("t") == {}
    missing = mine("untag", "t", "before", "--yes")
    assert missing.code == 4


def test_rollback_forks_by_default_and_loses_nothing(mine: Any, saver: RedisSaver) -> None:
    before = len(list(saver.history("t")))
    told = mine("rollback", "t@-1", "--json")
    assert list(told.record) == list(FIELDS["rollback"])
    assert (told.record["done"], told.record["removed"]) == (True, 0)
    assert len(list(saver.history("t"))) == before + 1
    assert log(saver) == ["begin", "a"]
    assert mine("rollback", "t@-1", "--dry-run").code == 0
    assert len(list(saver.history("t"))) == before + 1
    assert mine("rollback", "t").code == 2, "which checkpoint?"


def test_rollback_truncates_only_with_a_yes_and_says_what_would_go(mine: Any, saver: RedisSaver) -> None:
    saver.tag("t", "end")
    told = mine("rollback", "t@-2", "--truncate")
    assert told.code == 3
    assert "2 checkpoints of t after" in told.err
    assert "with the tags end" in told.err
    assert log(saver) == ["begin", "a", "b"]
    assert mine("rollback", "t@-2", "--truncate", "--yes", "--json").record["removed"] == 2
    assert log(saver) == ["begin"]


def test_a_rolled_back_thread_goes_on_in_a_real_graph(mine: Any, saver: RedisSaver) -> None:
    builder = beside(asks, says("drafted"))
    assert mine("rollback", "asks@-1", "--fork").code == 0
    done = sync(builder, saver, None, "asks")
    assert [each.value for each in done["__interrupt__"]] == ["Shall I pay 653.70 EUR?"]


def test_copy_refuses_a_thread_that_exists(mine: Any, saver: RedisSaver) -> None:
    assert mine("copy", "t", "twin", "--json").record == {"thread_id": "twin", "source": "t"}
    assert log(saver, "twin") == log(saver)
    told = mine("copy", "t", "twin")
    assert told.code == 1
    assert "exists" in told.err


def test_ttl_sets_clears_and_keeps(mine: Any, prefix: str, raw: redis.Redis) -> None:
    key = ThreadKeys(prefix, b"t").hash
    assert mine("ttl", "t", "2h", "--json").record == {"thread_id": "t", "ttl": 7200.0}
    assert 7_190_000 < raw.pttl(key) <= 7_200_000
    assert mine("tag", "t", "x").code == 0
    assert mine("ttl", "t", "never").code == 0
    assert raw.pttl(key) == -1
    assert mine("ttl", "t", "default").code == 0
    assert mine("ttl", "t", "soon").code == 2


def test_prune_keeps_the_newest_and_what_is_tagged(mine: Any, saver: RedisSaver) -> None:
    saver.tag("t", "first", list(saver.history("t"))[-1].checkpoint_id)
    told = mine("prune", "t", "--keep-last", "1")
    assert (told.code, len(list(saver.history("t")))) == (3, 4)
    assert "At most 2 steps of 1 thread would go" in told.err
    record = mine("prune", "t", "--keep-last", "1", "--yes", "--json").record
    assert record == {"thread_id": "t", "checkpoints": 2, "done": True}
    assert len(list(saver.history("t"))) == 2
    assert "nothing to remove" in mine("prune", "t", "--keep-last", "9", "--yes").err
    assert mine("prune", "--keep-last", "1").code == 2
    assert mine("prune", "--all", "--keep-last", "1", "--yes").code == 0


def test_rm_wants_a_yes_and_the_whole_id(mine: Any, saver: RedisSaver) -> None:
    assert mine("rm", "t").code == 3
    assert log(saver) is not None
    assert mine("rm", "ask", "--yes").code == 4, "a beginning is not enough to remove"
    assert mine("rm", "t", "--yes", "--json").record == {"thread_id": "t", "checkpoints": 4, "done": True}
    assert log(saver) is None


def test_rm_of_idle_threads_leaves_those_that_ask(mine: Any, saver: RedisSaver) -> None:
    assert "nothing to remove" in mine("rm", "--idle", "1h", "--yes").err
    told = mine("rm", "--idle", "0s", "--dry-run")
    assert told.code == 0
    assert "1 thread with 4 checkpoints would go" in told.err
    assert "1 idle thread kept: a person is asked there" in told.err
    assert [record["thread_id"] for record in mine("rm", "--idle", "0s", "--yes", "--json").records] == ["t"]
    assert [info.thread_id for info in saver.list_threads()] == ["asks"]
    assert mine("rm", "--idle", "0s", "--asking", "--yes").code == 0
    assert list(saver.list_threads()) == []
    assert mine("rm").code == 2
    assert mine("rm", "t", "--idle", "1d").code == 2
    assert mine("rm", "t", "--begins", "x").code == 2


def test_an_idle_thread_that_comes_back_meanwhile_stays(mine: Any, saver: RedisSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    from langgraph_redis_state.cli.session import Session

    def comes_back(session: Session, what: str, *, yes: bool, dry_run: bool) -> bool:
        saver.put_writes(saver.get_tuple(at("t")).config, [("log", ["x"])], "task")  # type: ignore[union-attr, arg-type]
        return True

    monkeypatch.setattr(Session, "may_change", comes_back)
    import time

    time.sleep(0.25)  # what is idle has to be older than something
    told = mine("rm", "--idle", "0.2s")
    assert told.code == 1
    assert "was written to meanwhile" in told.err
    assert log(saver) is not None


def test_repair_mends_without_asking_and_drops_only_with_a_yes(
    mine: Any, saver: RedisSaver, prefix: str, raw: redis.Redis
) -> None:
    keys = ThreadKeys(prefix, b"t")
    oldest = list(saver.history("t"))[-1].checkpoint_id
    field = b"C\0" + oldest.encode()
    record = raw.hget(keys.hash, field)
    raw.hset(keys.hash, field, record[:-1] + bytes([record[-1] ^ 1]))
    raw.delete(keys.all[1])
    assert mine("verify", "t").code == 3
    assert "next: lgrs --prefix" in mine("verify", "t").err
    assert mine("repair", "t", "--dry-run").code == 3
    assert not raw.exists(keys.all[1])
    told = mine("repair", "t", "--json")
    assert told.code == 3, "what is damaged is left"
    assert [list(each) for each in told.records] == [list(FIELDS["repair"])]
    assert raw.exists(keys.all[1])
    assert mine("repair", "t", "--drop-unreadable").code == 3
    assert raw.hexists(keys.hash, field)
    assert mine("repair", "t", "--drop-unreadable", "--yes").code == 0
    assert mine("verify", "t").code == 0
    assert log(saver) == ["begin", "a", "b"]
