"""The servers the tests run against, each in containers of its own, and what a test may ask of them.

A `Server` is a way to reach one: the URL and options a user of the package would write, and beside them clients with
all rights, to look at what is stored and to disturb it. Ports inside and outside of a container are the same, so that
a server that is stopped comes back where it was, and nodes of a Cluster and Sentinels name addresses that hold on both
sides.

Nothing here sleeps for a guessed time: a server is ready when it answers PING, a topology when its nodes say so.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.cluster import ClusterNode
from testcontainers.core.container import DockerContainer

HOST = "127.0.0.1"
READY_SECONDS = 60
SERVICE = "state"
USER_PASSWORD = "only-these-commands"
MEMORY_ONLY = ("--save", "", "--appendonly", "no")

# What `redis_options` needs nothing of: a client that looks at the server from outside.
OUTSIDE = {"protocol": 2, "socket_timeout": 30}


def until(holds: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
    """The first true answer of `holds`, asked again and again; an error of the client counts as "not yet"."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = holds()
        except (redis.RedisError, OSError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.02)
    raise TimeoutError(f"{what} after {seconds} s: {last!r}")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. Below 30000: above are those the system gives away, and a Cluster bus is 10000 higher.

    Each worker of a test run has a thousand of its own, so that no two start a server on the same one.
    """
    begin = 20_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 10)
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            port = random.randrange(begin, begin + 1_000)
            probe = socket.socket()
            held.append(probe)
            with contextlib.suppress(OSError):
                probe.bind(("0.0.0.0", port))
                ports.append(port)
    finally:
        for probe in held:
            probe.close()
    return ports


@dataclass(frozen=True)
class Server:
    """One way to reach a server."""

    name: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)
    """`redis_options` of the saver."""
    admin: Any = None
    """A sync client with all rights; a cluster client for a cluster."""
    primaries: Sequence[Any] = ()
    """A plain client for each primary."""
    replicas: Sequence[Any] = ()
    grant: Callable[[str], None] | None = None
    """Makes the user that may use a prefix. The URL has `{prefix}` where the user's name goes."""

    def at(self, name: str, **options: Any) -> Server:
        return replace(self, name=name, options={**self.options, **options})

    def url_for(self, prefix: str) -> str:
        if self.grant is not None:
            self.grant(prefix)
        return self.url.replace("{prefix}", prefix)

    @property
    def is_cluster(self) -> bool:
        return self.url.startswith("redis+cluster")

    def keys(self, prefix: str) -> list[bytes]:
        found = (node.scan_iter(match=f"{prefix}:*", count=10_000) for node in self.primaries)
        return sorted(key for keys in found for key in keys)

    def flush_scripts(self) -> None:
        for node in self.primaries:
            node.script_flush()

    def calls(self) -> dict[str, int]:
        """How often each command ran since the server started, in scripts and outside."""
        total: dict[str, int] = {}
        for node in self.primaries:
            for name, told in node.info("commandstats").items():
                command = name.removeprefix("cmdstat_")
                total[command] = total.get(command, 0) + told["calls"]
        return total

    @contextlib.contextmanager
    def watched(self, prefix: str) -> Iterator[list[str]]:
        """The commands that clients sent with a key of this prefix (what scripts do inside is left out), when it is over."""
        commands: list[str] = []
        with contextlib.ExitStack() as stack:
            monitors = [stack.enter_context(node.monitor()) for node in self.primaries]
            yield commands
            for node, monitor in zip(self.primaries, monitors, strict=True):
                end = f"end-{random.getrandbits(64):x}"
                node.echo(end)
                while (told := monitor.next_command())["command"] != f"ECHO {end}":
                    if told["client_type"] != "lua" and prefix in told["command"]:
                        commands.append(told["command"].split(" ", 1)[0])


@dataclass
class Box:
    """A running container."""

    container: DockerContainer
    ports: list[int]

    def kill(self) -> None:
        """The server dies at once, and whatever it had not written is gone."""
        self.container.get_wrapped_container().kill()

    def stop(self) -> None:
        """The server is asked to end."""
        self.container.get_wrapped_container().stop(timeout=10)

    def start(self) -> None:
        """Starts it again after `kill` or `stop`, on the same ports and with the same files; it answers when this returns."""
        self.container.get_wrapped_container().start()
        for port in self.ports:
            answers(port)


def answers(port: int, **options: Any) -> None:
    with redis.Redis(port=port, **OUTSIDE, **options) as client:
        until(client.ping, f"the server on port {port} does not answer PING")


@contextlib.contextmanager
def running(
    image: str, command: Sequence[str], ports: Sequence[int], environment: dict[str, str] | None = None
) -> Iterator[Box]:
    container = DockerContainer(image).with_command(list(command))
    for port in ports:
        container.with_bind_ports(port, port)
    for name, value in (environment or {}).items():
        container.with_env(name, value)
    with container:
        try:
            yield Box(container, list(ports))
        except BaseException as error:
            out, err = container.get_logs()
            with contextlib.suppress(AttributeError):  # Python 3.10 has no notes
                error.add_note(f"{image} said at last: {(out + err).decode(errors='replace')[-1500:]}")
            raise


@contextlib.contextmanager
def single(image: str, *options: str) -> Iterator[tuple[Server, Box]]:
    """One server, as `docker run` gives it; `options` are those of redis-server."""
    program = "valkey-server" if image.startswith("valkey") else "redis-server"
    (port,) = free_ports(1)
    with running(image, [program, "--port", f"{port}", *(options or MEMORY_ONLY)], [port]) as box:
        answers(port)
        with redis.Redis(port=port, **OUTSIDE) as client:
            yield Server(image, f"redis://{HOST}:{port}/0", admin=client, primaries=[client]), box


def _shell(*lines: str) -> list[str]:
    return ["sh", "-c", "\n".join(lines)]


def _process(port: int, options: str) -> str:
    """Starts one of several servers in a container, each in a folder of its own."""
    open_to_all = "--bind 0.0.0.0 --protected-mode no --save ''"
    return f"mkdir -p /tmp/{port} && cd /tmp/{port} && redis-server --port {port} {open_to_all} {options} &"


@contextlib.contextmanager
def cluster(image: str, spare: int = 0) -> Iterator[tuple[Server, Box]]:
    """Three primaries and three replicas, six processes of one container, and `spare` more primaries without a slot."""
    ports = free_ports(6 + spare)
    options = f"--cluster-enabled yes --cluster-node-timeout 5000 --cluster-announce-ip {HOST}"
    if spare:  # a primary whose last slot goes stays one (Redis 7)
        options += " --cluster-allow-replica-migration no"
    lines = [_process(port, options) for port in ports]
    with running(image, _shell(*lines, "wait"), ports) as box:
        for port in ports:
            answers(port)
        addresses = [f"{HOST}:{port}" for port in ports]
        create = ["redis-cli", "--cluster", "create", *addresses[:6], "--cluster-replicas", "1", "--cluster-yes"]
        told = box.container.get_wrapped_container().exec_run(create)
        assert told.exit_code == 0, told.output.decode()
        with contextlib.ExitStack() as stack:
            nodes = [stack.enter_context(redis.Redis(port=port, **OUTSIDE)) for port in ports]
            for port in ports[6:]:
                nodes[0].execute_command("CLUSTER", "MEET", HOST, port)
            for node in nodes:
                until(lambda node=node: node.cluster("INFO")["cluster_state"] == "ok", "a node sees no whole cluster")
            roles = [node.info("replication") for node in nodes]
            primaries = [node for node, role in zip(nodes, roles, strict=True) if role["role"] == "master"]
            for node in nodes:
                if node not in primaries:
                    until(lambda node=node: node.info("replication")["master_link_status"] == "up", "a replica has no primary")
            for node in nodes:  # each must have heard who is whose replica, or a client that asks it gets half an answer
                until(lambda node=node: str(node.cluster("NODES")).count("slave") == 3, "a node knows too few replicas")
            admin = stack.enter_context(redis.RedisCluster(startup_nodes=[ClusterNode(HOST, ports[0])], **OUTSIDE))
            url = f"redis+cluster://{addresses[0]},{addresses[1]},{addresses[2]}"
            replicas = [node for node in nodes if node not in primaries]
            yield Server(f"cluster of {image}", url, admin=admin, primaries=primaries, replicas=replicas), box


@dataclass(frozen=True)
class Replicated:
    """What Sentinel watches over."""

    server: Server
    box: Box
    replicas: list[str]
    """URLs of the two replicas."""


@contextlib.contextmanager
def sentinel(image: str) -> Iterator[Replicated]:
    """One primary, two replicas, three sentinels: six processes of one container."""
    primary, *replicas = data = free_ports(6)
    replicas, sentinels = replicas[:2], replicas[2:]
    data = data[:3]
    lines = []
    for port in data:
        of = f"--replicaof {HOST} {primary}" if port != primary else ""
        lines.append(_process(port, f"--repl-diskless-sync-delay 0 --replica-announce-ip {HOST} {of}"))
    for port in sentinels:
        conf = f"/tmp/{port}.conf"
        lines += [
            f"cat > {conf} <<END",
            *(f"port {port}", "bind 0.0.0.0", "protected-mode no", f"sentinel announce-ip {HOST}"),
            f"sentinel monitor {SERVICE} {HOST} {primary} 2",
            *(f"sentinel down-after-milliseconds {SERVICE} 5000", f"sentinel failover-timeout {SERVICE} 10000"),
            "END",
            f"redis-server {conf} --sentinel &",
        ]
    with running(image, _shell(*lines, "wait"), [*data, *sentinels]) as box:
        for port in box.ports:
            answers(port)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(redis.Redis(port=primary, **OUTSIDE))
            until(lambda: client.info("replication")["connected_slaves"] == 2, "the primary has not two replicas")
            for port in sentinels:
                node = stack.enter_context(redis.Redis(port=port, **OUTSIDE))
                until(
                    lambda node=node: (
                        (told := node.sentinel_master(SERVICE))["num-slaves"] == 2 and told["num-other-sentinels"] == 2
                    ),
                    "a sentinel does not know the others",
                )
            hosts = ",".join(f"{HOST}:{port}" for port in sentinels)
            server = Server(f"sentinel of {image}", f"redis+sentinel://{hosts}/{SERVICE}/0", admin=client, primaries=[client])
            yield Replicated(server, box, [f"redis://{HOST}:{port}/0" for port in replicas])


def certificates(folder: Path) -> dict[str, Path]:
    """An authority, a certificate of the server for 127.0.0.1, and one of the client, made with openssl."""
    (folder / "ext").write_text(f"subjectAltName=IP:{HOST},DNS:localhost\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority of a test")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name} of a test")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "2", "-extfile", "ext"),
        )
    return {path.name: path for path in folder.iterdir()}


@contextlib.contextmanager
def tls(image: str, folder: Path) -> Iterator[Server]:
    """A server that speaks only TLS and wants a certificate of its clients."""
    made = certificates(folder)
    (port,) = free_ports(1)
    files = ("ca.pem", "server.pem", "server.key")
    lines = [f"printenv {name.replace('.', '_')} > /tmp/{name}" for name in files]
    start = (
        f"exec redis-server --port 0 --tls-port {port} --bind 0.0.0.0 --protected-mode no --save '' --tls-auth-clients yes "
        "--tls-ca-cert-file /tmp/ca.pem --tls-cert-file /tmp/server.pem --tls-key-file /tmp/server.key"
    )
    environment = {name.replace(".", "_"): made[name].read_text() for name in files}
    options = {
        "ssl_ca_certs": str(made["ca.pem"]),
        "ssl_certfile": str(made["client.pem"]),
        "ssl_keyfile": str(made["client.key"]),
    }
    with running(image, _shell(*lines, start), [port], environment):
        answers(port, ssl=True, **options)
        with redis.Redis(port=port, ssl=True, **OUTSIDE, **options) as client:
            yield Server(f"tls of {image}", f"rediss://{HOST}:{port}/0", options, client, [client])


def restricted(server: Server, rule: str, name: str) -> Server:
    """The same server for users that have the rights of `rule` and no others, one user for each prefix."""

    def grant(prefix: str) -> None:
        for node in (*server.primaries, *server.replicas):
            rights = rule.replace("prefix", prefix).split()
            node.execute_command("ACL", "SETUSER", prefix, "reset", "on", f">{USER_PASSWORD}", *rights)

    scheme, _, hosts = server.url.partition("://")
    url = f"{scheme}://{{prefix}}:{USER_PASSWORD}@{hosts}"
    return replace(server, name=name, url=url, grant=grant)


@contextlib.asynccontextmanager
async def clients(server: Server, prefix: str) -> AsyncIterator[tuple[Any, Any]]:
    """A sync and an async client as a user of redis-py makes them, to be injected."""
    async with contextlib.AsyncExitStack() as stack:
        for_sync, for_async = _clients(server, prefix)
        for client in for_sync:
            stack.callback(client.close)
        for client in for_async:
            stack.push_async_callback(client.aclose)
        yield for_sync[0], for_async[0]


def _clients(server: Server, prefix: str) -> tuple[list[Any], list[Any]]:
    """Each list begins with the client itself; then come those that found the server for it."""
    options = {**server.options, **({"ssl": True} if server.url.startswith("rediss") else {})}
    url = server.url_for(prefix)
    scheme, _, rest = url.partition("://")
    login, _, hosts = rest.rpartition("@")
    if login:
        options["username"], _, options["password"] = login.partition(":")
    first = hosts.partition("/")[0].split(",")
    nodes = [(host, int(port)) for host, _, port in (address.partition(":") for address in first)]
    if scheme == "redis+cluster":
        return (
            [redis.RedisCluster(startup_nodes=[ClusterNode(*node) for node in nodes], **options)],
            [redis.asyncio.RedisCluster(startup_nodes=[AsyncClusterNode(*node) for node in nodes], **options)],
        )
    if scheme == "redis+sentinel":
        service = hosts.split("/")[1]
        both = [kind(nodes, sentinel_kwargs={"protocol": 2}) for kind in (redis.Sentinel, redis.asyncio.Sentinel)]
        for_sync, for_async = ([each.master_for(service, **options), *each.sentinels] for each in both)
        return for_sync, for_async
    host, port = nodes[0]
    return [redis.Redis(host, port, **options)], [redis.asyncio.Redis(host=host, port=port, **options)]
