"""LangGraph's own contract tests (langgraph-checkpoint-conformance), through the async and through the sync methods."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES, Capability, DetectedCapabilities
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.report import ProgressCallbacks
from langgraph.checkpoint.conformance.validate import validate
from shapes import SyncSurface

from langgraph_redis_state import RedisSaver

# What version 0.0.2 of the suite holds. A capability that shrinks must be noticed, not passed.
TESTS_OF = {
    Capability.PUT: 17,
    Capability.PUT_WRITES: 10,
    Capability.GET_TUPLE: 10,
    Capability.LIST: 16,
    Capability.DELETE_THREAD: 5,
    Capability.DELETE_FOR_RUNS: 7,
    Capability.COPY_THREAD: 8,
    Capability.PRUNE: 8,
}

CONTRACT = (
    *("get_tuple", "list", "put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune"),
    *("get_delta_channel_history", "get_next_version"),
)


def names_in_suite(capability: Capability) -> list[str]:
    module = importlib.import_module(f"langgraph.checkpoint.conformance.spec.test_{capability.value}")
    return [test.__name__ for test in getattr(module, f"ALL_{capability.value.upper()}_TESTS")]


async def check(capability: Capability, saver: RedisSaver, surface: Callable[[RedisSaver], Any]) -> None:
    ran: dict[str, str | None] = {}

    async def factory() -> AsyncIterator[Any]:
        yield surface(saver)

    report = await validate(
        RegisteredCheckpointer(name="RedisSaver", factory=factory),
        capabilities={capability.value},
        progress=ProgressCallbacks(on_test_result=lambda _, name, passed, error: ran.update({name: error})),
    )
    result = report.results[capability.value]
    assert result.detected
    failed = {name: error for name, error in ran.items() if error is not None}
    assert not failed, "\n\n".join(f"{name}\n{error}" for name, error in failed.items())
    assert sorted(ran) == sorted(names_in_suite(capability))
    assert (result.passed, result.tests_passed, result.tests_failed) == (True, TESTS_OF[capability], 0)


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
