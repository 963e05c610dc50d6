"""The threads of `storehouse`, stored once, and `lgrs` as a function."""

from __future__ import annotations

import pytest
from commandline import Lgrs, Result

from langgraph_redis_state.cli.app import run


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, url: str, store: str) -> None:
    for name in (
        "LGRS_INTEGRITY_KEY_FILE",
        "LGRS_ENCRYPTION_KEY_FILE",
        "LGRS_NAME_KEY_FILE",
        "LGRS_SERDE_KEY_FILE",
        "LGRS_ACCEPT_UNKEYED",
        "LGRS_DECRYPT_ONLY",
        "LGRS_FRESHNESS",
        "COLUMNS",
        "NO_COLOR",
    ):
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
