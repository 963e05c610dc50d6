"""Fixtures of the tests that need Docker: each server once, when a test first asks for it, and a prefix for each test.

The tests of the package itself (`tests/`) lend what they have: shapes of checkpoints, LangGraph's conformance suite.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[1:1] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent / "faults")]
pytest.register_assert_rewrite("shapes", "conformance", "exercise", "audit")

from figures import told  # noqa: E402
from servers import Box, Replicated, Server, cluster, restricted, sentinel, single, tls  # noqa: E402
from shapes import SyncSurface  # noqa: E402
from testcontainers.core.docker_client import DockerClient  # noqa: E402

from langgraph_redis_state import RedisSaver  # noqa: E402

IMAGES = ("redis:6.2", "redis:7.0", "redis:8.0", "valkey/valkey:8.1")
TOPOLOGIES_OF = "redis:8.0"

CLUSTER_RIGHTS = "+cluster|slots +command"
RIGHTS = (
    "resetchannels ~prefix:* "
    "+evalsha +eval +ping +get +set +exists +time +pttl +persist +pexpire +pexpireat +rename +unlink "
    "+hget +hset +hdel +hexists +hkeys +hmget +hscan "
    "+zadd +zcard +zlexcount +zrange +zrangebylex +zrangebyscore +zrem +zrevrangebylex +zscan +zscore"
)
"""All that a user of the package needs, as ACL SETUSER takes it; `prefix` is the saver's. Quoted in the documentation.

EVALSHA and EVAL run the package's scripts; the server checks each command in them, and each key, against the same rights.
PING is redis-py's, on connections that were idle. A Cluster's users have CLUSTER_RIGHTS besides, so that the client
learns where the slots are.
"""

LOOKING_RIGHTS = (
    "resetchannels %R~prefix:* +evalsha_ro +eval_ro +ping +get +exists +time +pttl +hget +hmget +hscan "
    "+zcard +zrange +zrangebylex +zrevrangebylex +zscan +zscore +scan"
)
"""All that a user needs whose savers are `read_only`, from Redis 7.0 on. Quoted in the documentation."""

DURABILITY_RIGHTS = {"Replicas": "+wait", 'Replicas("all")': "+wait +role", "Fsync": "+waitaof"}
"""What a user needs besides for a level of durability; servers before 7.2 do not know WAITAOF."""

TARGETS = [
    *(f"{image}-resp{protocol}" for image in IMAGES for protocol in (2, 3)),
    *("noeviction-resp2", "allkeys-lru-resp3", "tls-resp2", "tls-resp3", "acl-redis:6.2-resp2", "acl-redis:8.0-resp3"),
    *("sentinel-resp2", "sentinel-resp3", "cluster-resp2", "cluster-resp3", "acl-cluster-resp3"),
]


def pytest_configure(config: pytest.Config) -> None:
    try:
        DockerClient().client.ping()
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no engine
        pytest.exit(f"The integration tests need a Docker engine, and none answers ({type(error).__name__}).", returncode=3)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if told:
        terminalreporter.section("figures")
        for line in told:
            terminalreporter.write_line(line)


class Servers:
    """Every server of the session. Started when first asked for, ended with the session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._started: dict[str, Any] = {}

    def _once(self, name: str, start: Callable[[], Any]) -> Any:
        if name not in self._started:
            self._started[name] = self._stack.enter_context(start())
        return self._started[name]

    def single(self, image: str, *options: str) -> Server:
        return self._once(" ".join([image, *options]), lambda: single(image, *options))[0]

    def cluster(self) -> Server:
        return self._once("cluster", lambda: cluster(TOPOLOGIES_OF))[0]

    def sentinel(self) -> Replicated:
        return self._once("sentinel", lambda: sentinel(TOPOLOGIES_OF))

    def tls(self) -> Server:
        return self._once("tls", lambda: tls(TOPOLOGIES_OF, self._folder))

    def target(self, name: str) -> Server:
        place, _, protocol = name.rpartition("-resp")
        if place in ("noeviction", "allkeys-lru"):
            server = self.single(TOPOLOGIES_OF, "--save", "", "--maxmemory", "512mb", "--maxmemory-policy", place)
        elif place == "cluster":
            server = self.cluster()
        elif place == "sentinel":
            server = self.sentinel().server
        elif place == "tls":
            server = self.tls()
        elif place == "acl-cluster":
            server = restricted(self.cluster(), f"{RIGHTS} {CLUSTER_RIGHTS}", name)
        elif place.startswith("acl-"):
            server = restricted(self.single(place.removeprefix("acl-")), RIGHTS, name)
        else:
            server = self.single(place)
        return server.at(name, protocol=int(protocol))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    all_of_them = Servers(tmp_path_factory.mktemp("certificates"))
    try:
        yield all_of_them
    finally:
        all_of_them.close()


@pytest.fixture(scope="session", params=TARGETS)
def target(request: pytest.FixtureRequest, servers: Servers) -> Server:
    """A server and a way to reach it; a test that asks for it runs on all of them."""
    return servers.target(request.param)


@pytest.fixture
def prefix() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(target: Server, prefix: str) -> Iterator[Callable[..., RedisSaver]]:
    """Makes savers of the test's prefix on the target, with any option."""
    url = target.url_for(prefix)
    made: list[RedisSaver] = []

    def make_one(**options: Any) -> RedisSaver:
        made.append(RedisSaver(url, prefix=prefix, redis_options=target.options, **options))
        return made[-1]

    yield make_one
    for saver in made:
        saver.close()


@pytest.fixture
def saver(make: Callable[..., RedisSaver]) -> RedisSaver:
    """A saver for sync tests."""
    return make()


@pytest.fixture
async def asaver(target: Server, prefix: str) -> AsyncIterator[RedisSaver]:
    """A saver for async tests, on the same prefix as `saver`."""
    async with RedisSaver(target.url_for(prefix), prefix=prefix, redis_options=target.options) as opened:
        yield opened


@pytest.fixture(params=["sync", "async"])
def either(request: pytest.FixtureRequest, saver: RedisSaver, asaver: RedisSaver) -> Any:
    """A saver whose async methods are its own, or its sync ones: a test that awaits them covers both."""
    return asaver if request.param == "async" else SyncSurface(saver)


# --- of the fault tests


@pytest.fixture
def shared(servers: Servers) -> Server:
    """The server that tests disturb only under their own prefix, or in a way that others survive."""
    return servers.single(TOPOLOGIES_OF)


@pytest.fixture
def own() -> Iterator[tuple[Server, Box]]:
    """A server of the test's own, that keeps on disk what it acknowledged."""
    with single(TOPOLOGIES_OF, "--save", "", "--appendonly", "yes", "--appendfsync", "always") as (server, box):
        yield server, box


@pytest.fixture(params=["sync", "async"])
async def open_on(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens savers of the test's prefix at a URL. The test awaits their methods, which are sync ones every other time."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(url: str, **options: Any) -> Any:
            saver = await stack.enter_async_context(RedisSaver(url, prefix=prefix, **options))
            return saver if request.param == "async" else SyncSurface(saver)

        yield open_one
