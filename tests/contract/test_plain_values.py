"""Texts and numbers of a subclass (members of enums, scalars of numpy) are what they are equal to, wherever they are passed."""

from __future__ import annotations

import enum
import logging
import secrets
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from shapes import at, checkpoint, metadata

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence, Replicas
from langgraph_redis_state.errors import InvalidConfigError, SerializationError
from langgraph_redis_state.storage import keys
from langgraph_redis_state.validation import plain


class Role(str, enum.Enum):
    ADMIN = "admin"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(str):
    """Its text is one thing, and what it says of itself another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"

    def __format__(self, _: str) -> str:
        return "LOUD"


class Ratio(float):
    def __repr__(self) -> str:
        return "Ratio"

    __str__ = __repr__


class Strategy(enum.Enum):
    """As the agent server has it: its members are no texts."""

    DELETE = "delete"
    DELETE_ALL = "delete_all"
    KEEP_LATEST = "keep_latest"
    OTHER = "other"


ADMIN = [Role.ADMIN, Loud("admin"), np.str_("admin")]
SAME = [
    *((each, "admin") for each in ADMIN),
    *((each, 3) for each in (Level.HIGH, np.int64(3), np.uint8(3))),
    *((each, 1.5) for each in (Ratio(1.5), np.float64(1.5), np.float32(1.5))),
    (np.bool_(True), True),
]


def put(saver: RedisSaver, config: Any, value: int = 1, **more: Any) -> Any:
    made = checkpoint({"n": value})
    return saver.put(config, made, metadata(**more), made["channel_versions"])


@pytest.fixture
def owned(url: str, prefix: str) -> Iterator[RedisSaver]:
    with RedisSaver(url, prefix=prefix, index_metadata=["owner"]) as saver:
        yield saver


@pytest.fixture
def states(url: str, prefix: str) -> Iterator[RedisStatePersistence]:
    with RedisStatePersistence(url, prefix=prefix) as made:
        yield made


@pytest.mark.parametrize(("given", "same"), SAME, ids=repr)
def test_a_value_becomes_one_of_pythons_own_types(given: Any, same: Any) -> None:
    assert type(plain(given)) is type(same)
    assert plain(given) == same


@pytest.mark.parametrize(
    "other", [None, b"x", [], {}, Strategy.DELETE, np.array([1]), np.datetime64("2026-01-01"), 1j, uuid.uuid4()]
)
def test_a_value_of_another_kind_is_none_of_them(other: Any) -> None:
    assert plain(other) is None


@pytest.mark.parametrize(("given", "same"), SAME, ids=repr)
def test_threads_are_found_by_what_their_metadata_are_equal_to(owned: RedisSaver, given: Any, same: Any) -> None:
    try:
        put(owned, at("subclass"), owner=given)
    except SerializationError:  # LangGraph's serializer takes no scalars of numpy and no subclasses of float
        put(owned, at("subclass"), owner=same)
    put(owned, at("plain"), owner=same)
    for wanted in (given, same):
        assert {info.thread_id for info in owned.find_threads(owner=wanted)} == {"subclass", "plain"}


def test_metadata_that_only_look_equal_stay_different(owned: RedisSaver) -> None:
    for number, owner in enumerate((1, True, "1", 1.0)):
        put(owned, at(number), owner=owner)
    for number, owner in enumerate((np.int8(1), np.bool_(True), Loud("1"), Ratio(1.0))):
        assert [info.thread_id for info in owned.find_threads(owner=owner)] == [str(number)]


def test_a_value_that_cannot_be_indexed_is_refused_in_words(owned: RedisSaver) -> None:
    for value in (Strategy.DELETE, None, b"admin", np.array([1])):
        with pytest.raises(ValueError, match="values are text, numbers or booleans"):
            list(owned.find_threads(owner=value))


def test_a_key_of_the_index_may_be_of_a_subclass(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=[Role.ADMIN]) as saver:
        put(saver, at("t"), admin=1)
        assert [info.thread_id for info in saver.find_threads(admin=1)] == ["t"]


@pytest.mark.parametrize(
    ("thread", "same"), [*((each, "admin") for each in ADMIN), (Level.HIGH, "3"), (np.int64(3), "3")], ids=repr
)
def test_ids_are_what_they_are_equal_to(saver: RedisSaver, thread: Any, same: str) -> None:
    put(saver, at(thread, Loud("")))
    assert saver.get_tuple(at(same)) is not None
    assert [info.thread_id for info in saver.list_threads(prefix=Loud(same[:1]))] == [same]
    for verb in (saver.stats, saver.tags, saver.persist, lambda each: list(saver.history(each))):
        verb(thread)
    saver.copy_thread(thread, Loud("copy"))
    assert saver.get_tuple(at("copy")) is not None
    saver.prune([thread], strategy="delete")
    assert saver.get_tuple(at(same)) is None


def test_ids_of_checkpoints_tasks_namespaces_and_channels_are_too(saver: RedisSaver) -> None:
    made = checkpoint({Role.ADMIN: 1})
    made["id"] = Loud(made["id"])
    config = saver.put(at("t", Loud("ns")), made, metadata(parents={Loud(""): Loud("")}), made["channel_versions"])
    saver.put_writes(config, [(Role.ADMIN, 5)], Loud("task"), Loud("path"))
    found = saver.get_tuple(at("t", "ns", str.__str__(made["id"])))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"admin": 1}
    assert found.pending_writes == [("task", "admin", 5)]
    assert found.config["configurable"]["checkpoint_id"] == str.__str__(made["id"])


@pytest.mark.parametrize(("run", "same"), [*((each, "admin") for each in ADMIN), (np.int64(3), "3"), (Level.HIGH, 3)], ids=repr)
def test_runs_are_deleted_by_what_their_ids_are_equal_to(saver: RedisSaver, run: Any, same: Any) -> None:
    put(saver, at("a"), run_id=same if isinstance(run, np.integer) else run)
    put(saver, at("b"), run_id=same)
    saver.delete_for_runs([run])
    assert saver.get_tuple(at("a")) is None
    assert saver.get_tuple(at("b")) is None


def test_a_run_id_that_is_none_is_refused_in_words(saver: RedisSaver) -> None:
    for run in (None, True, 1.5, b"run", {}):
        with pytest.raises(InvalidConfigError, match="delete_for_runs: a run id must be a string"):
            saver.delete_for_runs([run])


def test_tags_steps_and_numbers_are_what_they_are_equal_to(saver: RedisSaver) -> None:
    first = put(saver, at("t"), 1)
    second = put(saver, first, 2)
    saver.tag("t", Role.ADMIN, Loud(first["configurable"]["checkpoint_id"]))
    assert list(saver.tags("t")) == ["admin"]
    assert saver.rollback("t", np.int64(-1), mode=Loud("truncate")) is not None
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 1}
    assert saver.diff("t", Role.ADMIN, "admin") == {}
    assert len(list(saver.list(at("t"), limit=np.int64(1)))) == len(list(saver.history("t", limit=Level.HIGH))) == 1
    assert saver.untag("t", Loud("admin"))
    assert second


def test_a_prefix_and_a_namespace_are_what_they_are_equal_to(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=Loud(prefix)) as one, RedisSaver(url, prefix=prefix) as other:
        put(one, at("t"))
        assert other.get_tuple(at("t")) is not None
    with (
        RedisStatePersistence(Loud(url), namespace=Loud(prefix)) as one_space,
        RedisStatePersistence(url, namespace=prefix) as other_space,
    ):
        one_space.save_with_metadata({"n": 1}, "s")
        assert other_space.exists("s")
        assert other_space.delete_state("s")
    with AgentCheckpointer(url, namespace=Loud(prefix)) as agents, AgentCheckpointer(url, namespace=prefix) as same:
        agents.save_state(Role.ADMIN, {"todos": []})
        assert same.list_threads() == ["admin"]
        same.delete_thread("admin")


def test_states_versions_and_tags_are_what_they_are_equal_to(states: RedisStatePersistence) -> None:
    states.save_with_metadata({"n": 1}, Role.ADMIN, Loud("v1"), tags=[Role.ADMIN, Loud("admin")])
    saved = states.save_with_metadata({"n": 2}, Loud("admin"), np.int64(7), tags=[np.str_("admin")])
    assert (saved.state_id, saved.version, saved.tags) == ("admin", 7, ["admin"])
    assert [each.version for each in states.list_versions("admin")] == ["v1", 7]
    assert states.exists("admin", Level(3)) is False
    assert states.load_with_metadata("admin", Loud("v1"))[0] == {"n": 1}
    for tags in (["admin"], [Role.ADMIN], [Loud("admin")]):
        assert [each.state_id for each in states.search_by_tags(tags, match=Loud("all"))] == ["admin"]
    assert [each.state_id for each in states.list_states(prefix=Loud("ad"))] == ["admin"]
    assert states.delete_version(Role.ADMIN, np.str_("7"))


@pytest.mark.parametrize("prefix_given", [5, b"a", ("a", "b"), True])
def test_a_prefix_of_a_listing_that_is_no_text_is_refused(
    saver: RedisSaver, states: RedisStatePersistence, prefix_given: Any
) -> None:
    for listing in (lambda: list(saver.list_threads(prefix=prefix_given)), lambda: states.list_states(prefix=prefix_given)):
        with pytest.raises(ValueError, match="prefix must be text that ids begin with"):
            listing()


def test_numbers_of_a_level_of_durability_may_be_of_a_subclass() -> None:
    assert type(Replicas(np.int64(2)).count) is int


# --- prune


@pytest.mark.parametrize("strategy", ["delete_all", "delete", Strategy.DELETE_ALL, Strategy.DELETE, Loud("delete_all")])
async def test_prune_takes_the_name_and_the_enum_of_the_agent_server(
    asaver: RedisSaver, saver: RedisSaver, strategy: Any
) -> None:
    for prune in (saver.prune, asaver.aprune):
        put(saver, put(saver, at("t")), 2)
        await pruned if (pruned := prune(["t"], strategy=strategy)) else None
        assert saver.get_tuple(at("t")) is None


async def test_prune_keeps_the_latest_by_the_enum_too(asaver: RedisSaver, saver: RedisSaver) -> None:
    put(saver, put(saver, at("t")), 2)
    await asaver.aprune(["t"], strategy=Strategy.KEEP_LATEST, keep_last=np.int64(1))
    assert len(list(saver.list(at("t")))) == 1


@pytest.mark.parametrize("strategy", [Strategy.OTHER, Level.HIGH, Strategy, None])
def test_prune_refuses_other_members(saver: RedisSaver, strategy: Any) -> None:
    with pytest.raises(ValueError, match=r"prune: strategy .* is unknown; allowed are 'keep_latest', 'delete', 'delete_all'"):
        saver.prune(["t"], strategy=strategy)


def test_keep_last_does_not_go_with_any_deletion(saver: RedisSaver) -> None:
    for strategy in ("delete", "delete_all", Strategy.DELETE_ALL):
        with pytest.raises(ValueError, match="keep_last goes with 'keep_latest'"):
            saver.prune(["t"], strategy=strategy, keep_last=1)


# --- a config in place of an id, and an id that is empty


def verbs(saver: RedisSaver, states: RedisStatePersistence) -> list[Callable[[Any], Any]]:
    return [
        *(saver.delete_thread, saver.tags, saver.persist, saver.stats, saver.verify, saver.repair, saver.history),
        *(lambda config: saver.copy_thread(config, "x"), lambda config: saver.copy_thread("x", config)),
        *(
            lambda config: saver.prune([config]),
            lambda config: saver.rollback(config, -1),
            lambda config: saver.tag(config, "x"),
        ),
        *(lambda config: saver.untag(config, "x"), lambda config: saver.diff(config, -1, -2)),
        *(lambda config: saver.set_ttl(config, 5), states.list_versions, states.exists, states.delete_state, states.touch),
        *(states.load_with_metadata, lambda config: states.save_with_metadata({}, config)),
        *(lambda config: states.delete_version(config, 1), lambda config: states.rollback(config, 1)),
    ]


def test_a_config_in_place_of_a_thread_id_is_told_in_one_sentence(saver: RedisSaver, states: RedisStatePersistence) -> None:
    config = put(saver, at("t"))
    for verb in verbs(saver, states):
        with pytest.raises(InvalidConfigError, match=r"pass the thread id: config\['configurable'\]\['thread_id'\]"):
            list(verb(config) or ())


def test_a_config_in_place_of_several_ids_is_refused(saver: RedisSaver) -> None:
    for verb in (saver.prune, saver.delete_for_runs):
        with pytest.raises(TypeError, match="a sequence of ids, not a config"):
            verb(at("configurable"))


def test_a_config_in_place_of_a_checkpoint_is_told_too(saver: RedisSaver) -> None:
    config = put(saver, at("t"))
    for verb in (lambda: saver.rollback("t", config), lambda: saver.diff("t", config, -1), lambda: saver.tag("t", "x", config)):
        with pytest.raises(InvalidConfigError, match=r"pass the id: config\['configurable'\]\['checkpoint_id'\]"):
            verb()


def test_an_empty_thread_id_works_and_is_warned_of_once(saver: RedisSaver, caplog: pytest.LogCaptureFixture) -> None:
    keys._warn_of_empty_id.cache_clear()
    with caplog.at_level(logging.WARNING, "langgraph_redis_state"):
        put(saver, at(""))
        assert saver.get_tuple(at("")) is not None
    assert [record.getMessage()[:29] for record in caplog.records] == ["thread_id is the empty string"]


# --- secrets


@pytest.mark.parametrize(
    "key", [b"short", "short", b"x" * 15, "x" * 15, [secrets.token_bytes(32), b"short"], ["x" * 32, ""], "é" * 7, bytes(15)]
)
def test_a_short_integrity_key_is_refused_with_the_way_to_make_one(key: Any) -> None:
    with pytest.raises(ValueError, match=r"at least 16. Make one with secrets.token_bytes\(32\)"):
        RedisSaver(integrity_key=key)


@pytest.mark.parametrize("key", [b"x" * 16, "é" * 8, Loud("x" * 16), [secrets.token_bytes(32), "x" * 16]])
def test_an_integrity_key_of_sixteen_bytes_is_taken(key: Any) -> None:
    RedisSaver(integrity_key=key)
