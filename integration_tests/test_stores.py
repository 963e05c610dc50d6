"""`RedisStore` on every server there is (`conftest.TARGETS`), sync and async; semantic search where there are vector sets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conftest import TOPOLOGIES_OF, Servers
from langgraph.store.base import GetOp, PutOp, SearchOp
from servers import Server
from states import Surface

from langgraph_redis_state import InvalidConfigError, RedisStore, ServerRefusedError
from langgraph_redis_state.store import items

Open = Callable[..., Any]

ADA = ("users", "ada", "notes")


@pytest.fixture(params=["sync", "async"])
async def open_on(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens a store at a server. The test awaits its methods, which are sync ones every other time."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(server: Server, prefix: str, **options: Any) -> Any:
            url = server.url_for(prefix)
            made = RedisStore(url, prefix=f"{prefix}:store", redis_options=server.options, **options)
            return Surface(await stack.enter_async_context(made), request.param == "async")

        yield open_one


async def test_items_are_put_found_listed_and_deleted(target: Server, prefix: str, open_on: Open) -> None:
    store = await open_on(target, prefix, ttl={"default_ttl": 10})
    assert await store.ping()
    places = [("users", f"{n}", "notes") for n in range(60)]  # in all buckets, so on all nodes
    assert len({items.bucket_of(place) for place in places}) == items.BUCKETS
    for _ in range(2):  # the second time with scripts that the server knows
        await store.batch([PutOp(place, "k", {"n": n, "text": "words " * 50}, ttl=1) for n, place in enumerate(places)])
    found = await store.batch([GetOp(place, "k") for place in places] + [SearchOp(("users",), limit=100)])
    assert [item.value["n"] for item in found[:60]] == list(range(60))
    assert [item.namespace for item in found[60]] == sorted(places)
    assert len(await store.search(("users",), filter={"n": {"$lt": 30}}, limit=7, offset=20)) == 7
    assert await store.list_namespaces(suffix=("notes",), limit=5, offset=57) == sorted(places)[57:]
    assert await store.list_namespaces(max_depth=1) == [("users",)]
    await store.put(ADA, "k", {"n": 1})
    first = await store.get(ADA, "k")
    await store.put(ADA, "k", {"n": 2})
    second = await store.get(ADA, "k")
    assert first.created_at == second.created_at < second.updated_at
    await store.batch([PutOp(place, "k", None) for place in [*places, ADA]])
    assert await store.search(()) == await store.list_namespaces() == []
    assert await store.sweep_ttl() == await store.repair() == 0


async def test_a_server_that_forgets_the_scripts_changes_no_batch(target: Server, prefix: str, open_on: Open) -> None:
    store = await open_on(target, prefix)
    for n in range(4):
        for node in target.primaries:
            node.script_flush()
        await store.batch([PutOp(("users", f"{k}"), "k", {"n": n}) for k in range(60)])
        for node in target.primaries[: n % 2 + 1]:
            node.script_flush()
        assert {item.value["n"] for item in await store.search(("users",), limit=100)} == {n}


# --- semantic search ---

AXES = ("red", "green", "blue")


def embed(texts: list[str]) -> list[list[float]]:
    """How often each colour is named."""
    return [[float(text.count(axis)) for axis in AXES] for text in texts]


INDEX = {"dims": 3, "embed": embed, "fields": ["text", "more[*]"]}


async def test_items_are_found_by_meaning(servers: Servers, prefix: str, open_on: Open) -> None:
    store = await open_on(servers.single(TOPOLOGIES_OF), prefix, index=INDEX)
    plain = await open_on(servers.single(TOPOLOGIES_OF), prefix)
    await store.put(ADA, "r", {"text": "red", "n": 1})
    await store.put(ADA, "rg", {"text": "red green", "n": 2})
    await store.put(("users", "ada", "other"), "b", {"text": "blue", "more": ["green", "red"], "n": 3})
    await store.put(("users", "bob"), "r", {"text": "red"})
    await store.put(ADA, "none", {"text": "red", "n": 4}, index=False)
    found = await store.search(("users", "ada"), query="red")
    assert [(item.key, round(item.score or 0, 3)) for item in found[:3]] == [("r", 1), ("b", 1), ("rg", 0.707)]
    assert [(item.key, item.score) for item in found[3:]] == [("none", None)]
    assert [item.key for item in await store.search(ADA, query="green", limit=1)] == ["rg"]
    assert [item.key for item in await store.search(("users", "ada"), query="red", filter={"n": {"$gt": 1}}, limit=2)] == [
        "b",
        "rg",
    ]
    assert [item.key for item in await store.search(("users", "ada"), query="red", limit=2, offset=1)] == ["b", "rg"]
    assert {item.namespace[1] for item in await store.search((), query="red", limit=10)} == {"ada", "bob"}
    assert [item.score for item in await plain.search(ADA, query="red")] == [None] * 3
    # what is replaced, deleted or expired takes its vectors along, whichever store does it
    await store.put(ADA, "r", {"text": "blue"})
    await plain.delete(("users", "ada", "other"), "b")
    await plain.put(ADA, "rg", {"text": "red"})
    assert [(item.key, item.score) for item in await store.search(ADA, query="blue", limit=1)] == [("r", 1.0)]
    assert [item.score for item in await store.search(ADA, query="red")] == [0.0, None, None]


async def test_many_items_are_ranked_through_the_filter(
    servers: Servers, prefix: str, open_on: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_on(servers.single(TOPOLOGIES_OF), prefix, index=INDEX)
    words = [f"{'red ' * (n % 7 + 1)}{'green ' * (n % 5)}{'blue ' * (n // 35 + 1)}" for n in range(200)]
    await store.batch([PutOp(("u", f"{n % 4}", "x"), f"{n:03}", {"text": text, "n": n}) for n, text in enumerate(words)])
    whole = await store.search(("u",), query="green", limit=200)
    assert len(whole) == 200
    assert [item.score for item in whole] == sorted((item.score for item in whole), reverse=True)
    for asked in ({"limit": 5}, {"limit": 9, "offset": 100}, {"limit": 3, "filter": {"n": {"$gte": 190}}}):
        found = await store.search(("u",), query="green", **asked)
        expected = [item for item in whole if item.value["n"] >= 190] if "filter" in asked else whole
        at = asked.get("offset", 0)
        assert [item.score for item in found] == [item.score for item in expected[at : at + asked["limit"]]]
    monkeypatch.setattr("langgraph_redis_state.store.operations.COMPARED", 50)  # so that the graph is searched
    found = await store.search(("u", "1"), query="green", limit=5)
    assert [item.score for item in found] == [item.score for item in whole if item.namespace[1] == "1"][:5]


async def test_vectors_of_other_dimensions_are_refused_before_anything_is_written(
    servers: Servers, prefix: str, open_on: Open
) -> None:
    store = await open_on(servers.single(TOPOLOGIES_OF), prefix, index=INDEX)
    await store.put(ADA, "k", {"text": "red"})
    other = await open_on(
        servers.single(TOPOLOGIES_OF), prefix, index={"dims": 2, "embed": lambda texts: [[1.0, 0.0]] * len(texts)}
    )
    with pytest.raises(InvalidConfigError, match="3 dimensions"):
        await other.put(ADA, "k", {"text": "green"})
    with pytest.raises(InvalidConfigError, match="3 dimensions"):
        await other.search(ADA, query="red")
    assert (await store.get(ADA, "k")).value == {"text": "red"}


@pytest.mark.parametrize("image", ["redis:6.2", "valkey/valkey:8.1"])
async def test_a_server_without_vector_sets_is_named_before_anything_is_written(
    servers: Servers, prefix: str, open_on: Open, image: str
) -> None:
    store = await open_on(servers.single(image), prefix, index=INDEX)
    for call in (lambda: store.put(ADA, "k", {"text": "red"}), lambda: store.search(ADA, query="red")):
        with pytest.raises(ServerRefusedError, match="vector sets"):
            await call()
    assert servers.single(image).keys(prefix) == []
