"""Fixtures of the tests that need Docker: each server once, when a test first asks for it, and a prefix for each test.

The tests of the package itself (`tests/`) lend what they have: shapes of checkpoints, LangGraph's conformance suite.
"""

from __future__ import annotations

import contextlib
import re
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
    "+hget +hset +hdel +hexists +hkeys +hlen +hmget +hscan "
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

WHOLE = ("redis:6.2-resp2", "valkey/valkey:8.1-resp3", "cluster-resp2", "acl-cluster-resp3")
"""Targets on which `make integration` runs every test: the oldest server, the newest, a Cluster, and a user with few rights."""

EVERYWHERE = (
    *("test_every_method_once", "test_clients_that_the_user_made_do_as_well_and_stay_open"),
    *("test_a_server_that_forgets_the_scripts_at_any_moment_changes_nothing", "test_a_new_connection_is_usable_at_once"),
    *("test_a_large_state_goes_through_staging_and_leaves_nothing_there", "test_a_removal_may_make_the_thread_anew"),
    *("test_versions_tags_differences_and_both_ways_back", "test_states_are_versioned_found_taken_back_and_deleted"),
    *("test_items_are_put_found_listed_and_deleted",),
)
"""Tests that `make integration` runs on every target: each verb, scripts, staging, the bytes of each protocol."""

SOAK = (
    # one image with each surface, the newest with both
    r"test_durability.*\[redis:7\.0-(2-|3-)?async",
    r"test_durability.*\[valkey/valkey:8\.1-(2-|3-)?sync",
    r"so_many_replicas\[redis:8\.0-(2-async|3-sync)",
    r"is_on_disk\[(sync-always-redis|async-always-valkey|sync-everysec-valkey|async-everysec-redis)",
    # each fault with one surface, both surfaces among the faults
    r"changes_no_answer\[(async-SCRIPT FLUSH|sync-FLUSHALL|async-server restart|sync-CLIENT KILL)",
    r"right_answers_or_typed_errors\[(sync|async)-[2-5]",
    r"at_any_byte.*\[(async-repeated|sync-once)-(put|get_tuple)\]",
    r"at_any_byte.*\[(sync-repeated|async-once)-put_writes\]",
    r"cancelled_at_any_await.*\[put of 6 MB-not yet connected",
    r"went_away_is_said_and_the_same_saver.*\[(async-kill|sync-stop)",
    r"wrong_password.*\[(sync-valkey|async-redis:8\.0|sync-redis:6\.2|async-sentinel)",
    r"killed_under_load.*\[redis:7\.0",
    # each fault with the level that must lose nothing, or with one that may lose; each level with some fault
    r"sentinel_replaces\[(primary-(none|all)|primary after its replicas hung-(none|1)|primary and .*-(none|1))\]",
    r"told_to_replace\[(1|all)\]",
    r"cluster_replaces\[(primary-(1|all)|primary after its replica hung-(none|1))\]",
)
"""Parameters that only `make integration-all` and the weekly workflow run, as they have never failed alone."""

OWN_SERVERS = ("test_failover", "test_killed_server", "test_server_away")
"""Modules in which each test starts the servers that it needs."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    soak = re.compile("|".join(SOAK))
    for item in items:
        assert isinstance(item, pytest.Function)
        target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
        elsewhere = target is not None and target not in WHOLE and item.originalname not in EVERYWHERE
        if elsewhere or soak.search(item.nodeid):
            item.add_marker(pytest.mark.soak)
        # workers have servers of their own: what shares one goes to one worker
        if target is not None:
            item.add_marker(pytest.mark.xdist_group(target.partition("-resp")[0].removeprefix("acl-")))
        elif item.module.__name__ not in OWN_SERVERS:
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


def pytest_configure(config: pytest.Config) -> None:
    try:
        DockerClient().client.ping()
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no engine
        pytest.exit(f"The integration tests need a Docker engine, and none answers ({type(error).__name__}).", returncode=3)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told.extend(getattr(node, "workeroutput", {}).get("figures", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = told


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
