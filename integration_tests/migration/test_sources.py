"""Real graphs run on savers of other packages, and their threads migrate: nothing differs but what is listed here.

Needs the extra `migration` for the savers. See `savers.py` for the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.errors import InvalidUpdateError

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "tests")]

from playing import Play  # noqa: E402
from savers import KINDS, Servers, opened  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

from langgraph_redis_state import RedisSaver  # noqa: E402
from langgraph_redis_state.migrate import amigrate, migrate, specs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # those of other packages

LISTED = dict.fromkeys(["redis-stack", "mongodb"], "order of tasks in delta channel ")
"""These savers give and replay the writes of a checkpoint in orders of their own. LangGraph's order, which the target has, is
that of task paths. `test_some_savers_do_not_order_writes_by_task_path` shows it."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        yield Servers(stack)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "redis-stack-shallow"])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_nothing_differs_but_what_is_listed(servers: Servers, kind: str, name: str) -> None:
    build, script = SCENARIOS[name]
    with opened(kind, servers) as source, RedisSaver(servers.embedded, prefix=f"t-{uuid.uuid4().hex[:8]}") as target:
        # plainredis takes the checkpoint that was stored last for the newest, so a graph that goes back can fail on it
        with contextlib.suppress(*((InvalidUpdateError,) if kind == "plainredis" else ())):
            asyncio.run(script(Play(build, lambda: source, False, "sync")))
        report = migrate(source, target)
        assert report.verified == report.checkpoints > 0
        assert not report.failures
        assert not [each for each in report.differences if not each.what.startswith(LISTED.get(kind, "none"))]
        assert not [loss for loss in report.losses if "parent" in loss]
        assert migrate(source, target).checkpoints == 0


CHECKPOINT: Any = {
    "v": 4,
    "id": "1f061000-0000-6000-8000-000000000000",
    "ts": "2026-01-01T00:00:00+00:00",
    "channel_values": {},
    "channel_versions": {},
    "versions_seen": {},
    "updated_channels": None,
}
BY_PATH = [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
ORDERS = {
    "memory": BY_PATH,
    "redis-stack": [("a", 1), ("b", 1), ("a", 2), ("b", 2)],  # by index, then by task id
    "mongodb": [("a", 1), ("a", 2), ("b", 1), ("b", 2)],  # by task id, then by index
}


@pytest.mark.parametrize("kind", list(ORDERS))
def test_some_savers_do_not_order_writes_by_task_path(servers: Servers, kind: str) -> None:
    with opened(kind, servers) as saver, RedisSaver(servers.embedded, prefix=f"t-{uuid.uuid4().hex[:8]}") as target:
        config = saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, CHECKPOINT, {}, {})
        saver.put_writes(config, [("x", 1), ("x", 2)], "a", "~path 2")
        saver.put_writes(config, [("x", 1), ("x", 2)], "b", "~path 1")
        assert [(task, value) for task, _, value in saver.get_tuple(config).pending_writes] == ORDERS[kind]
        assert migrate(saver, target).ok
        copied = target.get_tuple(config)
        assert copied is not None
        assert [(task, value) for task, _, value in copied.pending_writes or []] == BY_PATH


def test_a_mongodb_saver_is_opened_by_name_and_read_without_listing_it(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("mongodb", servers) as filled, RedisSaver(servers.embedded, prefix=f"t-{uuid.uuid4().hex[:8]}") as target:
        build, script = SCENARIOS["a_chat_of_some_turns"]
        asyncio.run(script(Play(build, lambda: filled, False, "sync")))
        filled.writes_collection.update_many({}, {"$unset": {"task_path": ""}})  # as versions before 0.1.2 stored them
        with contextlib.ExitStack() as stack:
            source = specs.opened(f"mongodb:{filled.db.name}@{servers.mongodb}", stack)
            assert source.db.name == filled.db.name
            monkeypatch.setattr(source, "list", None)  # it would load every state at once
            report = asyncio.run(amigrate(source, target, workers=2))
            assert (report.ok, report.threads) == (True, 2)
            assert report.verified == report.checkpoints == filled.checkpoint_collection.count_documents({})
            assert specs.opened(f"mongodb:{servers.mongodb}", stack).db.name == "checkpointing_db"


def test_a_shallow_saver_gives_the_newest_checkpoint_of_each_namespace(servers: Servers) -> None:
    build, script = SCENARIOS["a_chat_of_some_turns"]
    with opened("redis-stack-shallow", servers) as source:
        with RedisSaver(servers.embedded, prefix=f"t-{uuid.uuid4().hex[:8]}") as target:
            asyncio.run(script(Play(build, lambda: source, False, "exit")))
            report = migrate(source, target)
            assert (report.ok, report.threads, report.checkpoints) == (True, 2, 2)
            for thread in target.list_threads():
                config = {"configurable": {"thread_id": thread.thread_id}}
                assert build(target).get_state(config).values == build(source).get_state(config).values
