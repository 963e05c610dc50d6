"""Bad ids and values: a clear error each, and nothing is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from refusing import every_verb
from shapes import at, checkpoint, metadata, new_id

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import InvalidConfigError, SerializationError


def put(saver: RedisSaver, config: Any, values: dict[str, Any], **more: Any) -> Any:
    made = checkpoint(values)
    return saver.put(config, made, metadata(**more), made["channel_versions"])


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
