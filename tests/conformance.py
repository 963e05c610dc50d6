"""LangGraph's own contract tests, run on one saver."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.report import ProgressCallbacks
from langgraph.checkpoint.conformance.validate import validate

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
