"""The first contact with a server: checks within ten seconds whether the URL fits the server that answers.

redis-py repeats failed attempts, and its errors only distinguish a timeout from a refusal: it takes 40 seconds to fail on a
`rediss://` URL of a server without TLS. So before a saver uses a URL for the first time, `Contact.problem` opens its own
connection, sends a PING, and says what is wrong and what to do. It sends no password. If the first call still fails,
`Contact.kind` asks the server for its mode: a Sentinel, a node of a Cluster, or a single server.

Only redis-py and this module open sockets. The functions block: the async driver calls them in a thread.
"""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
import threading
import time
from typing import Any

from .url import ServerAddress

SECONDS = 8.5
"""Time limit for the first look at all addresses. Longer timeouts of the caller raise it."""

SECOND_LOOK_SECONDS = 1.0

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 6.0

LEAST_SECONDS = 1.0
"""The shortest timeout, also if the caller's are shorter: a server may be busy for a moment."""

HANDSHAKE_SECONDS = 4.0
"""A server without TLS reads the TLS greeting as an incomplete command, and waits for the rest."""

KIND_SECONDS = 3.0

PING = b"*1\r\n$4\r\nPING\r\n"

INFO = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"

MODE = rb"(?:redis|server)_mode:(\w+)\s"
"""Valkey 8 and newer say `server_mode`."""

_Host = tuple[str, int] | None
"""Host and port; None for a unix socket."""


class _Problem(Exception):
    """Its text says what is wrong and what to do."""


class Contact:
    """The servers of a URL, one of which must answer. `connect` and `answer` are the caller's timeouts (seconds), if any."""

    def __init__(self, target: ServerAddress, connect: float | None, answer: float | None) -> None:
        self._target = target
        # redis-py tries again after a short timeout, and this look does not
        self._connect_seconds = max(connect or CONNECT_SECONDS, LEAST_SECONDS)
        self._answer_seconds = max(answer or ANSWER_SECONDS, LEAST_SECONDS)
        self._seconds = max(SECONDS, connect or 0, answer or 0)
        self.answered = False
        """Whether a server answered as the URL expects."""

    def problem(self) -> str | None:
        """What is wrong with all servers of the URL. None if one answers as it should, or if redis-py explains it better."""
        until = time.monotonic() + self._seconds
        hosts: tuple[_Host, ...] = self._target.nodes or (None,)
        outcomes: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for host in hosts:  # in parallel: a server that hangs costs no time if another one answers
            threading.Thread(target=lambda host=host: outcomes.put(self._outcome(host, until)), daemon=True).start()
        first = ""
        for _ in hosts:
            outcome = outcomes.get()
            if outcome is None:
                self.answered = True
                return None
            first = first or outcome
        return first or None

    def _outcome(self, host: _Host, until: float) -> str | None:
        """What is wrong with a server. None if nothing is, "" if redis-py fails quickly with an error that explains it."""
        try:
            self._look(host, until)
        except _Problem as problem:
            return str(problem)
        except OSError:
            return ""
        return None

    def kind(self, error: str) -> str | None:
        """Why the first call may have failed with this error: the server is of another kind than the URL says. None if it is of
        that kind, or if that cannot be determined."""
        until = time.monotonic() + min(KIND_SECONDS, self._answer_seconds)
        topology = self._target.topology
        wanted = topology if topology in ("sentinel", "cluster") else "standalone"
        found = "standalone" if re.search("unknown command.*SENTINEL", error, re.IGNORECASE) else wanted
        with contextlib.suppress(_Problem, OSError):
            line = self._connect(next(iter(self._target.nodes), None), until)
            with _with_tls(line, until) if self._target.tls else line as line:
                if mode := re.search(MODE, _ask(line, INFO, until, MODE)):
                    found = mode[1].decode()
        scheme = "rediss" if self._target.tls else "redis"
        advice = {
            "sentinel": f"this is a Sentinel, which holds no data: use {scheme}+sentinel://host:port/service",
            "cluster": f"this is a node of a Cluster: use {scheme}+cluster://host:port",
            "standalone": f"this is a single server, no {topology.capitalize()}: use {scheme}://host:port/db",
        }
        return None if found == wanted else advice.get(found)

    def _look(self, host: _Host, until: float) -> None:
        """Raises _Problem if redis-py would take long to fail, or fail with an error that does not explain why."""
        where = "the server" if host is None else f"{host[0]}:{host[1]}"
        line = self._connect(host, until)
        until = min(until, time.monotonic() + self._answer_seconds)
        try:
            with _with_tls(line, until) if self._target.tls else line as line:
                answer = _ask(line, PING, until)
        except OSError as error:
            self._guess(host, where, error)
            return
        if answer[:5] in (b"HTTP/", b"<!DOC", b"<html", b"<HTML"):
            raise _Problem(f"an HTTP server answers at {where}, not Redis; check host and port (Redis has 6379 by default)")
        if answer[:1] not in (b"+", b"-", b"$"):
            raise _Problem(f"{where} is no Redis server, it answers {answer[:20]!r}; check host and port")

    def _guess(self, host: _Host, where: str, error: OSError) -> None:
        """Tries the other protocol (TLS or not) on a server that accepted the connection and did not answer as it should."""
        until = time.monotonic() + min(self._answer_seconds, SECOND_LOOK_SECONDS)
        answer = b""
        with contextlib.suppress(_Problem, OSError):
            line = self._connect(host, until)
            with line if self._target.tls else _with_tls(line, until) as line:
                answer = _ask(line, PING, until) if self._target.tls else b"TLS"
        if answer == b"TLS":
            raise _Problem(f"{where} speaks TLS, and the URL does not: use rediss:// instead of redis://")
        if answer[:1] in (b"+", b"-"):
            raise _Problem(f"{where} speaks without TLS, and the URL asks for TLS: use redis:// instead of rediss://")
        if isinstance(error, TimeoutError):
            raise _Problem(
                f"{where} accepts connections and did not answer in time: is it Redis, is it hung, or is there a proxy in "
                "between that does not reach it?"
            )
        if isinstance(error, ssl.SSLError) and "WRONG_VERSION" not in str(error):
            return  # certificates, versions: redis-py has the settings for them, and explains its error
        raise _Problem(f"{where} closed the connection without an answer; is it Redis, and may this client connect?")

    def _connect(self, host: _Host, until: float) -> socket.socket:
        if host is None:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.settimeout(_left(until))
                line.connect(self._target.path)
            except BaseException:
                line.close()
                raise
            return line
        addresses = _addresses(*host, until)
        until = min(until, time.monotonic() + self._connect_seconds)
        error = OSError("no address")
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                return socket.create_connection(address, _left(until) / left)
            except OSError as refused:
                error = error if isinstance(error, TimeoutError) else refused
        if isinstance(error, TimeoutError):
            raise _Problem(
                f"{host[0]}:{host[1]} did not accept a connection in time: a firewall or security group drops what is sent "
                "there, or the host is not up; check host, port and network"
            )
        raise error


def _addresses(host: str, port: int, until: float) -> list[tuple[str, int]]:
    """The addresses of a host. Resolvers have no timeout, so a thread resolves, and this waits for it."""
    found: list[Any] = []
    why = ["no answer from the resolver"]

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            why[0] = str(error)
        except UnicodeError:  # a label that is too long
            why[0] = "not a host name"

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_left(until))
    if not found:
        raise _Problem(f"the host {host!r} cannot be resolved ({why[0]}); check its spelling, and DNS where this program runs")
    return [each[4][:2] for each in found]


def _with_tls(line: socket.socket, until: float) -> ssl.SSLSocket:
    """TLS without checking the certificate: no secret is sent here, and redis-py checks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line.settimeout(min(_left(until), HANDSHAKE_SECONDS))
    return context.wrap_socket(line)


def _ask(line: socket.socket, command: bytes, until: float, enough: bytes = rb"(?s).") -> bytes:
    """The answer to a command, read until it contains the pattern."""
    line.settimeout(_left(until))
    line.sendall(command)
    answer = b""
    while not re.search(enough, answer) and answer[:1] != b"-":
        line.settimeout(_left(until))
        more = line.recv(4096)
        if not more:
            if answer:
                break
            raise ConnectionError("closed")
        answer += more
    return answer


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.05)
