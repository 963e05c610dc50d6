"""What the benchmarks say of themselves: percentiles, and the states they store."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.measure import Timing
from benchmarks.servers import Postgres, Proxy
from benchmarks.targets import judge
from benchmarks.why import WHY, why
from benchmarks.workloads import Thread, agent


@pytest.mark.parametrize(("count", "p99"), [(1, 1), (6, 6), (99, 99), (100, 99), (200, 198), (1000, 990)])
def test_the_p99_is_exceeded_by_one_in_a_hundred_and_of_fewer_samples_it_is_the_largest(count: int, p99: int) -> None:
    samples = [float(sample) for sample in range(1, count + 1)]
    assert Timing(samples, samples).summary()["p99_ms"] == p99


def test_every_task_of_a_fan_out_has_a_subgraph_that_names_its_parent() -> None:
    saver = InMemorySaver()
    thread = Thread(saver, "thread")
    thread.play(agent(4))
    found = list(saver.list({"configurable": {"thread_id": "thread"}}))
    roots = [each for each in found if not each.config["configurable"]["checkpoint_ns"]]
    inner = [each for each in found if each.config["configurable"]["checkpoint_ns"]]
    assert len(roots) == 4
    assert len({each.config["configurable"]["checkpoint_ns"] for each in inner}) == len(inner) == 20
    newest = roots[0]
    assert {each.metadata["parents"][""] for each in inner} == {newest.checkpoint["id"]}
    tasks = {task for task, _, _ in newest.pending_writes or ()}
    assert {each.config["configurable"]["checkpoint_ns"] for each in inner} == {f"work:{task}" for task in tasks}
    assert all(newest.checkpoint["id"] < each.checkpoint["id"] for each in inner)


def test_every_reason_is_that_of_a_target_and_says_what_a_run_did_not_measure() -> None:
    targets = [verdict.what for verdict in judge({})]
    for name, reason in WHY.items():
        named = [target for target in targets if target.startswith(name)]
        assert named
        for what in named:
            assert why(what, {}) == reason if isinstance(reason, str) else "did not measure" in why(what, {})
    assert why("a target of tomorrow", {}) == "Not explained yet."


def test_a_postgresql_that_no_proxy_can_stand_before_is_refused() -> None:
    with pytest.raises(SystemExit, match="postgresql://"):
        Postgres("postgresql:///database?host=/run/postgresql")


def test_the_proxy_keeps_user_database_and_options_of_a_url() -> None:
    proxy = Proxy("postgresql://ada:secret@db.example/state?options=-csearch_path%3Dbench")
    proxy.close()
    before, _, after = proxy.url.partition("127.0.0.1:")
    assert before == "postgresql://ada:secret@"
    assert after.partition("/")[2] == "state?options=-csearch_path%3Dbench"
