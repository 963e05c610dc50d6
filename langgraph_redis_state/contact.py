"""The first contact with a server: looks within ten seconds whether what answers there is what the URL says.

redis-py repeats what fails, and its errors tell a time-out from a refusal and nothing else: a `rediss://` URL of a server
without TLS takes it 40 seconds. So before a saver uses a URL for the first time, `Contact.problem` opens one connection of its
own, sends a PING, and says in a sentence what is wrong and what to do. Passwords are not sent. When the first call fails all
the same, `Contact.kind` asks the server for its mode: a Sentinel, a node of a Cluster, or a server by itself.

This module opens sockets, and nothing else does but redis-py. It blocks: the async driver calls it in a thread. It knows
addresses, and neither threads, checkpoints nor redis-py.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

SECONDS = 8.5
"""The first look at all addresses. Other time-outs that the caller sets are kept to."""
SECOND_LOOK_SECONDS = 1.0
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 6.0
HANDSHAKE_SECONDS = 4.0
"""A server without TLS takes the greeting of a client that wants it for half a command, and waits."""
KIND_SECONDS = 3.0

PING = b"*1\r\n$4\r\nPING\r\n"
INFO = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"


class _Problem(Exception):
    """Its text says what is wrong and what to do."""


class Contact:
    """The servers of a URL, of which one has to answer.

    Args:
        nodes: their hosts and ports; none for a unix socket.
        path: of a unix socket.
        topology: redis, unix, sentinel or cluster.
        tls: whether the URL asks for it.
        connect: seconds that the caller's options allow a connection to take; None: they do not say.
        answer: the same for an answer.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[str, int]],
        path: str,
        topology: str,
        tls: bool,
        connect: float | None = None,
        answer: float | None = None,
    ) -> None:
        self._nodes, self._path, self._topology, self._tls = nodes, path, topology, tls
        self._connect, self._answer = connect or CONNECT_SECONDS, answer or ANSWER_SECONDS
        self._seconds = max(SECONDS, connect or 0, answer or 0)
        self.answered = False
        """Whether something answered that speaks as the URL says."""
        self.used = False
        """Whether a command succeeded: what fails from then on is no matter of the URL."""

    def problem(self) -> str | None:
        """What is wrong with all servers of the URL; None if one is as it should be, or if redis-py can tell it better."""
        until = time.monotonic() + self._seconds
        first: str | None = None
        nodes: Sequence[tuple[str, int] | None] = self._nodes or [None]
        for left, node in zip(range(len(nodes), 0, -1), nodes, strict=True):
            try:
                self._look(node, time.monotonic() + (until - time.monotonic()) / left)
            except _Problem as problem:
                first = first or str(problem)
            except OSError:
                continue  # refused at once, and redis-py tells that quickly
            else:
                self.answered = True
                return None
        return first

    def kind(self, error: str) -> str | None:
        """Why the first call may have failed with this error: the server is of another kind than the URL says. None if it is
        not, or if that cannot be found out."""
        until = time.monotonic() + KIND_SECONDS
        wanted = "standalone" if self._topology in ("redis", "unix") else self._topology
        found = "standalone" if re.search("unknown command.*SENTINEL", error, re.IGNORECASE) else wanted
        with contextlib.suppress(_Problem, OSError, EOFError), self._connected(next(iter(self._nodes), None), until) as plain:
            with _with_tls(plain, until) if self._tls else plain as line:
                if mode := re.search(rb"redis_mode:(\w+)", _exchanged(line, INFO, until, b"redis_mode:")):
                    found = mode[1].decode()
        scheme = "rediss" if self._tls else "redis"
        advice = {
            "sentinel": f"this is a Sentinel, which holds no data: use {scheme}+sentinel://host:port/service",
            "cluster": f"this is a node of a Cluster: use {scheme}+cluster://host:port",
            "standalone": f"this is a single server, no {self._topology.capitalize()}: use {scheme}://host:port/db",
        }
        return None if found == wanted else advice.get(found)

    def _look(self, node: tuple[str, int] | None, until: float) -> None:
        """Raises _Problem if redis-py would take long to fail, or fail with words that do not tell why."""
        with self._connected(node, until) as plain:
            try:
                if self._tls:
                    with _with_tls(plain, min(until, time.monotonic() + self._answer)) as line:
                        answer = _exchanged(line, PING, until)
                else:
                    answer = _exchanged(plain, PING, min(until, time.monotonic() + self._answer))
            except (OSError, EOFError) as error:
                self._guess(node, error, until)
                return
        where = "the server" if node is None else f"{node[0]}:{node[1]}"
        if answer[:5] in (b"HTTP/", b"<!DOC", b"<html", b"<HTML"):
            raise _Problem(f"an HTTP server answers at {where}, not Redis; check host and port (Redis has 6379 by default)")
        if answer[:1] not in b"+-:*$_%~>#,(" or not answer:
            raise _Problem(f"{where} is no Redis server, it answers {answer[:20]!r}; check host and port")

    def _guess(self, node: tuple[str, int] | None, error: Exception, until: float) -> None:
        """What a server may be that accepted the connection and did not answer as it should: the other protocol is tried."""
        where = "the server" if node is None else f"{node[0]}:{node[1]}"
        until = time.monotonic() + min(self._answer, SECOND_LOOK_SECONDS)
        other = b""
        with contextlib.suppress(_Problem, OSError, EOFError), self._connected(node, until) as plain:
            if self._tls:
                other = _exchanged(plain, PING, until)
            else:
                with _with_tls(plain, until):
                    other = b"TLS"
        if other[:1] in (b"+", b"-"):
            raise _Problem(f"{where} speaks without TLS, and the URL asks for TLS: use redis:// instead of rediss://")
        if other == b"TLS":
            raise _Problem(f"{where} speaks TLS, and the URL does not: use rediss:// instead of redis://")
        if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError) and "WRONG_VERSION" not in str(error):
            return  # certificates, versions: redis-py has the settings for them, and says what is wrong
        if isinstance(error, TimeoutError):
            raise _Problem(
                f"{where} accepts connections and did not answer in time: is it Redis, is it hung, or is there a proxy in "
                "between that does not reach it?"
            )
        raise _Problem(f"{where} closed the connection without an answer; is it Redis, and may this client connect?")

    def _connected(self, node: tuple[str, int] | None, until: float) -> socket.socket:
        if node is None:
            if not hasattr(socket, "AF_UNIX"):
                raise OSError("no unix sockets")
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            line.settimeout(_left(until))
            try:
                line.connect(self._path)
            except BaseException:
                line.close()
                raise
            return line
        host, port = node
        error: OSError | None = None
        addresses = _addresses(host, port, until)
        until = min(until, time.monotonic() + self._connect)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                return _opened(address, time.monotonic() + (until - time.monotonic()) / left)
            except OSError as refused:
                error = error if isinstance(error, TimeoutError) else refused
        if isinstance(error, TimeoutError):
            raise _Problem(
                f"{host}:{port} did not accept a connection in time: a firewall or security group drops what is sent there, or "
                "the host is not up; check host, port and network"
            ) from error
        raise error or OSError("no address")


def _opened(address: Any, until: float) -> socket.socket:
    family, kind, protocol, _, place = address
    line = socket.socket(family, kind, protocol)
    try:
        line.settimeout(_left(until))
        line.connect(place)
    except BaseException:
        line.close()
        raise
    return line


def _addresses(host: str, port: int, until: float) -> list[Any]:
    """The addresses of a host. Resolvers know no time-out, so this waits for a thread."""
    found: list[Any] = []
    wrong: list[OSError] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            wrong.append(error)
        except UnicodeError:  # a label that is too long
            wrong.append(OSError("not a host name"))

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_left(until))
    if found:
        return found
    why = str(wrong[0]) if wrong else "no answer from the resolver"
    raise _Problem(f"the host {host!r} cannot be resolved ({why}); check its spelling, and DNS where this program runs")


def _with_tls(plain: socket.socket, until: float) -> ssl.SSLSocket:
    """TLS, whoever the server says it is: nothing secret is sent, and redis-py checks certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain.settimeout(min(_left(until), HANDSHAKE_SECONDS))
    return context.wrap_socket(plain)


def _exchanged(line: socket.socket, command: bytes, until: float, upto: bytes = b"") -> bytes:
    """What comes back first; with `upto`, so much that this stands in it and a line more."""
    line.settimeout(_left(until))
    line.sendall(command)
    answer = b""
    while upto not in answer or b"\n" not in answer.partition(upto)[2] if upto else not answer:
        line.settimeout(_left(until))
        more = line.recv(4096)
        if not more:
            if answer:
                break
            raise EOFError
        answer += more
        if answer[:1] == b"-":
            break
    return answer


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.05)
