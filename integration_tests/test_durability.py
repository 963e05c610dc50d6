"""Levels of durability where there are replicas and disks: what is acknowledged really is there, what is not is an error, and
who wrote is who asks, on one server, behind Sentinel and in a Cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey
import valkey.asyncio
from conftest import CLUSTER_RIGHTS, DURABILITY_RIGHTS, RIGHTS, TOPOLOGIES_OF, Servers
from redis.crc import key_slot
from servers import HOST, OUTSIDE, Box, Server, answers, clients, free_ports, restricted, running, single, until
from shapes import SyncSurface, at, checkpoint, id_of, ids, metadata, put

from langgraph_redis_state import DurabilityError, Fsync, RedisSaver, Replicas
from langgraph_redis_state.client import confirming
from langgraph_redis_state.storage.keys import ThreadKeys, checkpoint_field

REPLICATED = ("redis:7.0", "redis:8.0", "valkey/valkey:8.1")
both_surfaces = pytest.mark.parametrize("surface", [SyncSurface, lambda saver: saver], ids=["sync", "async"])
levels = pytest.mark.parametrize("level", [Replicas(1), Replicas(2), Replicas("all")], ids=["1", "2", "all"])
Surface = Callable[[RedisSaver], Any]


@dataclass(frozen=True)
class Replicated:
    """A primary and two replicas, nobody who watches over them."""

    url: str
    primary: Any
    replicas: list[Any]
    box: Box

    def signal(self, node: Any, name: str) -> None:
        process = node.info("server")["process_id"] if name == "STOP" else self._stopped.pop(id(node))
        self._stopped[id(node)] = process
        told = self.box.container.get_wrapped_container().exec_run(["sh", "-c", f"kill -{name} {process}"])
        assert told.exit_code == 0, told.output

    _stopped: dict[int, int]

    @contextlib.contextmanager
    def paused(self, *nodes: Any) -> Iterator[None]:
        """They are connected, and answer nothing."""
        for node in nodes:
            self.signal(node, "STOP")
        try:
            yield
        finally:
            for node in nodes:
                self.signal(node, "CONT")

    @contextlib.contextmanager
    def disconnected(self, node: Any) -> Iterator[None]:
        """It is a server of its own for a while."""
        node.replicaof("NO", "ONE")
        try:
            self.until_connected(1)
            yield
        finally:
            node.replicaof(HOST, self.primary.connection_pool.connection_kwargs["port"])
            self.until_connected(2)

    def until_connected(self, count: int) -> None:
        until(lambda: len(self.primary.execute_command("ROLE")[2]) == count, f"the primary has not {count} replicas")


@pytest.fixture(scope="module", params=REPLICATED)
def replicated(request: pytest.FixtureRequest) -> Iterator[Replicated]:
    program = "valkey-server" if request.param.startswith("valkey") else "redis-server"
    ports = free_ports(3)
    primary = ports[0]
    options = "--bind 0.0.0.0 --protected-mode no --save '' --repl-diskless-sync-delay 0"
    lines = [
        f"mkdir /tmp/{port} && cd /tmp/{port} && {program} --port {port} {options} {of} &"
        for port in ports
        for of in [f"--replicaof {HOST} {primary}" if port != primary else ""]
    ]
    with running(request.param, ["sh", "-c", "\n".join([*lines, "wait"])], ports) as box:
        with contextlib.ExitStack() as stack:
            for port in ports:
                answers(port)
            nodes = [stack.enter_context(redis.Redis(port=port, **OUTSIDE)) for port in ports]
            found = Replicated(f"redis://{HOST}:{primary}/0", nodes[0], nodes[1:], box, {})
            found.until_connected(2)
            yield found


def has(node: Any, prefix: str, thread: str, checkpoint_id: str) -> bool:
    return bool(node.hexists(ThreadKeys(prefix, thread.encode()).hash, checkpoint_field(b"", checkpoint_id.encode())))


@dataclass(frozen=True)
class Seen:
    """A command that a client sent."""

    client: str
    name: str
    text: str


@contextlib.contextmanager
def watched(*nodes: Any) -> Iterator[list[Seen]]:
    """What clients sent to these servers, when it is over, one server after the other."""
    sent: list[Seen] = []
    with contextlib.ExitStack() as stack:
        monitors = [stack.enter_context(node.monitor()) for node in nodes]
        yield sent
        for node, monitor in zip(nodes, monitors, strict=True):
            end = f"end-{random.getrandbits(64):x}"
            node.echo(end)
            while (told := monitor.next_command())["command"] != f"ECHO {end}":
                name = told["command"].split(" ", 1)[0].upper()
                if told["client_type"] != "lua" and name in ("EVALSHA", "EVAL", "ROLE", "WAIT", "WAITAOF"):
                    sent.append(Seen(f"{told['client_address']}:{told['client_port']}", name, told["command"]))


def by_client(sent: list[Seen]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for seen in sent:
        found.setdefault(seen.client, []).append(seen.name)
    return found


async def many_puts(saver: RedisSaver, surface: Surface, count: int, workers: int = 8) -> None:
    """Puts on threads of their own, several at once."""
    made = [(at(f"t{n}"), checkpoint({"x": n}), metadata(), {"x": 1}) for n in range(count)]
    if surface is SyncSurface:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda arguments: saver.put(*arguments), made))
    else:
        for n in range(0, count, workers):
            await asyncio.gather(*(saver.aput(*arguments) for arguments in made[n : n + workers]))


# --- replicas ---------------------------------------------------------------------------------------------------------


@levels
@both_surfaces
@pytest.mark.parametrize("protocol", [2, 3])
async def test_what_is_acknowledged_is_on_so_many_replicas(
    replicated: Replicated, prefix: str, surface: Surface, level: Replicas, protocol: int
) -> None:
    replicated.until_connected(2)
    wanted = 2 if level.count == "all" else level.count
    options = {"protocol": protocol}
    async with RedisSaver(replicated.url, prefix=prefix, durability=level, redis_options=options) as saver:
        config = at("t")
        for n in range(20):
            config = await put(surface(saver), config, {"x": [n] * 1000})
            await surface(saver).aput_writes(config, [("x", n)], "task")
            assert sum(has(node, prefix, "t", id_of(config)) for node in replicated.replicas) >= wanted
        assert (await surface(saver).aget_tuple(at("t"))).pending_writes == [("task", "x", 19)]


@both_surfaces
async def test_replicas_that_hang_are_an_error_and_the_checkpoint_is_there(
    replicated: Replicated, prefix: str, surface: Surface
) -> None:
    replicated.until_connected(2)
    lame = replicated.replicas[0]
    async with contextlib.AsyncExitStack() as stack:
        one, two, every = [
            surface(await stack.enter_async_context(RedisSaver(replicated.url, prefix=prefix, durability=Replicas(count, 0.3))))
            for count in (1, 2, "all")
        ]
        for saver in (one, two, every):  # connections with an acknowledged write behind them
            await put(saver, at("warm"))
        made = checkpoint({"x": 1})
        arguments = (at("t"), made, metadata(), {"x": 1})
        with replicated.paused(lame):
            config = await one.aput(*arguments)
            for saver in (two, every):
                for _ in range(2):  # what is there already is not on more replicas for that
                    with pytest.raises(DurabilityError, match="acknowledged by 1 of 2 replicas") as raised:
                        await saver.aput(*arguments)
                    assert made["id"] in str(raised.value)
                with pytest.raises(DurabilityError, match="acknowledged by 1 of 2 replicas"):
                    await saver.aput_writes(config, [("x", 1)], "task")
            assert await ids(every, at("t")) == [made["id"]]
            assert (await every.aget_tuple(config)).pending_writes == [("task", "x", 1)]
            with replicated.paused(replicated.replicas[1]), pytest.raises(DurabilityError, match="0 of 1"):
                await put(one, at("u"))
        for saver in (one, two, every):
            await saver.aput(*arguments)
        assert all(has(node, prefix, "t", made["id"]) for node in replicated.replicas)


@both_surfaces
async def test_a_repeat_on_a_connection_that_never_wrote_is_not_acknowledged_either(
    replicated: Replicated, prefix: str, surface: Surface
) -> None:
    """Since Redis 7.2 WAIT counts from the last write of its connection, so a repeat that wrote nothing would be told yes."""
    replicated.until_connected(2)
    made = checkpoint({"x": 1})
    arguments, config = (at("t"), made, metadata(), {"x": 1}), at("t", "", made["id"])
    with replicated.paused(replicated.replicas[0]):
        for _ in range(3):
            async with RedisSaver(replicated.url, prefix=prefix, durability=Replicas(2, 0.2)) as saver:
                for call in (
                    lambda saver=saver: surface(saver).aput(*arguments),
                    lambda saver=saver: surface(saver).aput_writes(config, [("x", 1)], "task"),
                ):
                    with pytest.raises(DurabilityError, match="acknowledged by 1 of 2"):
                        await call()
                with pytest.raises(DurabilityError, match="acknowledged by 1 of 2"):
                    saver.tag("t", "name")
                with pytest.raises(DurabilityError, match="acknowledged by 1 of 2"):
                    saver.persist("t")
                with pytest.raises(DurabilityError, match="acknowledged by 1 of 2"):
                    saver.delete_thread("gone")


@both_surfaces
async def test_all_does_not_wait_for_a_replica_that_left_and_waits_for_one_that_came(
    replicated: Replicated, prefix: str, surface: Surface
) -> None:
    replicated.until_connected(2)
    async with contextlib.AsyncExitStack() as stack:
        two, every = [
            surface(
                await stack.enter_async_context(RedisSaver(replicated.url, prefix=prefix, durability=Replicas(count, patience)))
            )
            for count, patience in ((2, 0.5), ("all", 3))
        ]
        config = await put(every, at("t"))
        with replicated.disconnected(replicated.replicas[0]):
            for _ in range(3):
                config = await put(every, config)
                assert has(replicated.replicas[1], prefix, "t", id_of(config))
            with pytest.raises(DurabilityError, match="1 of 2"):
                await put(two, config)
        config = await put(every, config)
        assert all(has(node, prefix, "t", id_of(config)) for node in replicated.replicas)
        with replicated.paused(replicated.replicas[0]), pytest.raises(DurabilityError, match="1 of 2"):
            await put(every, config)


async def test_a_cancelled_put_leaves_the_connection_usable(replicated: Replicated, prefix: str) -> None:
    replicated.until_connected(2)
    async with RedisSaver(
        replicated.url, prefix=prefix, durability=Replicas(2, 1), redis_options={"max_connections": 3}
    ) as saver:
        config = await put(saver, at("t"))
        with replicated.paused(replicated.replicas[0]):
            cancelled = 0
            for n in range(10):
                task = asyncio.create_task(put(saver, at(f"t{n}")))
                await asyncio.sleep(0.01 * n)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    cancelled += 1
                except DurabilityError:
                    pass  # redis-py loses a cancellation that comes while it looks at a connection
            assert cancelled >= 5
            assert await ids(saver, at("t")) == [id_of(config)]
        for _ in range(10):
            config = await put(saver, config)
        assert len(await ids(saver, at("t"))) == 11


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["redis:8.0", "valkey/valkey:8.1"])
@pytest.mark.parametrize("fsync", ["always", "everysec"])
@both_surfaces
async def test_what_is_acknowledged_is_on_disk(image: str, fsync: str, prefix: str, surface: Surface) -> None:
    """By the server's own account: a process that is killed leaves what the system still has to write."""
    with single(image, "--save", "", "--appendonly", "yes", "--appendfsync", fsync) as (server, box):
        async with RedisSaver(server.url, prefix=prefix, durability=Fsync()) as saver:
            config = await put(surface(saver), at("t"), {"x": 1})
            config = await put(surface(saver), config, {"x": 2})
            with pytest.raises(DurabilityError, match=r"on its disk and on those of 0 replicas, of 1 and 1"):
                async with RedisSaver(server.url, prefix=prefix, durability=Fsync(replicas=1, timeout=2)) as more:
                    await put(surface(more), at("t"))
            box.kill()
            box.start()
        async with RedisSaver(server.url, prefix=prefix) as saver:
            assert (await surface(saver).aget_tuple(config)).checkpoint["channel_values"] == {"x": 2}
            assert len(await ids(surface(saver), at("t"))) == 3


@pytest.mark.parametrize(
    ("image", "advice"), [("redis:8.0", "turn on appendonly"), ("redis:7.0", "WAITAOF needs Redis 7.2 or Valkey")]
)
@both_surfaces
async def test_a_server_that_cannot_tell_of_its_disk_is_an_error(
    servers: Servers, image: str, advice: str, prefix: str, surface: Surface
) -> None:
    async with RedisSaver(servers.single(image).url, prefix=prefix, durability=Fsync()) as saver:
        with pytest.raises(DurabilityError, match=advice):
            await put(surface(saver), at("t"))
        assert len(await ids(surface(saver), at("t"))) == 1


# --- who writes is who asks -------------------------------------------------------------------------------------------


@pytest.fixture(params=["single", "sentinel", "cluster"])
def topology(request: pytest.FixtureRequest, servers: Servers) -> Server:
    if request.param == "single":
        return servers.single(TOPOLOGIES_OF)
    server = servers.cluster() if request.param == "cluster" else servers.sentinel().server
    for node in server.primaries:
        wanted = 1 if request.param == "cluster" else 2
        until(lambda node=node, wanted=wanted: len(node.execute_command("ROLE")[2]) == wanted, "a replica is missing")
    return server


@pytest.mark.parametrize("given", ["url", "redis-py clients"])
@both_surfaces
async def test_who_writes_is_who_asks_in_one_packet(topology: Server, prefix: str, surface: Surface, given: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        options: dict[str, Any] = {"url": topology.url}
        if given != "url":
            client, async_client = await stack.enter_async_context(clients(topology, prefix))
            options = {"client": client, "async_client": async_client}
        replicas = "single" not in topology.name and topology.name != TOPOLOGIES_OF
        level = Replicas("all", 2) if replicas else Fsync(timeout=2)
        waits = ["ROLE", "WAIT"] if replicas else ["WAITAOF"]
        if not replicas:
            topology.admin.config_set("appendonly", "yes")
            stack.callback(topology.admin.config_set, "appendonly", "no")
            until(lambda: topology.admin.info("persistence")["aof_rewrite_in_progress"] == 0, "the log is not ready")
        saver = await stack.enter_async_context(RedisSaver(**options, prefix=prefix, durability=level))
        await many_puts(saver, surface, 40)  # learns scripts, slots and replicas
        for n in range(40):
            await surface(saver).aget_tuple(at(f"t{n}"))
        with watched(*topology.primaries) as sent:
            await many_puts(saver, surface, 40)
            for n in range(5):
                await surface(saver).aget_tuple(at(f"t{n}"))
        assert sum(seen.name == waits[-1] for seen in sent) == 40
        assert len(by_client(sent)) > 2
        for names in by_client(sent).values():
            writes = names.count(waits[-1])
            reads = names.count("EVALSHA") - writes
            told = " ".join(names)
            assert told.count(" ".join(["EVALSHA", *waits])) == writes
            assert len(names) == writes * (1 + len(waits)) + reads
        assert sum(names.count("EVALSHA") for names in by_client(sent).values()) == 45


class Counting:
    """Passes everything on to a server, and counts the packets from the client. One thread for each connection."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listening = socket.create_server((HOST, 0))
        self.port = self._listening.getsockname()[1]
        self.packets = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection((HOST, self._server))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, count: bool) -> None:
        with contextlib.suppress(OSError), source, sink:
            while received := source.recv(1 << 20):
                self.packets += count
                sink.sendall(received)

    def close(self) -> None:
        self._listening.close()


@levels
@both_surfaces
async def test_a_write_with_its_wait_is_one_packet(
    replicated: Replicated, prefix: str, surface: Surface, level: Replicas
) -> None:
    replicated.until_connected(2)
    counting = Counting(replicated.primary.connection_pool.connection_kwargs["port"])
    with contextlib.closing(counting):
        async with RedisSaver(f"redis://{HOST}:{counting.port}/0", prefix=prefix, durability=level) as saver:
            config = await put(surface(saver), at("t"))
            config = await put(surface(saver), config)
            await surface(saver).aget_tuple(config)
            before = counting.packets
            for _ in range(10):
                config = await put(surface(saver), config)
            assert counting.packets - before == 10
            for _ in range(10):
                await surface(saver).aget_tuple(config)
            assert counting.packets - before == 20


# --- a Cluster that changes -------------------------------------------------------------------------------------------


def move_slot(server: Server, slot: int, target: Any) -> None:
    """As `redis-cli --cluster reshard` does it."""
    names = {id(node): node.execute_command("CLUSTER", "MYID") for node in server.primaries}
    owner = next(node for node in server.primaries if node is not target and slot in slots_of(node))
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[id(owner)])
    owner.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[id(target)])
    port = target.connection_pool.connection_kwargs["port"]
    while found := owner.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
        owner.execute_command("MIGRATE", HOST, port, "", 0, 10_000, "KEYS", *found)
    for node in (target, owner, *(each for each in server.primaries if each not in (target, owner))):
        node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[id(target)])


def slots_of(node: Any) -> set[int]:
    mine = node.connection_pool.connection_kwargs["port"]
    found: set[int] = set()
    for first, last, (_, port, *_), *_ in node.execute_command("CLUSTER SLOTS"):
        if port == mine:
            found |= set(range(first, last + 1))
    return found


@both_surfaces
async def test_a_slot_that_moves_changes_nothing_and_its_new_owner_is_asked(
    servers: Servers, prefix: str, surface: Surface
) -> None:
    server = servers.cluster()
    for node in server.primaries:
        until(lambda node=node: len(node.execute_command("ROLE")[2]) == 1, "a primary has no replica")
    slot = key_slot(ThreadKeys(prefix, b"t").hash)
    home = next(node for node in server.primaries if slot in slots_of(node))
    away = next(node for node in server.primaries if node is not home)
    async with RedisSaver(server.url, prefix=prefix, durability=Replicas(1, 3)) as saver:
        config = await put(surface(saver), at("t"), {"x": 0})
        made = [id_of(config)]
        try:
            for n, target in enumerate((away, home, away, home)):
                move_slot(server, slot, target)
                with watched(*server.primaries) as sent:
                    config = await put(surface(saver), config, {"x": n})
                made.append(id_of(config))
                assert clients_that_wrote_and_waited(server, sent)[id(target)] == 1
                replica = replica_of(server, target)
                assert has(replica, prefix, "t", id_of(config))
        finally:
            if slot not in slots_of(home):
                move_slot(server, slot, home)
        assert await ids(surface(saver), at("t")) == made[::-1]


def clients_that_wrote_and_waited(server: Server, sent: list[Seen]) -> dict[int, int]:
    """How many clients of each primary wrote and waited, on one connection."""
    addresses = {id(node): {told["addr"] for told in node.client_list()} for node in server.primaries}
    found = dict.fromkeys(addresses, 0)
    for client, names in by_client(sent).items():
        for node, known in addresses.items():
            if client in known and "EVALSHA WAIT" in " ".join(names).replace("EVAL WAIT", "EVALSHA WAIT"):
                found[node] += 1
    return found


def replica_of(server: Server, primary: Any) -> Any:
    port = primary.connection_pool.connection_kwargs["port"]
    found = next(node for node in server.replicas if node.info("replication")["master_port"] == port)
    found.readonly()
    return found


@both_surfaces
async def test_cluster_connections_that_are_cut_lose_nothing(servers: Servers, prefix: str, surface: Surface) -> None:
    server = servers.cluster()
    async with RedisSaver(server.url, prefix=prefix, durability=Replicas("all", 3)) as saver:
        config, made = at("t"), []
        for n in range(30):
            for node in server.primaries:
                node.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            config = await put(surface(saver), config, {"x": n})
            made.append(id_of(config))
        assert await ids(surface(saver), at("t")) == made[::-1]


# --- valkey-py --------------------------------------------------------------------------------------------------------


@both_surfaces
async def test_clients_of_valkey_py_do_as_well(topology: Server, prefix: str, surface: Surface) -> None:
    if "sentinel" in topology.name:
        address = topology.primaries[0].connection_pool.connection_kwargs
        client, async_client = valkey.Valkey(HOST, address["port"]), valkey.asyncio.Valkey(host=HOST, port=address["port"])
    elif topology.is_cluster:
        port = topology.primaries[0].connection_pool.connection_kwargs["port"]
        client, async_client = valkey.ValkeyCluster(HOST, port), valkey.asyncio.ValkeyCluster(HOST, port)
    else:
        address = topology.admin.connection_pool.connection_kwargs
        client, async_client = valkey.Valkey(HOST, address["port"]), valkey.asyncio.Valkey(host=HOST, port=address["port"])
    enough = topology.is_cluster or "sentinel" in topology.name
    try:
        async with RedisSaver(client=client, async_client=async_client, prefix=prefix, durability=Replicas(1, 1)) as saver:
            if enough:
                await many_puts(saver, surface, 20)
                assert len(list(saver.list_threads())) == 20
            else:
                with pytest.raises(DurabilityError, match="0 of 1"):
                    await put(surface(saver), at("t"))
    finally:
        client.close()
        await async_client.aclose()


# --- rights -----------------------------------------------------------------------------------------------------------


def test_the_rights_name_the_commands_that_a_level_sends() -> None:
    sent = set(re.findall(r'\("([A-Z]+)"[,)]', Path(confirming.__file__).read_text())) - {"EVAL", "EVALSHA"}
    assert {right.removeprefix("+").upper() for rights in DURABILITY_RIGHTS.values() for right in rights.split()} == sent
    told = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
    for right in {right for rights in DURABILITY_RIGHTS.values() for right in rights.split()}:
        assert f"`{right}`" in told


@pytest.mark.parametrize("level", [Replicas(1, 2), Replicas("all", 2)], ids=["1", "all"])
async def test_a_user_with_the_rights_of_a_level_may_use_it_and_another_is_told(
    servers: Servers, level: Replicas, prefix: str
) -> None:
    for server, more in ((servers.sentinel().server, ""), (servers.cluster(), f" {CLUSTER_RIGHTS}")):
        needed = DURABILITY_RIGHTS['Replicas("all")' if level.count == "all" else "Replicas"]
        able = restricted(server, f"{RIGHTS}{more} {needed}", "able").url_for(f"{prefix}-able")
        unable = restricted(server, RIGHTS + more, "unable").url_for(f"{prefix}-unable")
        async with RedisSaver(able, prefix=f"{prefix}-able", durability=level) as saver:
            await put(SyncSurface(saver), await put(saver, at("t")))
        async with RedisSaver(unable, prefix=f"{prefix}-unable", durability=level) as saver:
            for surface in (SyncSurface(saver), saver):
                with pytest.raises(DurabilityError, match=r"the user needs the right to WAIT( or ROLE)?$"):
                    await put(surface, at("t"))
