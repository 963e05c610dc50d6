"""One logic for sync and async: a flow yields what is to be called and is sent what came back; two drivers call it.

A step is a function without arguments that calls a saver, a connection or a client. The sync driver calls it. The async driver
awaits what it returns. Both make a list of an iterator.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

Step = Callable[[], Any]
Flow = Generator[Step, Any, T]


def perform(flow: Flow[T]) -> T:
    """Runs a flow, blocking."""
    try:
        step = next(flow)
        while True:
            try:
                result = step()
                if isinstance(result, Iterator):
                    result = list(result)
            except Exception as error:  # noqa: BLE001  # raised again where the flow waits
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def aperform(flow: Flow[T]) -> T:
    """Runs a flow, awaiting."""
    try:
        step = next(flow)
        while True:
            try:
                result = step()
                if isinstance(result, AsyncIterator):
                    result = [each async for each in result]
                elif inspect.isawaitable(result):
                    result = await result
                elif isinstance(result, Iterator):
                    result = list(result)
            except Exception as error:  # noqa: BLE001  # raised again where the flow waits
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


def each(flows: Iterable[Flow[T]], workers: int) -> Iterator[T]:
    """The results of flows, as they get ready; so many at a time, each in a thread of its own."""
    if workers == 1:
        yield from map(perform, flows)
        return
    waiting = iter(flows)
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(perform, flow) for flow in islice(waiting, workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                running |= {pool.submit(perform, flow) for flow in islice(waiting, 1)}


async def aeach(flows: Iterable[Flow[T]], workers: int) -> AsyncIterator[T]:
    """The results of flows, as they get ready; so many at a time, on one event loop."""
    waiting = iter(flows)

    def begin() -> set[asyncio.Task[T]]:
        return {asyncio.ensure_future(_awaited(aperform(flow))) for flow in islice(waiting, 1)}

    running: set[asyncio.Task[T]] = set()
    for _ in range(workers):
        running |= begin()
    try:
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
                running |= begin()
    finally:
        for task in running:
            task.cancel()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
