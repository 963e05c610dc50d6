"""Bad input, bad options, bad servers: a clear error each, and the saver works again when the cause is gone."""

from __future__ import annotations

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, checkpoint, metadata, new_id

from langgraph_redis_state import AgentCheckpointer, CompressionType, RedisSaver, RedisStatePersistence
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import (
    CheckpointerError,
    CheckpointNotFoundError,
    InvalidConfigError,
    SaverClosedError,
    SerializationError,
    ServerRefusedError,
    ServerUnavailableError,
)

WAIT = 10.0


def put(saver: RedisSaver, config: Any, values: dict[str, Any], **more: Any) -> Any:
    made = checkpoint(values)
    return saver.put(config, made, metadata(**more), made["channel_versions"])


def every_verb(saver: RedisSaver, config: Any) -> list[Callable[[], Any]]:
    """Each method that takes a config."""
    made = checkpoint({"n": 1})
    return [
        lambda: saver.get_tuple(config),
        lambda: list(saver.list(config)),
        lambda: saver.put(config, made, metadata(), made["channel_versions"]),
        lambda: saver.put_writes(config, [("n", 1)], "task"),
        lambda: saver.get_delta_channel_history(config=config, channels=["n"]),
    ]


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{}, {"configurable": {}}, {"configurable": {"thread_id": None}}, {"configurable": None}, {"configurable": []}]
)
def test_a_config_without_a_thread_says_how_to_name_one(saver: RedisSaver, raw: Any, prefix: str, config: Any) -> None:
    for verb in every_verb(saver, config):
        with pytest.raises(InvalidConfigError, match=r"thread.*'thread_id': '\.\.\.'"):
            verb()
    assert raw.keys(f"{prefix}:*") == []


@pytest.mark.parametrize("thread", [True, 1.5, b"bytes", ["t"], ("t",), {"t": 1}])
def test_a_thread_id_of_another_type_is_refused(saver: RedisSaver, thread: Any) -> None:
    for verb in every_verb(saver, at(thread)):
        with pytest.raises(InvalidConfigError, match=r"thread_id.*must be a string"):
            verb()
    for verb in (
        lambda: saver.delete_thread(thread),
        lambda: saver.prune([thread]),
        lambda: saver.copy_thread(thread, "x"),
        lambda: saver.copy_thread("x", thread),
    ):
        with pytest.raises(InvalidConfigError, match="must be a string"):
            verb()


@pytest.mark.parametrize(("bad", "why"), [("a\0b", "NUL"), ("\0", "NUL"), ("a\ud800", "surrogate")])
def test_a_character_that_cannot_be_stored_is_named_wherever_it_stands(
    saver: RedisSaver, raw: Any, prefix: str, bad: str, why: str
) -> None:
    made = checkpoint({"n": 1})
    configs = [at(bad), at("t", bad), at("t", "", bad)]
    calls = [verb for config in configs for verb in every_verb(saver, config)]
    calls += [
        lambda: saver.put(at("t"), checkpoint({"n": 1}, id=bad), metadata(), {"n": 1}),
        lambda: saver.put(at("t"), made, metadata(parents={"": bad}), {"n": 1}),
        lambda: saver.put(at("t"), made, metadata(parents={bad: "id"}), {"n": 1}),
        lambda: saver.put_writes(at("t", "", new_id()), [("n", 1)], bad),
        lambda: saver.delete_thread(bad),
        lambda: saver.copy_thread(bad, "x"),
        lambda: saver.copy_thread("x", bad),
        lambda: saver.prune([bad]),
        lambda: saver.delete_for_runs([bad]),
        lambda: list(saver.list(at("t"), before=at("t", "", bad))),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except InvalidConfigError as error:
            if why in str(error):
                continue
            raise
        except SerializationError:
            continue
        pytest.fail(f"call {number} was not refused")
    assert set(raw.keys(f"{prefix}:*")) <= {f"{prefix}:layout".encode()}


@pytest.mark.parametrize("ns", [5, b"ns", ["ns"], True])
def test_a_namespace_of_another_type_is_refused(saver: RedisSaver, ns: Any) -> None:
    for verb in every_verb(saver, at("t", ns)):
        with pytest.raises(InvalidConfigError, match="checkpoint_ns"):
            verb()


@pytest.mark.parametrize("id", [5, b"id", ["id"]])
def test_a_checkpoint_id_of_another_type_is_refused(saver: RedisSaver, id: Any) -> None:
    for verb in every_verb(saver, at("t", "", id)):
        with pytest.raises(InvalidConfigError, match="checkpoint_id"):
            verb()
    with pytest.raises(InvalidConfigError, match="id"):
        saver.put(at("t"), {**checkpoint({"n": 1}), "id": id}, metadata(), {"n": 1})


def test_an_empty_checkpoint_id_is_refused_by_those_who_need_one(saver: RedisSaver) -> None:
    with pytest.raises(InvalidConfigError, match="empty id"):
        saver.put(at("t"), {**checkpoint({"n": 1}), "id": ""}, metadata(), {"n": 1})
    for config in (at("t"), at("t", "", "")):
        with pytest.raises(InvalidConfigError, match="no checkpoint_id"):
            saver.put_writes(config, [("n", 1)], "task")


def test_empty_ids_are_ids(saver: RedisSaver) -> None:
    made = put(saver, at(""), {"n": 1})
    saver.put_writes(made, [("", 1)], "", "")
    found = saver.get_tuple(at(""))
    assert found.pending_writes == [("", "", 1)]
    assert [each.config["configurable"]["thread_id"] for each in saver.list(None)] == [""]
    saver.copy_thread("", "copy")
    saver.delete_thread("")
    assert saver.get_tuple(at("")) is None
    assert saver.get_tuple(at("copy")) is not None


# --- values -----------------------------------------------------------------------------------------------------------


class Unwilling:
    pass


def refusing() -> JsonPlusSerializer:
    class Refusing(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            if isinstance(obj, Unwilling):
                raise ValueError("no")
            return super().dumps_typed(obj)

    return Refusing()


def test_a_value_the_serializer_refuses_names_its_channel_and_writes_nothing(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, serde=refusing()) as saver:
        made = put(saver, at("t"), {"n": 1})
        before = {key: raw.dump(key) for key in raw.keys(f"{prefix}:*")}
        with pytest.raises(SerializationError, match=r"'bad channel'.*nothing was written"):
            put(saver, made, {"n": 2, "bad channel": Unwilling()})
        with pytest.raises(SerializationError, match=r"'task'.*'bad channel'.*nothing was written"):
            saver.put_writes(made, [("n", 2), ("bad channel", Unwilling())], "task")
        assert {key: raw.dump(key) for key in raw.keys(f"{prefix}:*")} == before
        put(saver, made, {"n": 3})


STRANGE_COUNTERS = [{"a": 5}, {"a": (1, -5)}, {"a": None}, {"a": ()}, {"a": "xy"}]


@pytest.mark.parametrize("counters", [{"a": (1, 2**40)}, [1], "text", *STRANGE_COUNTERS])
def test_metadata_that_only_looks_like_langgraphs_is_stored_like_any_other(saver: RedisSaver, counters: Any) -> None:
    put(saver, at("t"), {"n": 1}, counters_since_delta_snapshot=counters)
    stored = saver.get_tuple(at("t")).metadata["counters_since_delta_snapshot"]
    assert stored == json.loads(json.dumps(counters))  # msgpack has no tuples either


HUGE_VERSIONS = ["9" * 32, "0" * 11 + "18446744073709551616" + "0", f"{2**64:032}"]


@pytest.mark.parametrize("version", [f"{2**63:032}", *HUGE_VERSIONS])
def test_a_version_of_32_digits_may_be_any_number(saver: RedisSaver, version: str) -> None:
    made = checkpoint({"n": 1}, {"n": version})
    saver.put(at("t"), made, metadata(), {"n": version})
    assert saver.get_tuple(at("t")).checkpoint["channel_versions"] == {"n": version}


@pytest.mark.parametrize("strategy", ["", "keep_last", "KEEP_LATEST", None, 1])
def test_an_unknown_prune_strategy_names_the_known_ones(saver: RedisSaver, strategy: Any) -> None:
    made = put(saver, at("t"), {"n": 1})
    put(saver, made, {"n": 2})
    for threads in (["t"], []):
        with pytest.raises(ValueError, match="'keep_latest', 'delete', 'delete_all'"):
            saver.prune(threads, strategy=strategy)
    assert len(list(saver.list(at("t")))) == 2


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "{}", "a\0", None, 5, b"lgrs", "\ud800"])
def test_a_prefix_that_would_break_keys_is_refused(prefix: Any) -> None:
    with pytest.raises(ValueError, match="prefix"):
        RedisSaver(prefix=prefix)


@pytest.mark.parametrize("compression", ["gzip", "LZ4", "", None, 1, [], b"lz4"])
def test_an_unknown_compression_names_the_known_ones(compression: Any) -> None:
    with pytest.raises(ValueError, match="'lz4', 'zlib', 'none'"):
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


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server of one test, to be reconfigured."""
    with EmbeddedServer.start() as running:
        yield running


def reads_and_writes(saver: RedisSaver, config: Any) -> list[Callable[[], Any]]:
    return [
        *every_verb(saver, config),
        lambda: saver.delete_thread("none"),
        lambda: saver.delete_for_runs(["none"]),
        lambda: saver.prune(["t"]),
        lambda: saver.copy_thread("t", "copy"),
        lambda: list(saver.list(None)),
        lambda: saver.ping(),
    ]


def test_a_server_that_is_not_there_is_unavailable_for_every_verb(tmp_path: pathlib.Path) -> None:
    saver = RedisSaver(f"unix://{tmp_path}/no-socket", redis_options={"retry": None})
    with saver:
        for verb in reads_and_writes(saver, at("t", "", new_id())):
            with pytest.raises(ServerUnavailableError, match="no-socket"):
                verb()


async def test_a_server_that_is_not_there_is_unavailable_async(tmp_path: pathlib.Path) -> None:
    async with RedisSaver(f"unix://{tmp_path}/no-socket", redis_options={"retry": None}) as saver:
        made = checkpoint({"n": 1})
        config = at("t", "", new_id())
        for verb in (
            lambda: saver.aget_tuple(config),
            lambda: saver.aput(config, made, metadata(), {"n": 1}),
            lambda: saver.aput_writes(config, [("n", 1)], "task"),
            lambda: saver.adelete_thread("t"),
            lambda: saver.aping(),
        ):
            with pytest.raises(ServerUnavailableError):
                await verb()


def start(folder: pathlib.Path, *options: str) -> subprocess.Popen[bytes]:
    """A bare redis-server on a socket in `folder`."""
    with EmbeddedServer.start() as other, redis.Redis.from_url(other.url) as client:
        program = shutil.which("redis-server") or client.info("server")["executable"]
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + WAIT
    while not (folder / "s").exists():
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.005)
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="unix sockets")
def test_a_saver_works_again_when_its_server_is_back(tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(os.path.realpath(tmp_path))
    saver = RedisSaver(f"unix://{folder}/s", redis_options={"retry": None})
    with saver:
        with pytest.raises(ServerUnavailableError):
            saver.get_tuple(at("t"))
        for _ in range(2):
            process = start(folder)
            try:
                assert saver.get_tuple(at("t")) is None
                made = put(saver, at("t"), {"n": 1})
                assert saver.get_tuple(made) is not None
            finally:
                process.kill()
                process.wait()
                (folder / "s").unlink(missing_ok=True)
            for verb in (lambda: saver.get_tuple(at("t")), lambda: put(saver, at("t"), {"n": 1})):
                with pytest.raises(ServerUnavailableError, match="no answer"):
                    verb()


def test_a_wrong_password_is_refused_and_the_right_one_works(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin:
        saver = RedisSaver(own_server.url, redis_options={"retry": None})
        with saver:
            config = put(saver, at("t"), {"n": 1})
            admin.config_set("requirepass", "right")
            saver.client.connection_pool.disconnect()
            for verb in reads_and_writes(saver, config):
                # a server that hangs up on a command it will not read may be heard as a connection that was reset
                with pytest.raises((ServerRefusedError, ServerUnavailableError)):
                    verb()
            wrong = own_server.url.replace("unix://", "unix://:wrong@")
            with RedisSaver(wrong) as other, pytest.raises(ServerRefusedError, match="password") as caught:
                other.get_tuple(config)
            assert "wrong@" not in str(caught.value)
            with RedisSaver(own_server.url.replace("unix://", "unix://:right@")) as other:
                assert other.get_tuple(config) is not None
            admin.config_set("requirepass", "")
            assert saver.get_tuple(config) is not None
            put(saver, config, {"n": 2})


def test_a_missing_password_is_named_whatever_the_length_of_the_command(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.config_set("requirepass", "right")
        saver.client.connection_pool.disconnect()
        for verb in reads_and_writes(saver, config):
            with pytest.raises(ServerRefusedError, match="password"):
                verb()


def test_a_user_without_the_right_is_refused(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+evalsha", "+eval", "+time")
        with RedisSaver(own_server.url.replace("unix://", "unix://reader:pw@")) as limited:
            assert limited.get_tuple(config) is not None
            with pytest.raises(ServerRefusedError):
                put(limited, config, {"n": 2})
            assert len(list(limited.list(at("t")))) == 1
            admin.execute_command("ACL", "SETUSER", "reader", "+@all")
            put(limited, config, {"n": 2})


def test_a_read_only_replica_reads_and_refuses_to_write(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, ttl=3600) as saver:
        config = put(saver, at("t"), {"n": 1})
        saver.put_writes(config, [("w", 1)], "task")
        put(saver, at("gone", ttl=0.02), {"n": 1})
        limit = time.monotonic() + WAIT
        while saver.get_tuple(at("gone")) is not None:
            assert time.monotonic() < limit
            time.sleep(0.05)  # a read counts as use
        admin.config_set("replica-serve-stale-data", "yes")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert [info.thread_id for info in saver.list_threads()] == ["t"]  # though a replica does not let it tidy up
        assert saver.get_tuple(config).pending_writes == [("task", "w", 1)]
        assert len(list(saver.list(at("t")))) == 1
        for verb in (
            lambda: put(saver, config, {"n": 2}),
            lambda: saver.put_writes(config, [("w", 2)], "other"),
            lambda: saver.delete_thread("t"),
            lambda: saver.copy_thread("t", "copy"),
        ):
            with pytest.raises(ServerRefusedError, match="read-only replica"):
                verb()
        admin.execute_command("REPLICAOF", "NO", "ONE")
        put(saver, config, {"n": 2})
        saver.put_writes(config, [("w", 2)], "other")
        assert len(list(saver.list(at("t")))) == 2


def test_a_full_server_refuses_writes_and_still_reads_and_deletes(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, ttl=3600) as saver:
        config = put(saver, at("t"), {"n": 1}, run_id="r")
        last = put(saver, config, {"n": 2}, run_id="r2")
        other = put(saver, at("other"), {"n": 1})
        third = put(saver, at("third"), {"n": 1}, run_id="r3")
        with RedisSaver(own_server.url, ttl=36_000) as longer:
            admin.config_set("maxmemory", "1")
            before = admin.dbsize()
            for verb in (
                lambda: put(saver, last, {"n": 3}),
                lambda: put(saver, at("new"), {"n": 3}),
                lambda: saver.put_writes(last, [("w", 1)], "task"),
                lambda: saver.copy_thread("t", "copy"),
                lambda: put(saver, last, {"big": os.urandom(5_000_000)}),
            ):
                with pytest.raises(ServerRefusedError, match="memory is full"):
                    verb()
            assert admin.dbsize() == before
            assert saver.get_tuple(last).checkpoint["channel_values"] == {"n": 2}
            assert longer.get_tuple(last) is not None  # its TTL is due for a refresh, which takes memory
            assert len(list(longer.list(at("other")))) == 1
            saver.prune(["t"])
            saver.delete_for_runs(["r3"])
            saver.delete_thread("other")
            assert saver.get_tuple(config) is None
            assert saver.get_tuple(other) is None
            assert saver.get_tuple(third) is None
            admin.config_set("maxmemory", "0")
        put(saver, last, {"n": 3})
        saver.put_writes(last, [("w", 1)], "task")
        assert saver.get_tuple(last).pending_writes == [("task", "w", 1)]


def test_a_server_without_enough_replicas_refuses_and_then_works(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, redis_options={"retry": None}) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.config_set("min-replicas-to-write", "1")
        with pytest.raises(ServerRefusedError, match="NOREPLICAS"):
            put(saver, config, {"n": 2})
        assert saver.get_tuple(config) is not None
        admin.config_set("min-replicas-to-write", "0")
        put(saver, config, {"n": 2})


def test_a_server_that_stops_answering_is_unavailable_in_time(own_server: EmbeddedServer) -> None:
    options = {"retry": None, "socket_timeout": 0.1}
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, redis_options=options) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.execute_command("CLIENT", "PAUSE", "1000", "ALL")
        begun = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="no answer"):
            saver.get_tuple(config)
        assert time.monotonic() - begun < 1
        admin.ping()  # waits until the pause is over
        assert saver.get_tuple(config).checkpoint["channel_values"] == {"n": 1}
        put(saver, config, {"n": 2})


def test_a_closed_saver_says_so_whatever_is_asked(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    config = put(saver, at("t"), {"n": 1})
    saver.close()
    for verb in reads_and_writes(saver, config):
        with pytest.raises(SaverClosedError, match="closed"):
            verb()


def test_every_error_of_the_package_is_one_of_its_tree() -> None:
    for kind in (InvalidConfigError, SerializationError, ServerRefusedError, ServerUnavailableError, SaverClosedError):
        assert issubclass(kind, CheckpointerError)
    assert issubclass(InvalidConfigError, ValueError)
    assert issubclass(ServerUnavailableError, ConnectionError)
