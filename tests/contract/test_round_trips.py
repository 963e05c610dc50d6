"""How many commands an operation sends."""

from __future__ import annotations

from audit import monitored, put
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from shapes import at, checkpoint, metadata, words

from langgraph_redis_state import RedisSaver


def test_each_operation_is_one_command_on_the_server(saver: RedisSaver, url: str) -> None:
    config = put(saver, at("t"), {"messages": [words(0, 300)]})
    saver.put_writes(config, [("w", 0)], "task 0")
    saver.get_tuple(config)
    list(saver.list(at("t")))
    with monitored(url) as sent:
        child = put(saver, config, {"messages": [words(0, 300), words(1, 300)], "n": words(2, 300)})
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        saver.put_writes(child, [("a", 1), ("b", words(3, 400))], "task 1")
    assert sent == ["EVALSHA"]
    for config in (child, at("t")):
        with monitored(url) as sent:
            assert saver.get_tuple(config) is not None
        assert sent == ["EVALSHA"]
    for _ in range(98):
        child = put(saver, child, {"n": 1})
    with monitored(url) as sent:
        assert len(list(saver.list(at("t")))) == 100
    assert sent in (["EVALSHA"], ["EVALSHA"] * 2)  # a full page may not know that it is the last
    with monitored(url) as sent:
        assert len(list(saver.list(at("t"), limit=7))) == 7
    assert sent == ["EVALSHA"]


async def test_each_operation_is_one_command_on_the_server_async(asaver: RedisSaver, url: str) -> None:
    made = checkpoint({"messages": [words(0, 300)]})
    config = await asaver.aput(at("t"), made, metadata(), made["channel_versions"])
    await asaver.aput_writes(config, [("w", 0)], "task 0")
    await asaver.aget_tuple(config)
    assert [found async for found in asaver.alist(at("t"))]
    made = checkpoint({"messages": [words(0, 300), words(1, 300)]})
    with monitored(url) as sent:
        child = await asaver.aput(config, made, metadata(), made["channel_versions"])
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        await asaver.aput_writes(child, [("a", 1), ("b", words(3, 400))], "task 1")
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        await asaver.aget_tuple(child)
    assert sent == ["EVALSHA"]
    with monitored(url) as sent:
        assert len([found async for found in asaver.alist(at("t"))]) == 2
    assert sent == ["EVALSHA"]


def test_a_history_of_ancestors_is_one_command_for_a_hundred(saver: RedisSaver, url: str) -> None:
    config = put(saver, at("t"), {"log": _DeltaSnapshot([])})
    for n in range(1, 251):
        saver.put_writes(config, [("log", [n])], "task")
        config = put(saver, config, {}, versions={"log": n + 1})
    saver.get_delta_channel_history(config=config, channels=["log"])  # the server learns the script
    with monitored(url) as sent:
        found = saver.get_delta_channel_history(config=config, channels=["log"])
    assert [value for _, _, value in found["log"]["writes"]] == [[n] for n in range(1, 251)]
    assert sent == ["EVALSHA"] * 4  # three for 250 ancestors, and one for the snapshot at the end
