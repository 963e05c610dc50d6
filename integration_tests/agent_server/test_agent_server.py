"""Threads, runs and what becomes of them, driven over HTTP as an application drives the agent server."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import APP, Started, agent_server, command, environment, free_port
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from langgraph_redis_state import EmbeddedServer


@pytest.fixture
async def client(started: Started) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=started.url, api_key=None) as opened:
        yield opened


async def thread_with(client: LangGraphClient, *texts: str) -> str:
    """A new thread in which a run for each text ended."""
    thread: str = (await client.threads.create())["thread_id"]
    for text in texts:
        await client.runs.wait(thread, "desk", input={"text": text})
    return thread


async def values(client: LangGraphClient, thread: str) -> dict[str, Any]:
    return dict((await client.threads.get_state(thread))["values"])


def stored(started: Started, thread: str) -> int:
    """How many checkpoints the thread has on the Redis server."""
    with started.saver() as saver:
        return len(list(saver.list({"configurable": {"thread_id": thread}})))


async def prune(started: Started, strategy: str, *threads: str) -> None:
    async with httpx.AsyncClient() as http:
        (await http.post(f"{started.url}/prune", json={"thread_ids": threads, "strategy": strategy})).raise_for_status()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.05)


async def test_runs_continue_a_thread_and_allowed_types_come_back(client: LangGraphClient, started: Started) -> None:
    thread = await thread_with(client, "one", "two", "three")
    assert await values(client, thread) == {
        "text": "three",
        "log": ["one", "two", "three"],
        "receipt": {"number": 3},
        "kind": "Receipt",
        "letters": 5,
    }
    with started.saver() as saver:
        key = next(saver.client.scan_iter(match=f"{started.prefix}:*{thread}*", count=10_000))
        assert 86_000 < saver.client.ttl(key) <= 86_400


async def test_the_history_has_every_step_and_an_earlier_one_can_be_continued(client: LangGraphClient) -> None:
    thread = await thread_with(client, "one", "two")
    history = await client.threads.get_history(thread, limit=50)
    assert [each["metadata"]["step"] for each in history] == [6, 5, 4, 3, 2, 1, 0, -1][-len(history) :]
    assert "__lgrs" not in str(history), "what the saver tells itself stays inside"
    first = next(each for each in history if each["next"] == [] and each["values"]["log"] == ["one"])
    assert (await client.threads.get_state(thread, checkpoint=first["checkpoint"]))["values"]["log"] == ["one"]
    await client.runs.wait(thread, "desk", input={"text": "other"}, checkpoint=first["checkpoint"])
    assert (await values(client, thread))["log"] == ["one", "other"]


async def test_an_interrupt_waits_and_is_answered_also_by_another_agent_server(
    client: LangGraphClient, started: Started, tmp_path: Path
) -> None:
    thread = await thread_with(client, "one", "ask")
    state = await client.threads.get_state(thread)
    assert state["next"] == ["note"]
    assert state["tasks"][0]["interrupts"][0]["value"] == "Which one?"
    with agent_server(tmp_path, started.redis, started.prefix) as second:
        async with get_client(url=second.url, api_key=None) as there:
            await there.threads.create(thread_id=thread, graph_id="desk")
            await there.runs.wait(thread, "desk", command={"resume": "this one"})
    assert (await values(client, thread))["log"] == ["one", "this one"]


async def test_a_state_is_updated_from_outside(client: LangGraphClient) -> None:
    thread = await thread_with(client, "one")
    await client.threads.update_state(thread, {"log": ["by hand"]}, as_node="note")
    assert (await values(client, thread))["log"] == ["one", "by hand"]


async def test_a_copy_has_everything_and_goes_its_own_way(client: LangGraphClient, started: Started) -> None:
    thread = await thread_with(client, "one", "two")
    copy: str = (await client.threads.copy(thread))["thread_id"]  # type: ignore[index]
    assert stored(started, copy) == stored(started, thread)
    state = await client.threads.get_state(copy)
    assert state["values"]["log"] == ["one", "two"]
    assert state["metadata"]["thread_id"] == copy
    await client.runs.wait(copy, "desk", input={"text": "three"})
    assert (await values(client, copy))["log"] == ["one", "two", "three"]
    assert (await values(client, thread))["log"] == ["one", "two"]


async def test_a_thread_in_which_nothing_ran_can_be_copied(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    assert (await client.threads.copy(thread))["thread_id"] != thread  # type: ignore[index]


async def test_keep_latest_leaves_one_checkpoint_with_the_whole_state(client: LangGraphClient, started: Started) -> None:
    thread = await thread_with(client, "one", "two", "three")
    await prune(started, "keep_latest", thread)
    with started.saver() as saver:
        assert len(list(saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}))) == 1
    assert (await values(client, thread))["log"] == ["one", "two", "three"]
    await client.runs.wait(thread, "desk", input={"text": "four"})
    assert (await values(client, thread))["log"] == ["one", "two", "three", "four"]


async def test_delete_all_leaves_nothing(client: LangGraphClient, started: Started) -> None:
    one, other = await thread_with(client, "one"), await thread_with(client, "one")
    await prune(started, "delete_all", one)
    assert (stored(started, one), stored(started, other) > 0) == (0, True)


async def test_pruning_over_http_deletes_threads_with_their_checkpoints(client: LangGraphClient, started: Started) -> None:
    one, other = await thread_with(client, "one"), await thread_with(client, "one")
    pruned = await client.threads.prune([one])
    assert pruned["pruned_count"] == 1
    assert (stored(started, one), stored(started, other) > 0) == (0, True)


async def test_a_deleted_thread_is_gone_and_its_id_can_be_used_again(client: LangGraphClient, started: Started) -> None:
    thread = await thread_with(client, "one")
    await client.threads.delete(thread)
    assert stored(started, thread) == 0
    await client.threads.create(thread_id=thread)
    await client.runs.wait(thread, "desk", input={"text": "anew"})
    assert (await values(client, thread))["log"] == ["anew"]


async def under_way(client: LangGraphClient, started: Started, thread: str) -> str:
    """A run that waits in a node, and has stored a checkpoint."""
    before = stored(started, thread)
    run: str = (await client.runs.create(thread, "desk", input={"text": "slow"}))["run_id"]

    async def has_stored() -> bool:
        return stored(started, thread) > before and (await client.runs.get(thread, run))["status"] == "running"

    await until(has_stored)
    return run


async def test_a_cancelled_run_leaves_what_it_stored(client: LangGraphClient, started: Started) -> None:
    thread = await thread_with(client, "one")
    run = await under_way(client, started, thread)
    await client.runs.cancel(thread, run, wait=True, action="interrupt")
    state = await client.threads.get_state(thread)
    assert (state["values"]["log"], state["values"]["text"], state["next"]) == (["one"], "slow", ["note"])
    await client.runs.wait(thread, "desk", input={"text": "two"})
    assert (await values(client, thread))["log"] == ["one", "two"]


@pytest.mark.parametrize("how", ["cancelled", "overtaken"])
async def test_a_run_that_is_rolled_back_leaves_no_trace(client: LangGraphClient, started: Started, how: str) -> None:
    thread = await thread_with(client, "one")
    before = stored(started, thread)
    run = await under_way(client, started, thread)
    if how == "cancelled":
        await client.runs.cancel(thread, run, action="rollback")

        async def is_gone() -> bool:
            return stored(started, thread) == before

        await until(is_gone)
        assert (await values(client, thread))["log"] == ["one"]
    await client.runs.wait(thread, "desk", input={"text": "two"}, multitask_strategy="rollback")
    assert (await values(client, thread))["log"] == ["one", "two"]
    history = await client.threads.get_history(thread, limit=50)
    assert not [each for each in history if each["metadata"].get("run_id") == run]


async def test_the_server_says_nothing_of_missing_methods_or_blocking_calls(client: LangGraphClient, started: Started) -> None:
    await thread_with(client, "one")
    log = started.log.read_text("utf-8", "replace")
    assert "Using custom checkpointer: ServedSaver" in log
    for complaint in ("missing a", "Blocking", "Traceback", "does not support msgpack", "deserialization of"):
        assert complaint not in log


def test_a_wrong_variable_keeps_the_server_from_starting_and_is_named(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    shutil.copytree(APP, tmp_path, dirs_exist_ok=True)
    variables = {"LGRS_URL": redis_server.url, "LGRS_TTL": "a month"}
    done = subprocess.run(
        command(free_port()), cwd=tmp_path, env=environment(variables), capture_output=True, encoding="utf-8", timeout=90
    )
    assert done.returncode != 0
    assert "LGRS_TTL='a month' is no duration" in done.stdout + done.stderr
