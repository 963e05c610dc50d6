"""The threads of `storehouse`, stored once, and `lgrs` as a function."""

from __future__ import annotations

import uuid

import pytest
import redis
import storehouse
from commandline import Lgrs, Result

from langgraph_redis_state.cli.app import run
from langgraph_redis_state.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def store(server: EmbeddedServer) -> str:
    """The prefix of threads in all states. Nothing in it is changed."""
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    with redis.Redis.from_url(server.url) as raw:
        storehouse.fill(server.url, prefix, raw)
    return prefix


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, url: str, store: str) -> None:
    for name in ("LGRS_INTEGRITY_KEY_FILE", "LGRS_ENCRYPTION_KEY_FILE", "LGRS_ACCEPT_UNKEYED", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LGRS_URL", url)
    monkeypatch.setenv("LGRS_PREFIX", store)


@pytest.fixture
def lgrs(capsys: pytest.CaptureFixture[str]) -> Lgrs:
    """Runs `lgrs` in this process."""

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run(arguments)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call
