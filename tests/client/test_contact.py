"""A URL that does not fit the server: within ten seconds the first call says what is probably wrong and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from shapes import at
from soak import LEVEL, rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client import contact
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import CheckpointerError, ServerRefusedError, ServerUnavailableError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no embedded server on Windows")

SECONDS = 10.0


def program() -> str:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        return shutil.which("redis-server") or str(client.info("server")["executable"])


@contextlib.contextmanager
def started(folder: pathlib.Path, *options: str, config: str = "") -> Iterator[int]:
    """A server on a TCP port of its own."""
    port = 65536
    while port > 55535:  # a node of a Cluster takes the port 10000 above, too
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    (folder / f"{port}.conf").write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{config}\n")
    process = subprocess.Popen(
        [program(), str(folder / f"{port}.conf"), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with redis.Redis(port=port) as client:
            limit = time.monotonic() + SECONDS
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                assert time.monotonic() < limit
                assert process.poll() is None
                time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with started(tmp_path_factory.mktemp("plain"), config='save ""') as port:
        yield port


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory, plain: int) -> Iterator[int]:
    config = f"sentinel monitor main 127.0.0.1 {plain} 1"
    with started(tmp_path_factory.mktemp("sentinel"), "--sentinel", config=config) as port:
        yield port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A node of a Cluster, which has no slots yet."""
    with started(tmp_path_factory.mktemp("cluster"), config='save ""\ncluster-enabled yes') as port:
        yield port


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection is given to `serve`, in a thread."""
    kept: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = server.accept()
                kept.append(line)
                threading.Thread(target=quietly, args=(line,), daemon=True).start()

    def quietly(line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            serve(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for line in kept:
                line.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A key and a certificate that it signed itself, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + pathlib.Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(certificate: pathlib.Path, plain: int) -> Iterator[int]:
    """The plain server behind TLS."""

    def passed_on(here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := here.recv(65536):
                there.sendall(content)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as outer, socket.create_connection(("127.0.0.1", plain)) as inner:
            threading.Thread(target=passed_on, args=(inner, outer), daemon=True).start()
            passed_on(outer, inner)
            inner.shutdown(socket.SHUT_RDWR)

    with listening(serve) as port:
        yield port


@pytest.fixture
def web() -> Iterator[int]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[int]:
    """Takes connections, and never answers."""
    with listening(lambda line: None) as port:
        yield port


@contextlib.contextmanager
def full() -> Iterator[int]:
    """A port that takes no connection more, as behind a firewall that drops packets: its queue is full."""
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            line = waiting.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture
def dropping() -> Iterator[int]:
    with full() as port:
        yield port


def told(url: str, *, is_async: bool, **options: Any) -> tuple[CheckpointerError, float]:
    """The error of the first call, and how long it took."""

    async def call() -> None:
        async with RedisSaver(url, **options) as saver:
            await saver.aget_tuple(at("t"))

    def wait() -> None:
        with RedisSaver(url, **options) as saver:
            saver.get_tuple(at("t"))

    began = time.monotonic()
    with pytest.raises(CheckpointerError) as caught:
        asyncio.run(call()) if is_async else wait()
    return caught.value, time.monotonic() - began


BRIEF = {"socket_timeout": 0.1, "socket_connect_timeout": 0.1}


@pytest.fixture(scope="module", autouse=True)
def patient(plain: int) -> Iterator[list[tuple[str, Any]]]:
    """What the default time-outs lead to, for one server of each kind that lets them pass; they run beside the other tests."""
    with listening(lambda line: None) as silent, full() as dropping, ThreadPoolExecutor() as pool:
        cases = [
            (f"redis://127.0.0.1:{silent}", False, "did not answer in time"),
            (f"rediss://127.0.0.1:{silent}", True, "did not answer in time"),
            (f"redis://127.0.0.1:{dropping}", False, "did not accept a connection in time: a firewall"),
            (f"rediss://127.0.0.1:{plain}", True, "without TLS.*use redis://"),
        ]
        yield [(said, pool.submit(told, url, is_async=is_async)) for url, is_async, said in cases]


CASES = [
    ("rediss://127.0.0.1:{plain}", "plain", "without TLS.*use redis://"),
    ("rediss+cluster://127.0.0.1:{plain}", "plain", "without TLS.*use redis://"),
    ("rediss+sentinel://127.0.0.1:{plain}/main", "plain", "without TLS.*use redis://"),
    ("redis://127.0.0.1:{tls}", "tls", "speaks TLS.*use rediss://"),
    ("redis+cluster://127.0.0.1:{tls}", "tls", "speaks TLS.*use rediss://"),
    ("redis+sentinel://127.0.0.1:{tls}/main", "tls", "speaks TLS.*use rediss://"),
    ("redis+sentinel://127.0.0.1:{plain}/main", "plain", r"a single server, no Sentinel: use redis://"),
    ("redis://127.0.0.1:{sentinel}", "sentinel", r"this is a Sentinel.*redis\+sentinel://"),
    ("redis+cluster://127.0.0.1:{sentinel}", "sentinel", r"this is a Sentinel.*redis\+sentinel://"),
    ("redis+cluster://127.0.0.1:{plain}", "plain", "a single server, no Cluster: use redis://"),
    ("redis://127.0.0.1:{cluster}", "cluster", r"a node of a Cluster: use redis\+cluster://"),
    ("redis+sentinel://127.0.0.1:{cluster}/main", "cluster", r"a node of a Cluster: use redis\+cluster://"),
    ("redis://127.0.0.1:{web}", "web", "an HTTP server answers"),
    ("rediss://127.0.0.1:{web}", "web", "HTTP|closed the connection|without TLS"),
    ("redis://127.0.0.1:{silent}", "silent", "did not answer in time"),
    ("rediss://127.0.0.1:{silent}", "silent", "did not answer in time"),
    ("redis+cluster://127.0.0.1:{silent}", "silent", "did not answer in time"),
    ("redis+sentinel://127.0.0.1:{silent}/main", "silent", "did not answer in time"),
    ("redis://127.0.0.1:{dropping}", "dropping", "did not accept a connection in time: a firewall"),
    ("rediss://127.0.0.1:{dropping}", "dropping", "did not accept a connection in time: a firewall"),
    ("redis+cluster://127.0.0.1:{dropping},127.0.0.1:{dropping}", "dropping", "did not accept a connection in time"),
    ("redis://no-such-host.invalid", "", "the host 'no-such-host.invalid' cannot be resolved"),
    ("redis+sentinel://no-such-host.invalid/main", "", "the host 'no-such-host.invalid' cannot be resolved"),
]


CALLS = [
    pytest.param(
        *(url, server, said, is_async),
        id=f"{url} at {server}-{'async' if is_async else 'sync'}",
        marks=[pytest.mark.soak] if n % 2 == is_async else [],
    )
    for n, (url, server, said) in enumerate(CASES)
    for is_async in (False, True)
]
"""Each case sync or async, in turn, and both with `make soak`."""


@pytest.mark.longer
@pytest.mark.parametrize(("url", "server", "said", "is_async"), CALLS)
def test_the_first_call_says_what_is_wrong_with_the_url(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, url: str, server: str, said: str, is_async: bool
) -> None:
    ports = {server: request.getfixturevalue(server)} if server else {}
    waits = server in ("silent", "dropping") or (url[:6], server) == ("rediss", "plain")
    if waits and not LEVEL:
        monkeypatch.setattr(contact, "LEAST_SECONDS", 0.4)  # as it is, it is waited for below, and by `make soak`
        monkeypatch.setattr(contact, "SECOND_LOOK_SECONDS", 0.4)
    error, took = told(url.format(**ports), is_async=is_async, redis_options=BRIEF if waits else None)
    check(error, said)
    assert took < SECONDS


def check(error: CheckpointerError, said: str) -> None:
    assert isinstance(error, ServerUnavailableError | ServerRefusedError)
    with pytest.raises(CheckpointerError, match=said):
        raise error
    assert "connecting to redis" in str(error)
    assert "layout number" not in str(error)


@pytest.mark.parametrize("is_async", [False, rare(True)], ids=["sync", "async"])
def test_a_unix_socket_that_never_answers_is_told_in_time(tmp_path: pathlib.Path, is_async: bool) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(5)
        error, took = told(f"unix://{tmp_path}/s", is_async=is_async, redis_options=BRIEF)
    assert "did not answer in time" in str(error)
    assert took < SECONDS


def test_a_second_node_that_answers_is_enough(plain: int, silent: int) -> None:
    url = f"redis+cluster://127.0.0.1:{silent},127.0.0.1:{plain}"
    error, _ = told(url, is_async=False, redis_options={**BRIEF, "retry": None})
    assert "did not answer in time" not in str(error)


def test_shorter_time_outs_of_the_caller_make_the_first_look_shorter(silent: int) -> None:
    _, took = told(f"redis://127.0.0.1:{silent}", is_async=False, redis_options={"socket_timeout": 0.2})
    assert took < 4


def test_a_port_where_nothing_listens_is_refused_as_before() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error, took = told(f"redis://127.0.0.1:{free.getsockname()[1]}", is_async=False)
    assert "is the server up, and the URL right?" in str(error)
    assert took < SECONDS


@pytest.mark.parametrize(
    "url",
    [
        *("valkey://127.0.0.1:{plain}/0", "VALKEY://127.0.0.1:{plain}", "Redis://127.0.0.1:{plain}"),
        *("valkey+sentinel://127.0.0.1:{sentinel}/main", "REDIS+Sentinel://127.0.0.1:{sentinel}/main"),
        *("valkeys://127.0.0.1:{tls}", "rediss://127.0.0.1:{tls}", "REDISS://127.0.0.1:{tls}"),
    ],
)
async def test_the_schemes_of_valkey_and_capital_letters_work(
    plain: int, sentinel: int, tls: int, certificate: pathlib.Path, url: str, prefix: str
) -> None:
    options = {"ssl_ca_certs": str(certificate)} if "{tls}" in url else {}
    where = url.format(plain=plain, sentinel=sentinel, tls=tls)
    async with RedisSaver(where, prefix=prefix, redis_options=options) as saver:
        assert await saver.aping()
        assert await saver.aget_tuple(at("t")) is None
        assert await asyncio.to_thread(saver.get_tuple, at("t")) is None
    assert "redis" in repr(saver)


@pytest.mark.parametrize("scheme", ["valkey+cluster", "valkeys+cluster", "VALKEYS+CLUSTER", "valkeys+sentinel"])
def test_the_schemes_of_valkey_are_those_of_redis(scheme: str) -> None:
    path = "/main" if "sentinel" in scheme.lower() else ""
    named = repr(RedisSaver(f"{scheme}://127.0.0.1:1{path}"))
    assert scheme.lower().replace("valkey", "redis") + "://127.0.0.1:1" in named


def test_a_scheme_that_only_begins_like_one_of_valkey_is_unknown() -> None:
    with pytest.raises(ValueError, match="begins with valkeyx://"):
        RedisSaver("valkeyx://127.0.0.1")


def test_a_given_client_is_not_looked_at_before_it_is_used(plain: int, prefix: str) -> None:
    with redis.Redis(port=plain) as client, RedisSaver(client=client, prefix=prefix) as saver:
        before = client.info("stats")["total_connections_received"]
        assert saver.get_tuple(at("t")) is None
        assert client.info("stats")["total_connections_received"] == before


def test_a_server_is_looked_at_once(plain: int, prefix: str) -> None:
    with redis.Redis(port=plain) as client, RedisSaver(f"redis://127.0.0.1:{plain}", prefix=prefix) as saver:
        before = client.info("stats")["total_connections_received"]
        for _ in range(3):
            assert saver.get_tuple(at("t")) is None
        assert client.info("stats")["total_connections_received"] == before + 2


def test_with_the_default_time_outs_it_is_told_in_time(patient: list[tuple[str, Any]]) -> None:
    for said, outcome in patient:
        error, took = outcome.result()
        check(error, said)
        assert 3 < took < SECONDS
