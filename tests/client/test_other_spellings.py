"""Options under the names that other savers give them are taken, or answered with the name here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_redis_state import AsyncRedisSaver, AsyncShallowRedisSaver, RedisSaver, ShallowRedisSaver
from langgraph_redis_state.spellings import ALIASES, ANSWERS, translated

NOBODY: Any = {"configurable": {"thread_id": "nobody"}}
PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text("utf-8")
ROWS = [
    (name, re.findall(r"\w+", here)) for name, here in re.findall(r"^\| `(\w+)` \| (`[\w`, ]+`|error) \|", PAGE, re.MULTILINE)
]


@pytest.mark.parametrize(("name", "here"), ROWS, ids=[f"{name}-{place}" for place, (name, _) in enumerate(ROWS)])
def test_each_argument_in_the_tables_is_taken_or_answered_as_they_say(name: str, here: list[str]) -> None:
    if here == ["error"]:
        with pytest.raises(TypeError, match=name) as caught:
            RedisSaver(**{name: 1})
        assert "migration.md" in str(caught.value)
    else:
        assert set(translated({name: 1})) == {here[0]}


def test_every_spelling_is_in_a_table() -> None:
    listed = {name for name, _ in ROWS}
    assert {*ALIASES, *ANSWERS, "pool_size"} - listed == {"username"}


def test_a_url_under_another_name_is_the_url() -> None:
    for saver in (
        RedisSaver(redis_url="redis://there:7/1"),
        RedisSaver.from_conn_string(redis_url="redis://there:7/1"),
        RedisSaver.from_conn_string(conn_string="redis://there:7/1"),
        ShallowRedisSaver(redis_url="redis://there:7/1", redis_client=None),
        AsyncShallowRedisSaver.from_conn_string("redis://there:7/1"),
    ):
        assert "redis://there:7/1" in repr(saver)
        saver.close()


@pytest.mark.parametrize("by", ["redis_client", "position", "from_conn_string", "after None"])
def test_a_client_under_another_name_is_the_client(by: str, url: str, prefix: str) -> None:
    client = redis.Redis.from_url(url)
    how: dict[str, Any] = {
        "redis_client": lambda: RedisSaver(redis_client=client, checkpoint_prefix=prefix),
        "position": lambda: RedisSaver(client, prefix=prefix),
        "from_conn_string": lambda: RedisSaver.from_conn_string(redis_client=client, prefix=prefix),
        "after None": lambda: RedisSaver(None, redis_client=client, prefix=prefix),
    }
    with client, how[by]() as saver:
        assert saver.client is client
        assert saver.get_tuple(NOBODY) is None


@pytest.mark.parametrize("by", ["redis_client", "position"])
async def test_an_async_client_under_another_name_is_the_async_client(by: str, url: str, prefix: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client:
        saver = AsyncRedisSaver(redis_client=client) if by == "redis_client" else AsyncRedisSaver(client)
        async with saver:
            assert await saver.aget_tuple(NOBODY) is None


def test_sizes_and_times_under_other_names_are_those() -> None:
    with RedisSaver(redis_url="redis://host", pool_size=7, ttl_seconds=60, connection_args={"socket_timeout": 3}) as saver:
        pool = saver.client.connection_pool
        assert (pool.max_connections, pool.connection_kwargs["socket_timeout"]) == (7, 3)
        assert saver._engine.settings.ttl == 60_000


@pytest.mark.parametrize(
    ("options", "twice"),
    [
        ({"url": "redis://a", "redis_url": "redis://b"}, "url"),
        ({"ttl": 1, "ttl_seconds": 2}, "ttl"),
        ({"redis_url": "redis://a", "conn_string": "redis://b"}, "url"),
        ({"pool_size": 1, "connection_args": {"max_connections": 2}}, "max_connections"),
    ],
)
def test_one_option_under_two_names_is_refused(options: dict[str, Any], twice: str) -> None:
    with pytest.raises(TypeError, match=f"'{twice}' twice"):
        RedisSaver(**options)
    with pytest.raises(TypeError, match="'url' twice"):
        RedisSaver("redis://a", redis_url="redis://b")


def test_an_unknown_argument_is_still_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prefx'"):
        RedisSaver(prefx="a")  # type: ignore[call-arg]


async def test_setup_of_the_async_saver_can_be_awaited_and_need_not_be(url: str) -> None:
    async with AsyncRedisSaver(url) as saver:
        saver.setup()
        assert await saver.setup() is None  # type: ignore[func-returns-value]
    with pytest.raises(Exception, match="closed"):
        await saver.setup()


def test_setup_of_the_sync_saver_returns_at_once(url: str) -> None:
    with RedisSaver(url) as saver:
        assert saver.setup() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("kind", [ShallowRedisSaver, AsyncShallowRedisSaver])
def test_a_shallow_saver_keeps_one_checkpoint_after_each_put(kind: type[RedisSaver], url: str, prefix: str) -> None:
    with kind(url, prefix=prefix) as saver:
        where: Any = {"configurable": {"thread_id": "one"}}

        def answer(state: MessagesState) -> dict[str, Any]:
            return {"messages": [("ai", "Yes.")]}

        graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)
        for _ in range(3):  # LangGraph stores pending writes meanwhile, which may overtake a removal: the next put does it
            state = graph.invoke({"messages": [("user", "And now?")]}, where, durability="sync")
            assert len(list(saver.list(where))) <= 2
        assert len(state["messages"]) == 6
        config: Any = {"configurable": {"thread_id": "two", "checkpoint_ns": ""}}
        for step in range(4):
            config = saver.put(config, empty_checkpoint(), {"source": "loop", "step": step}, {})
            assert [found.config for found in saver.list({"configurable": {"thread_id": "two"}})] == [config]
        with pytest.raises(ValueError, match="keeps one version"):
            kind(url, max_versions=2)
