"""A connection breaks at every byte of what a put, a put_writes and a get send, and of what the server answers.

The answer is right, or it is an error of this package; what is stored is what was put, once; and the saver works on. Sync
and async, with redis-py's repetitions and without. Each position meets each harm with all four of them in the long run;
else with one of the four, in turn.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest
import redis
from audit import audit
from figures import KEPT_IN, figure
from proxy import Fault, Proxies, Proxy
from redis.backoff import NoBackoff
from redis.retry import Retry
from shapes import SyncSurface, at, checkpoint, listed, metadata, plain

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ServerUnavailableError

HARMS = [
    *(("request", harm) for harm in ("cut", "half-close", "delay", "swallow", "late")),
    *(("reply", harm) for harm in ("cut", "half-close", "delay", "swallow")),
]
SILENT = ("swallow", "late")
"""Only a timeout tells the client of these."""
TIMEOUT = {True: 0.12, False: 10.0}
WORKERS = {True: 48, False: 3}
COMBINATIONS = [("sync", "repeated"), ("async", "repeated"), ("sync", "once"), ("async", "once")]
WRITES = [("channel", "some words that were written " * 2), ("other", 17)]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start() as running:
        yield running


@pytest.fixture(scope="module")
def proxies() -> Iterator[Proxies]:
    with Proxies() as running:
        yield running


class Case:
    """One verb on a thread of its own: prepared, done through the proxy, checked, and if it failed repeated and checked."""

    def __init__(self, verb: str, prefix: str, direct: RedisSaver, raw: Any) -> None:
        self.verb, self._prefix, self._direct, self._raw = verb, prefix, direct, raw

    def _made(self, position: int) -> Any:
        chance = random.Random(position)
        text = " ".join(f"{chance.getrandbits(40):x}" for _ in range(30))
        return checkpoint({"text": text, "list": [text[:200]], "number": 100_000 + position})

    async def run(self, saver: Any, proxy: Proxy, name: str, position: int, direction: Any, harm: str) -> tuple[Fault, str]:
        thread = f"{self.verb} {direction} {harm} {name}"
        made, told = self._made(position), metadata(step=position)
        config = at(thread, "", made["id"])
        if self.verb != "put":
            self._direct.put(at(thread), made, told, made["channel_versions"])
        if self.verb == "get_tuple":
            self._direct.put_writes(config, WRITES, "task")
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "put": lambda: saver.aput(at(thread), made, told, made["channel_versions"]),
            "put_writes": lambda: saver.aput_writes(config, WRITES, "task"),
            "get_tuple": lambda: saver.aget_tuple(at(thread)),
        }
        expected = {
            "config": (thread, "", made["id"]),
            "parent": None,
            "checkpoint": {
                **made,
                **{name: dict(sorted(made[name].items())) for name in ("channel_values", "channel_versions")},
            },
            "metadata": dict(sorted(told.items())),
        }
        after = {**expected, "writes": [] if self.verb == "put" else [("task", *write) for write in WRITES]}
        before = {"put": [], "put_writes": [{**expected, "writes": []}], "get_tuple": [after]}[self.verb]
        fault = proxy.set(direction, position, harm)
        try:
            answer = await verbs[self.verb]()
        except ServerUnavailableError:
            outcome = "error"
        else:
            outcome = "answer"
            if self.verb == "get_tuple":
                assert plain(answer) == after
        if not fault.fired:
            proxy.fault = None  # what follows is not to be harmed
        elif harm == "late":
            proxy.release()
        stored = await self._stored(saver, thread)
        if outcome == "answer":
            assert stored == [after]
        elif stored != before:
            assert stored == [after]
            outcome = "error, though it was done"
        if outcome != "answer":
            await _usable(verbs[self.verb])
            assert await self._stored(saver, thread) == [after]
        counts = audit(self._raw, self._prefix, thread, clean=True)
        assert (counts["versions"], counts["checkpoints"]) == (1, 1)
        assert counts["writes"] == len(after["writes"])
        return fault, outcome

    async def _stored(self, saver: Any, thread: str) -> list[Any]:
        return [plain(found) for found in await _usable(lambda: listed(saver, at(thread, None)))]


class Sweep:
    """One harm, from the first byte of a stream to its last."""

    def __init__(self, case: Case, direction: Any, harm: str, positions: Iterator[int]) -> None:
        self._case, self._direction, self._harm, self._positions = case, direction, harm, positions
        self.ends: list[int] = []
        """Positions that the stream did not reach; their cases differ in length by a few bytes."""
        self.outcomes: Counter[str] = Counter()
        self.reached: list[int] = []

    async def work(self, proxy: Proxy, prefix: str, surface: str, options: Any) -> None:
        async with RedisSaver(proxy.url, prefix=prefix, redis_options=options) as opened:
            saver: Any = opened if surface == "async" else SyncSurface(opened)
            await _usable(lambda: saver.aget_tuple(at("a")))
            while not self.ends:
                position = next(self._positions)
                for attempt in range(3):  # a timeout may strike before the stream comes so far
                    where = f"{position:05} {attempt}"
                    fault, outcome = await self._case.run(saver, proxy, where, position, self._direction, self._harm)
                    if fault.fired:
                        self.outcomes[outcome] += 1
                        self.reached.append(position)
                        break
                else:  # the stream is shorter than that
                    self.ends.append(position)


async def _usable(call: Callable[[], Awaitable[Any]]) -> Any:
    """The saver must work on; on a machine that is busy a short timeout may still strike."""
    for _ in range(20):
        try:
            return await call()
        except ServerUnavailableError as error:
            last = error
    raise last


@pytest.mark.parametrize("verb", ["put", "put_writes", "get_tuple"])
@pytest.mark.parametrize(("surface", "tries"), COMBINATIONS)
async def test_a_connection_that_breaks_at_any_byte_gives_a_right_answer_or_a_typed_error(
    server: EmbeddedServer, proxies: Proxies, prefix: str, verb: str, surface: str, tries: str
) -> None:
    address = unquote(server.url.removeprefix("unix://"))
    combination = COMBINATIONS.index((surface, tries))
    begin, step = (0, 1) if KEPT_IN else (combination, len(COMBINATIONS))
    with RedisSaver(server.url, prefix=prefix) as direct, redis.Redis.from_url(server.url) as raw:
        direct.put(at("a"), checkpoint(), metadata(), {})  # so that the server knows the scripts and the layout
        direct.put_writes(at("a", "", "0"), WRITES, "task")
        direct.get_tuple(at("a"))
        list(direct.list(at("a")))
        case = Case(verb, prefix, direct, raw)
        for direction, harm in HARMS:
            options = {
                "max_connections": 1,
                "health_check_interval": 0,
                "socket_timeout": TIMEOUT[harm in SILENT],
                "retry": Retry(NoBackoff(), 3 if tries == "repeated" else 0),
            }

            sweep = Sweep(case, direction, harm, itertools.count(begin, step))

            def work(sweep: Sweep = sweep, options: Any = options) -> Any:
                return sweep.work(proxies.open(address), prefix, surface, options)

            workers = WORKERS[harm in SILENT and (direction == "request" or verb == "get_tuple")]
            if surface == "async":
                await asyncio.gather(*(work() for _ in range(workers)))
            else:
                with ThreadPoolExecutor(workers) as threads:
                    for done in [threads.submit(lambda: asyncio.run(work())) for _ in range(workers)]:
                        done.result()
            reached, outcomes = sweep.reached, sweep.outcomes
            assert set(range(begin, min(sweep.ends), step)) <= set(reached)
            assert max(reached) - min(sweep.ends) < 40
            assert sum(outcomes.values()) * step > {"request": 300, "reply": 5}[direction]
            if harm == "delay" or (tries == "repeated" and harm not in SILENT):
                assert set(outcomes) == {"answer"}, outcomes
            figure(
                f"stream, {direction}, {harm}, {'sent again by redis-py' if tries == 'repeated' else 'sent once'}",
                verb=verb,
                surface=surface,
                positions=sum(outcomes.values()),
                right_answers=outcomes["answer"],
                typed_errors=outcomes["error"] + outcomes["error, though it was done"],
                of_these_done=outcomes["error, though it was done"],
                wrong=0,
            )
