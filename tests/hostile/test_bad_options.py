"""Bad options: a clear error each at construction."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, checkpoint, metadata

from langgraph_redis_state import AgentCheckpointer, CompressionType, RedisSaver, RedisStatePersistence
from langgraph_redis_state.errors import (
    CheckpointerError,
    CheckpointNotFoundError,
    InvalidConfigError,
    SaverClosedError,
    SerializationError,
    ServerRefusedError,
    ServerUnavailableError,
)


def put(saver: RedisSaver, config: Any, values: dict[str, Any], **more: Any) -> Any:
    made = checkpoint(values)
    return saver.put(config, made, metadata(**more), made["channel_versions"])


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "{}", "a\0", None, 5, b"lgrs", "\ud800"])
def test_a_prefix_that_would_break_keys_is_refused(prefix: Any) -> None:
    with pytest.raises(ValueError, match="prefix"):
        RedisSaver(prefix=prefix)


@pytest.mark.parametrize("compression", ["gzip", "LZ4", "", None, 1, [], b"lz4"])
def test_an_unknown_compression_names_the_known_ones(compression: Any) -> None:
    with pytest.raises(ValueError, match="'lz4', 'zlib', 'zstd', 'none'"):
        RedisSaver(compression=compression)


@pytest.mark.parametrize("compression", ["lz4", "zlib", "none", *CompressionType])
def test_a_known_compression_is_taken(compression: Any) -> None:
    RedisSaver(compression=compression)


@pytest.mark.parametrize(
    "ttl",
    [
        0,
        -1,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        "60",
        b"60",
        1e-9,
        1e300,
        timedelta(0),
        timedelta(seconds=-1),
        [60],
        {"default_ttl": 0},
        {"default_ttl": -5},
        {"default_ttl": math.nan},
        {"default_ttl": math.inf},
        {"default_ttl": 1e300},
        {"default_ttl": "5"},
        {"default_ttl": True},
    ],
)
def test_a_ttl_that_is_no_time_is_refused(ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl must be a positive number"):
        RedisSaver(ttl=ttl)


@pytest.mark.parametrize("ttl", [{"ttl": 5}, {"default_ttl": 5, "refresh": True}, {"default": 1}])
def test_a_ttl_mapping_with_unknown_keys_names_the_known_ones(ttl: Any) -> None:
    with pytest.raises(ValueError, match=r"'default_ttl' .minutes., 'refresh_on_read'"):
        RedisSaver(ttl=ttl)


@pytest.mark.parametrize(
    "ttl", [None, 0.001, 60, timedelta(days=400), {}, {"default_ttl": None}, {"default_ttl": 5, "refresh_on_read": True}]
)
def test_a_ttl_that_is_a_time_is_taken(ttl: Any) -> None:
    RedisSaver(ttl=ttl)


@pytest.mark.parametrize("made", [RedisSaver, RedisStatePersistence, AgentCheckpointer])
def test_what_is_no_url_or_no_options_is_refused_in_words(made: Any) -> None:
    with pytest.raises(InvalidConfigError, match="No server"):
        made(None)
    with pytest.raises(TypeError, match="A URL is text"):
        made(5)
    with pytest.raises(TypeError, match="redis_options maps names"):
        made("redis://localhost", redis_options=5)


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "3", math.nan])
def test_max_versions_is_a_whole_number_of_at_least_one(count: Any) -> None:
    with pytest.raises(ValueError, match="max_versions must be a whole number of at least 1"):
        RedisSaver(max_versions=count)


@pytest.mark.parametrize("limit", [True, 1.0, 2.5, "3", math.nan])
def test_a_limit_that_is_no_whole_number_is_refused_before_anything_is_read(saver: RedisSaver, limit: Any) -> None:
    for listing in (partial(saver.list, at("t")), partial(saver.history, "t"), saver.list_threads):
        with pytest.raises(ValueError, match=f"limit must be a whole number, or None for all, not {limit!r}"):
            next(iter(listing(limit=limit)))


async def test_an_async_listing_refuses_such_a_limit_too(saver: RedisSaver) -> None:
    for listing in (partial(saver.alist, at("t")), partial(saver.ahistory, "t"), saver.alist_threads):
        with pytest.raises(ValueError, match=r"limit must be a whole number, or None for all, not 2\.5"):
            await anext(aiter(listing(limit=2.5)))


@pytest.mark.parametrize("keep", [0, -1, True, 2.5, "3"])
def test_prune_keeps_a_whole_number_of_at_least_one(saver: RedisSaver, keep: Any) -> None:
    with pytest.raises(ValueError, match="prune: keep_last must be a whole number of at least 1"):
        saver.prune(["t"], keep_last=keep)


@pytest.mark.parametrize("key", ["", b"", [], [""], ["a", b""], [None], [5], {}, 5])
def test_an_integrity_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match=r"integrity_key must be str or bytes|integrity_key: a key has 0 bytes"):
        RedisSaver(integrity_key=key)


def test_a_client_that_decodes_is_refused_or_works(url: str, prefix: str) -> None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        with pytest.raises(ValueError, match="decode_responses") as caught:
            RedisSaver(client=client, prefix=prefix)
        assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"no_such_option": 1}, "no_such_option"),
        ({"decode_responses": True}, "decode_responses|bytes"),
        ({"max_connections": 0}, "max_connections must be a whole number of at least 1"),
        ({"timeout": -1}, "timeout is a number of seconds"),
        ({"host": "elsewhere"}, "host"),
    ],
)
def test_a_wrong_redis_option_is_refused_at_construction(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        RedisSaver("redis://localhost", redis_options=options)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "", "redis"])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://.*unix://.*redis\+sentinel://"):
        RedisSaver(url)


@pytest.mark.parametrize("serde", ["json", 5, JsonPlusSerializer])
def test_what_is_no_serializer_is_refused_at_construction(serde: Any) -> None:
    with pytest.raises(TypeError, match="serde must be a serializer"):
        RedisSaver(serde=serde)


@pytest.mark.parametrize(
    ("url", "found"),
    [("localhost:6379", "has no scheme"), ("http://localhost", "begins with http://"), ("redis+x://a", "begins with redis")],
)
def test_an_unknown_scheme_is_told_from_none_without_what_follows_it(url: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        RedisSaver(url)


def test_a_url_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="A URL is text such as redis://"):
        RedisSaver(5)  # type: ignore[arg-type]


def test_redis_options_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(TypeError, match="redis_options maps names"):
        RedisSaver(redis_options=5)  # type: ignore[arg-type]


def test_one_text_in_place_of_several_ids_is_refused_before_anything_is_deleted(saver: RedisSaver) -> None:
    for thread in ("t", "1", "t1"):
        put(saver, at(thread), {"n": 1}, run_id=thread)
    for wrong in (
        lambda: saver.prune("t1", strategy="delete"),
        lambda: saver.prune("t1"),
        lambda: saver.delete_for_runs("t1"),
    ):
        with pytest.raises(TypeError, match="pass \\['t1'\\]"):
            wrong()
    assert sorted(info.thread_id for info in saver.list_threads()) == ["1", "t", "t1"]


def test_threads_are_found_by_a_key_and_a_value_that_can_be_indexed(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        with pytest.raises(ValueError, match="by what"):
            list(saver.find_threads())
        with pytest.raises(ValueError, match=r"team.* is not indexed"):
            list(saver.find_threads(team="a"))
        for value in (None, ["ada"]):
            with pytest.raises(ValueError, match="text, numbers or booleans"):
                list(saver.find_threads(user=value))


def test_going_back_in_a_thread_that_does_not_exist_says_so(saver: RedisSaver) -> None:
    with pytest.raises(CheckpointNotFoundError, match="there is no such thread"):
        saver.rollback("nobody", -1)
    put(saver, at("somebody"), {"n": 1})
    with pytest.raises(CheckpointNotFoundError, match="fewer than 9 ancestors"):
        saver.rollback("somebody", -9)


def test_sentinels_that_do_not_answer_are_named_without_the_settings_of_their_clients() -> None:
    with (
        RedisSaver("redis+sentinel://localhost:1/primary", redis_options={"socket_connect_timeout": 1}) as saver,
        pytest.raises(ServerUnavailableError, match="do the sentinels of the URL answer") as raised,
    ):
        saver.ping()
    assert "password" not in str(raised.value)


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        RedisSaver(no_such_option=1)  # type: ignore[call-arg]


# --- servers ----------------------------------------------------------------------------------------------------------


def test_every_error_of_the_package_is_one_of_its_tree() -> None:
    for kind in (InvalidConfigError, SerializationError, ServerRefusedError, ServerUnavailableError, SaverClosedError):
        assert issubclass(kind, CheckpointerError)
    assert issubclass(InvalidConfigError, ValueError)
    assert issubclass(ServerUnavailableError, ConnectionError)
