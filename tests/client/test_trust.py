"""The warning that stored bytes can run code: when it is logged, and that it is logged once."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_redis_state import RedisSaver, options

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    options._warn_of_trust.cache_clear()
    monkeypatch.delenv("LANGGRAPH_STRICT_MSGPACK", raising=False)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_server_elsewhere_without_key_and_strict_mode_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("redis://cache.example.org", "rediss+cluster://10.0.0.1:6379,10.0.0.2:6379"):
        RedisSaver(url).close()
    (warning,) = warnings(caplog)
    assert "LANGGRAPH_STRICT_MSGPACK=true" in warning
    assert "encryption_key" in warning


@pytest.mark.parametrize("url", ["redis://[fd00::1]:6379/0", "redis+sentinel://user:pw@127.0.0.1,host.example/service"])
def test_hosts_are_found_in_every_kind_of_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    RedisSaver(url).close()
    assert len(warnings(caplog)) == 1


def test_a_client_that_was_given_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis(host="localhost") as near, redis.Redis(host="cache.example.org") as far:
        RedisSaver(client=near).close()
        assert not warnings(caplog)
        RedisSaver(client=far).close()
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "url", ["redis://localhost", "redis://:pw@127.0.0.1:6379/1", "redis://[::1]:6379", "unix:///tmp/no.sock"]
)
def test_a_local_server_is_not_warned_of(url: str, caplog: pytest.LogCaptureFixture) -> None:
    RedisSaver(url).close()
    assert not warnings(caplog)


@pytest.mark.parametrize(
    "given",
    [{"integrity_key": KEY}, {"encryption_key": KEY}, {"serde": JsonPlusSerializer()}],
    ids=lambda given: next(iter(given)),
)
def test_with_a_key_or_a_serializer_of_ones_own_there_is_no_warning(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    RedisSaver("redis://cache.example.org", **given).close()
    assert not warnings(caplog)


def test_in_strict_mode_there_is_no_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "TRUE")
    RedisSaver("redis://cache.example.org").close()
    assert not warnings(caplog)
