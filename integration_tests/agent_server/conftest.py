"""The agent server of `langgraph dev`, with the checkpointer of this package on an embedded server. No Docker.

`make agent-server` starts these tests with `--confcutdir`, since the other integration tests need Docker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from langgraph_redis_state import EmbeddedServer, RedisSaver

APP = Path(__file__).parent / "app"
KEY = b"of thirty-two bytes, for a test!"


@dataclass
class Started:
    """An agent server that runs, and where it keeps its threads."""

    url: str
    prefix: str
    redis: str
    log: Path

    def saver(self) -> RedisSaver:
        """A saver on the same threads, in this process."""
        return RedisSaver(self.redis, prefix=self.prefix, integrity_key=KEY)


def command(port: int) -> list[str]:
    langgraph = Path(sys.executable).with_name("langgraph")
    return [str(langgraph), "dev", "--no-browser", "--no-reload", "--port", str(port)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LGRS_", "LANGGRAPH_", "LANGSMITH_"))}
    return {**kept, "LANGGRAPH_STRICT_MSGPACK": "true", "LANGGRAPH_CLI_NO_ANALYTICS": "1", **variables}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def agent_server(folder: Path, redis: str, prefix: str) -> Iterator[Started]:
    shutil.copytree(APP, folder, dirs_exist_ok=True)  # the server keeps files of its own beside langgraph.json
    key = folder / "key"
    key.write_bytes(KEY)
    variables = {"LGRS_URL": redis, "LGRS_PREFIX": prefix, "LGRS_TTL": "1d", "LGRS_INTEGRITY_KEY_FILE": str(key)}
    variables["LGRS_ALLOWED_TYPES"] = "__desk:Receipt"  # how the server calls the module desk.py
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port), cwd=folder, env=environment(variables), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 90
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/ok").status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"langgraph dev did not start:\n{log.read_text('utf-8', 'replace')}")
                time.sleep(0.1)
            yield Started(url, prefix, redis, log)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start() as running:
        yield running


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedServer) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("agent_server")
    with agent_server(folder, redis_server.url, f"t-{uuid.uuid4().hex[:12]}") as running:
        yield running
