"""A server that goes away, and comes back with what it had, or empty."""

from __future__ import annotations

import pytest
from calls import BIG, Open, every_method
from conftest import TOPOLOGIES_OF
from servers import Box, Server, single
from shapes import at, checkpoint, id_of, ids, listed, metadata, new_id, plain, put

from langgraph_redis_state.errors import CheckpointLostError, ServerUnavailableError


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_went_away_is_said_and_the_same_saver_works_when_it_is_back(
    own: tuple[Server, Box], open_on: Open, how: str
) -> None:
    server, box = own
    saver = await open_on(server.url)
    config = await put(saver, at("t"), {"x": BIG})
    await saver.aput_writes(config, [("x", 1)], "task")
    expected = plain(await saver.aget_tuple(at("t")))
    for name, method in every_method(saver).items():
        if name in ("get_tuple", "put"):
            box.start() if name == "put" else None
            assert plain(await saver.aget_tuple(at("t"))) == expected
            getattr(box, how)()
        with pytest.raises(ServerUnavailableError, match=r"(?i)repeating (it|the call) is safe"):
            await method()
    box.start()
    assert plain(await saver.aget_tuple(at("t"))) == expected
    child = await put(saver, config, {"x": [*BIG, 1]})
    assert await ids(saver, at("t")) == [id_of(child), id_of(config)]


async def test_a_server_that_comes_back_empty_is_written_to_anew(open_on: Open, prefix: str) -> None:
    with single(TOPOLOGIES_OF) as (server, box):
        saver = await open_on(server.url)
        config = await put(saver, at("t"), {"x": BIG, "same": BIG})
        box.kill()
        box.start()
        assert await saver.aget_tuple(at("t")) is None
        made = checkpoint({"x": [*BIG, 1], "same": BIG})
        child = await saver.aput(config, made, metadata(), {"x": 1})  # "same" is taken over from what is gone
        assert (await saver.aget_tuple(child)).checkpoint["channel_values"] == {"x": [*BIG, 1], "same": BIG}
        del made["channel_values"]["same"]
        box.kill()
        box.start()
        with pytest.raises(CheckpointLostError, match="same"):  # and is given nowhere else
            await saver.aput(config, {**made, "id": new_id()}, metadata(), {"x": 1})
        assert await listed(saver, None) == []
