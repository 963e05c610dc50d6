"""LangGraph's own contract tests (langgraph-checkpoint-conformance), through the async and through the sync methods."""

from __future__ import annotations

import pytest
from conformance import TESTS_OF, check, names_in_suite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES, Capability, DetectedCapabilities
from shapes import SyncSurface

from langgraph_redis_state import RedisSaver

CONTRACT = (
    *("get_tuple", "list", "put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune"),
    *("get_delta_channel_history", "get_next_version"),
)


@pytest.mark.parametrize("capability", list(Capability), ids=lambda c: c.value)
async def test_async_methods_pass_every_test_of(capability: Capability, asaver: RedisSaver) -> None:
    await check(capability, asaver, lambda saver: saver)


@pytest.mark.parametrize("capability", list(Capability), ids=lambda c: c.value)
async def test_sync_methods_pass_every_test_of(capability: Capability, saver: RedisSaver) -> None:
    await check(capability, saver, SyncSurface)


def test_all_eight_capabilities_are_detected(saver: RedisSaver) -> None:
    assert DetectedCapabilities.from_instance(saver).detected == ALL_CAPABILITIES == set(TESTS_OF)


def test_the_suite_holds_the_eighty_one_tests_it_was_pinned_with() -> None:
    assert {capability: len(names_in_suite(capability)) for capability in Capability} == TESTS_OF
    assert sum(TESTS_OF.values()) == 81


@pytest.mark.parametrize("name", CONTRACT)
def test_the_saver_implements_the_sync_method_itself(name: str) -> None:
    assert getattr(RedisSaver, name) is not getattr(BaseCheckpointSaver, name)


@pytest.mark.parametrize("name", [name for name in CONTRACT if name != "get_next_version"])
def test_the_saver_implements_the_async_method_itself(name: str) -> None:
    assert getattr(RedisSaver, f"a{name}") is not getattr(BaseCheckpointSaver, f"a{name}")
