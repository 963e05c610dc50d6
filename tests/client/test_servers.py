"""Both protocols, decoding clients, forgotten scripts, servers that do not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
import redis.asyncio
from exercise import counting_graph, scenario
from shapes import SyncSurface, at, ids, listed, new_id, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ServerUnavailableError

# --- clients and servers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_both_protocols_of_the_server_give_the_same(url: str, prefix: str, protocol: int, surface: str) -> None:
    async with RedisSaver(url, prefix=prefix, redis_options={"protocol": protocol}) as saver:
        await scenario(saver if surface == "async" else SyncSurface(saver))


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_that_decodes_works_or_is_refused_in_one_sentence(url: str, prefix: str, protocol: int) -> None:
    with redis.Redis.from_url(url, decode_responses=True, protocol=protocol) as client:
        try:
            saver = RedisSaver(client=client, prefix=prefix)
        except (ValueError, TypeError) as refusal:
            assert "decode_responses" in str(refusal)  # noqa: PT017 - either outcome is right, but none in between
        else:
            await scenario(SyncSurface(saver))
            saver.close()
    async with redis.asyncio.Redis.from_url(url, decode_responses=True, protocol=protocol) as aclient:
        try:
            saver = RedisSaver(async_client=aclient, prefix=f"{prefix}-a")
        except (ValueError, TypeError) as refusal:
            assert "decode_responses" in str(refusal)  # noqa: PT017
        else:
            await scenario(saver)
            await saver.aclose()


@pytest.mark.parametrize("decode", [{"redis_options": {"decode_responses": True}}, {"query": "decode_responses=True"}])
def test_decoding_asked_for_in_options_works_or_is_refused(url: str, prefix: str, decode: dict[str, Any]) -> None:
    query = decode.pop("query", None)
    address = url if query is None else f"{url}{'&' if '?' in url else '?'}{query}"
    try:
        saver = RedisSaver(address, prefix=prefix, **decode)
    except (ValueError, TypeError) as refusal:
        assert "decode_responses" in str(refusal)  # noqa: PT017
    else:
        with saver:
            asyncio.run(scenario(SyncSurface(saver)))


async def test_a_server_that_forgot_its_scripts_is_told_them_again(either: Any, raw: Any) -> None:
    await put(either, at("t"), {"x": 1})
    raw.script_flush()
    assert (await either.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 1}
    raw.script_flush()
    await put(either, at("t"), {"x": 2})
    raw.script_flush()
    assert len(await ids(either, at("t"))) == 2
    raw.script_flush()
    await either.adelete_thread("t")
    assert await either.aget_tuple(at("t")) is None


NOWHERE = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_a_server_that_does_not_answer_is_an_error_and_never_an_empty_thread(surface: str) -> None:
    def calls(saver: Any) -> list[Any]:
        return [
            saver.aget_tuple(at("t")),
            listed(saver, at("t")),
            listed(saver, None),
            put(saver, at("t")),
            saver.aput_writes(at("t", "", new_id()), [("x", 1)], "task"),
            saver.adelete_thread("t"),
            saver.adelete_for_runs(["r"]),
            saver.acopy_thread("a", "b"),
            saver.aprune(["t"]),
            saver.aget_delta_channel_history(config=at("t"), channels=["x"]),
        ]

    async with RedisSaver(NOWHERE) as saver:
        if surface == "async":
            running = calls(saver)
        else:
            running = [asyncio.to_thread(asyncio.run, call) for call in calls(SyncSurface(saver))]
        answers = await asyncio.gather(*running, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServerUnavailableError] * 10


def test_a_graph_does_not_start_over_when_the_server_does_not_answer() -> None:
    ran: list[str] = []
    with RedisSaver(NOWHERE) as saver:
        graph = counting_graph(ran).compile(checkpointer=saver)
        with pytest.raises(ConnectionError):
            graph.invoke({"n": 0}, at("t", None))
        with pytest.raises(ConnectionError):
            graph.get_state(at("t", None))
    assert ran == []


# --- through real graphs ----------------------------------------------------------------------------------------------


async def test_connections_that_the_server_closes_are_replaced_and_nobody_notices(either: Any, url: str) -> None:
    config = await put(either, at("t"), {"x": 0})
    with redis.Redis.from_url(url) as admin:
        for n in range(1, 6):
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            config = await put(either, config, {"x": n})
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await either.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": n}
