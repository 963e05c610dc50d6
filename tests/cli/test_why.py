"""why: right for each state that a thread can be in. The threads are made by real graphs (storehouse.py)."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
import redis
from commandline import Lgrs
from langgraph.checkpoint.serde.types import RESUME
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from shapes import at, checkpoint, metadata
from storehouse import State, asks, beside, says, sync

from langgraph_redis_state import CheckpointConflictError, RedisSaver, ThreadTooLargeError

DEAD = ("--alive", "0s")


def states(record: dict[str, Any]) -> dict[str, str]:
    return {task["node"]: task["state"] for task in record["tasks"]}


def test_a_thread_that_asks_shows_the_question_and_what_is_saved_beside_it(lgrs: Lgrs) -> None:
    record = lgrs("why", "asked", "--json").record
    assert record["status"] == "asks"
    assert states(record) == {"work": "asks", "draft": "finished"}
    (question,) = next(task["questions"] for task in record["tasks"] if task["node"] == "work")
    assert question["value"] == "Shall I pay 653.70 EUR?"
    assert record["invoke"]["invoke(Command(resume=answer))"].startswith("runs work from its first line")
    assert "draft" in record["invoke"]["invoke(None)"]
    told = lgrs("why", "asked")
    assert told.code == 0
    assert "Waits for a person: work asked a question" in told.out
    assert "Shall I pay 653.70 EUR?" in told.out
    assert "next: lgrs show asked" in told.err


def test_a_thread_that_failed_shows_the_error_and_which_results_are_saved(lgrs: Lgrs) -> None:
    told = lgrs("why", "failed", "--json")
    assert told.code == 3
    assert states(told.record) == {"work": "failed", "draft": "finished"}
    assert "the printer is on fire" in next(task["error"] for task in told.record["tasks"] if task["error"])
    assert told.record["invoke"]["invoke(None)"].startswith("runs work again")
    assert "work raised an error. The results of draft are saved." in lgrs("why", "failed").out.replace("\n", " ")


def test_a_run_that_was_killed_in_the_middle_shows_who_wrote_and_who_did_not(lgrs: Lgrs) -> None:
    told = lgrs("why", "killed-middle", "--json", *DEAD)
    assert (told.code, told.record["status"]) == (3, "died")
    assert states(told.record) == {"draft": "finished", "work": "nothing stored"}
    assert told.record["sentence"].startswith("Died in the middle of a step: work has not finished")


def test_a_run_that_was_killed_counts_as_running_as_long_as_its_last_write_is_young(lgrs: Lgrs) -> None:
    told = lgrs("why", "killed-middle", "--json", "--alive", "1h")
    assert (told.code, told.record["status"]) == (0, "running")
    assert told.record["sentence"].startswith("Running, or died just now")


def test_a_run_that_stored_nothing_of_its_step_may_also_have_stopped_at_a_breakpoint(lgrs: Lgrs) -> None:
    record = lgrs("why", "killed-start", "--json", *DEAD).record
    assert (record["status"], states(record)) == ("died", {"draft": "nothing stored", "work": "nothing stored"})
    assert "before anything of the step was stored" in record["sentence"]
    assert "interrupt_before" in record["sentence"]


def test_a_run_that_was_killed_between_the_last_write_and_the_checkpoint(lgrs: Lgrs) -> None:
    record = lgrs("why", "killed-last", "--json", *DEAD).record
    assert (record["status"], states(record)) == ("died", {"draft": "finished", "work": "finished"})
    assert "between the last write and the checkpoint" in record["sentence"]
    assert record["invoke"]["invoke(None)"].startswith("runs no node of this step again")


def test_a_run_that_was_killed_after_the_answer_says_that_the_answer_is_stored(lgrs: Lgrs) -> None:
    record = lgrs("why", "killed-answer", "--json", *DEAD).record
    assert (record["status"], states(record)) == ("died", {"work": "answered", "draft": "finished"})
    assert "after the answer" in record["sentence"]
    assert "with the answer that is stored" in record["invoke"]["invoke(None)"]


def test_a_run_that_was_killed_in_a_subgraph_says_where(lgrs: Lgrs) -> None:
    record = lgrs("why", "killed-inside", "--json", *DEAD).record
    assert (record["status"], states(record)) == ("died", {"call": "nothing stored"})
    ((ns, inner),) = record["inside"].items()
    assert ns.startswith("call:")
    assert states(inner) == {"two": "nothing stored"}
    assert "two" in lgrs("why", "killed-inside").out


@pytest.mark.parametrize("thread", ["forked", "called", "chat"])
def test_a_thread_that_finished_has_nothing_left_to_run(lgrs: Lgrs, thread: str) -> None:
    told = lgrs("why", thread, "--json")
    assert (told.code, told.record["status"], told.record["tasks"]) == (0, "done", [])


def test_tasks_of_sends_have_their_nodes_names(lgrs: Lgrs) -> None:
    record = lgrs("why", "sends", "--json").record
    assert [(task["node"], task["state"]) for task in record["tasks"]] == [("work", "asks")] * 2
    assert "invoke(Command(resume={id: answer, ...}))" in record["invoke"]
    ids = [question["id"] for task in record["tasks"] for question in task["questions"]]
    assert len(set(ids)) == 2


def test_a_thread_whose_values_are_damaged_is_still_told_about(lgrs: Lgrs) -> None:
    assert lgrs("why", "damaged", "--json").record["status"] == "done"


def test_a_checkpoint_that_cannot_be_read_is_told_with_the_command_that_looks_closer(
    lgrs: Lgrs, saver: RedisSaver, prefix: str, raw: redis.Redis
) -> None:
    sync(beside(says("a"), says("b")), saver, {"log": []}, "t")
    key = next(raw.scan_iter(f"{prefix}:*:t:t"))
    for field in raw.hkeys(key):
        if field[:1] == b"C":
            raw.hset(key, field, raw.hget(key, field)[:-1] + b"\xff\x01")
    told = lgrs("--prefix", prefix, "why", "t")
    assert told.code == 3
    assert "cannot be read" in told.out
    assert f"next: lgrs --prefix {prefix} verify t" in told.err


def test_what_an_invoke_would_do_is_what_it_does(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> None:
    ran: list[str] = []

    def noted(name: str, then: Any) -> Any:
        def node(state: State) -> State:
            ran.append(name)
            return then(state)

        return node

    builder = beside(noted("work", asks), noted("draft", says("drafted")))
    sync(builder, saver, {"log": ["begin"]}, "t")
    invoke = lgrs("--prefix", prefix, "why", "t", "--json").record["invoke"]
    ran.clear()
    assert (
        invoke["invoke(None)"]
        == "runs work again, which asks again. It uses the saved results of draft, which does not run again."
    )
    sync(builder, saver, None, "t")
    assert ran == ["work"]
    assert "The saved results of draft are dropped." in invoke["invoke(input)"]
    sync(builder, saver, {"log": ["again"]}, "t")
    assert ran.count("draft") == 1, "the graph began anew"
    values = saver.get_tuple(at("t")).checkpoint["channel_values"]  # type: ignore[union-attr]
    assert values["log"] == ["begin", "planned", "again", "planned"], "what was saved beside the first question is dropped"


def test_a_thread_at_its_limit_was_probably_refused(lgrs: Lgrs, url: str, prefix: str) -> None:
    limit = 6000
    with RedisSaver(url, prefix=prefix, max_thread_bytes=limit) as saver:
        noise = "".join(chr(0x4E00 + n * 37 % 5000) for n in range(1500))
        builder = StateGraph(State).add_node("a", says(noise[:700])).add_node("b", says(noise[700:]))
        builder.add_edge(START, "a").add_edge("a", "b")
        for _ in range(20):
            with contextlib.suppress(ThreadTooLargeError):
                sync(builder, saver, {"log": [noise[:50]]}, "t")
    stored = lgrs("--prefix", prefix, "stats", "t", "--json").record["stored_bytes"]
    told = lgrs("--prefix", prefix, "why", "t", "--json", "--max-thread-bytes", str(int(stored * 1.05)), *DEAD)
    assert told.record["refused"] in ("size", "")
    assert (told.record["refused"] == "size") == (told.record["status"] == "died")


def test_a_run_that_lost_against_another_is_told_as_refused(lgrs: Lgrs, url: str, prefix: str) -> None:
    loaded, finished = threading.Event(), threading.Event()

    class Slow(RedisSaver):
        def get_tuple(self, config: Any) -> Any:
            found = super().get_tuple(config)
            loaded.set()
            finished.wait(10)
            return found

    with RedisSaver(url, prefix=prefix, conflict="raise") as saver, Slow(url, prefix=prefix, conflict="raise") as slow:
        builder = beside(asks, says("drafted"))
        sync(builder, saver, {"log": []}, "t")
        errors: list[BaseException] = []

        def second() -> None:
            try:
                sync(builder, slow, Command(resume="no"), "t")
            except CheckpointConflictError as error:
                errors.append(error)

        other = threading.Thread(target=second)
        other.start()
        loaded.wait(10)
        sync(builder, saver, Command(resume="yes"), "t")
        finished.set()
        other.join()
        assert errors
    told = lgrs("--prefix", prefix, "why", "t", "--json")
    assert (told.code, told.record["status"], told.record["refused"]) == (3, "done", "conflict")
    assert any("Its own checkpoint was refused" in note for note in told.record["notes"])


def test_a_write_that_the_next_checkpoint_overtook_is_no_refusal(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> None:
    """With durability "async" the last writes of a task and the checkpoint after it are sent beside each other."""
    made = [checkpoint({"n": n}) for n in range(2)]
    first = saver.put(at("t"), made[0], metadata(), made[0]["channel_versions"])
    saver.put(first, made[1], metadata(), made[1]["channel_versions"])
    saver.put_writes(first, [(RESUME, "yes")], "task", "~__pregel_pull, ask")
    told = lgrs("--prefix", prefix, "why", "t", "--json")
    assert (told.code, told.record["refused"], told.record["notes"]) == (0, "", [])
