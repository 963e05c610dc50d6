"""The page on the threads of `storehouse`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsing import HOST, ORIGIN, Open
from starlette.testclient import TestClient

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.inspection.structural import StructuralSerializer
from langgraph_redis_state.web.app import create
from langgraph_redis_state.web.guard import Sessions


@pytest.fixture
def open_page(url: str) -> Iterator[Open]:
    """Makes browsers: with the cookie unless `enter` is false."""
    made: list[Any] = []

    def open_one(prefix: str, *, write: bool = False, mask: bool = False, enter: bool = True) -> TestClient:
        options: Any = {"prefix": prefix, "serde": StructuralSerializer(), "ttl": "keep"}
        saver = RedisSaver(url, read_only=True, **options)
        steering = RedisSaver(url, **options) if write else None
        made.extend(each for each in (saver, steering) if each is not None)
        sessions = Sessions()
        client = TestClient(create(saver, sessions, (HOST,), steering=steering, mask=mask), base_url=ORIGIN)
        client.token = sessions.token  # type: ignore[attr-defined]
        if enter:
            assert client.get(f"/enter?token={sessions.token}", follow_redirects=False).status_code == 303
        made.append(client)
        return client

    yield open_one
    for each in made:
        each.close()


@pytest.fixture
def page(open_page: Open, store: str) -> TestClient:
    return open_page(store)
