"""A server of a test's own without a container, which is back in a twentieth of a second after it was killed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis
from servers import OUTSIDE, until

from langgraph_redis_state.embedded import _find_program


class LocalServer:
    """On a unix socket; keeps on disk what it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = str(folder / "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"
        self.admin = redis.Redis(unix_socket_path=self._socket, **OUTSIDE)

    def start(self) -> None:
        options = {"port": "0", "unixsocket": self._socket, "dir": str(self._folder), "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always"}
        command = [_find_program(), *(part for name, value in options.items() for part in (f"--{name}", value))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder)
        until(self.admin.ping, "the server does not answer PING")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()


@contextlib.contextmanager
def local(folder: Path) -> Iterator[LocalServer]:
    server = LocalServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.admin.close()
        server.kill()
