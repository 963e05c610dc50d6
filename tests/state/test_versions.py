"""`RedisStatePersistence`: versions, replacing, rolling back, deleting."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from audit import audit, monitored
from soak import rare
from states import Make, loaded, numbers, thread

from langgraph_redis_state import CheckpointNotFoundError, RedisStatePersistence


def test_versions_count_on_from_the_highest_number(states: RedisStatePersistence) -> None:
    def save(version: Any = None) -> int | str:
        return states.save_with_metadata({"v": version}, "s", version=version).version

    assert [save(), save(), save(7), save(), save("draft"), save(), save(3), save()] == [1, 2, 7, 8, "draft", 9, 3, 10]
    assert numbers(states, "s") == [1, 2, 7, 8, "draft", 9, 3, 10]
    assert loaded(states, "s", "draft") == {"v": "draft"}
    assert loaded(states, "s", "7") == loaded(states, "s", 7) == {"v": 7}


def test_a_number_is_not_given_again_after_its_version_was_deleted(make: Make) -> None:
    states, other = make(), make()
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s")
    assert other.delete_version("s", 3)
    assert states.save_with_metadata({"n": 4}, "s").version == 4
    assert states.delete_version("s", 4)
    assert other.save_with_metadata({"n": 5}, "s").version == 5
    states.rollback("s", 1, truncate=True)
    assert other.save_with_metadata({"n": 6}, "s").version == 6
    assert states.rollback("s", 1).version == 7
    assert numbers(states, "s") == [1, 6, 7]
    assert states.save_with_metadata({"n": 5}, "s", version=5).version == 5, "but to who gives it"
    assert numbers(states, "s") == [1, 6, 7, 5]
    assert states.save_with_metadata({}, "s").version == 8


@pytest.mark.parametrize("seed", [0, 1, *map(rare, range(2, 10))])
def test_any_order_of_changes_by_several_programs(make: Make, raw: Any, namespace: str, seed: int) -> None:
    """What is shown is what a list in memory would show, nothing is left on the server that nobody refers to, and no number
    that was counted comes twice."""
    chosen = random.Random(seed)
    keep = chosen.choice([1, 2, 4, None])
    stores = [make(max_versions=keep) for _ in range(2)]
    expected: list[tuple[int | str, Any]] = []
    counted: set[int] = set()
    fields = {f"k{n}": f"{chosen.getrandbits(1600):x}" for n in range(chosen.choice([3, 60]))}
    for _ in range(60):
        states = chosen.choice([*stores, make(max_versions=keep)])
        what = chosen.choice(["save"] * 8 + ["named", "named", "replace", "delete", "newest", "rollback", "truncate", "all"])
        at = chosen.randrange(len(expected)) if expected else None
        if what == "save" or what == "named" or (what == "replace" and at is not None):
            fields[chosen.choice(list(fields))] = f"{chosen.getrandbits(1600):x}"
            label = {"save": None, "named": f"name-{chosen.random()}", "replace": at is not None and expected[at][0]}[what]
            saved = states.save_with_metadata(fields, "s", version=label).version
            if what == "replace" and at is not None:
                expected[at] = saved, dict(fields)
            else:
                expected.append((saved, dict(fields)))
        elif what in ("delete", "newest") and at is not None:
            label = expected.pop(at if what == "delete" else -1)[0]
            assert states.delete_version("s", label)
        elif what == "rollback" and at is not None:
            expected.append((states.rollback("s", expected[at][0]).version, expected[at][1]))
        elif what == "truncate" and at is not None:
            states.rollback("s", expected[at][0], truncate=True)
            del expected[at + 1 :]
        elif what == "all" and not chosen.randrange(4):
            assert states.delete_state("s") == bool(expected)
            expected.clear()
        if what in ("save", "rollback") and expected and at is not None:
            assert expected[-1][0] not in counted
        counted |= {label for label, _ in expected if isinstance(label, int)}
        if not expected:
            counted.clear()
        del expected[: -keep if keep else 0]
        reader = chosen.choice(stores)
        assert numbers(reader, "s") == [label for label, _ in expected]
        for label, content in expected[-2:]:
            assert loaded(reader, "s", label) == content
        audit(raw, states._engine.settings.prefix, "s", clean=True)


@pytest.mark.parametrize("keys", [5, 80])
def test_a_save_is_one_round_trip_and_one_more_where_it_pushes_a_version_out(make: Make, url: str, keys: int) -> None:
    states = make(max_versions=3)
    for n in range(4):  # the server learns the scripts
        states.save_with_metadata({"n": n}, "warm")
    for n in range(8):
        with monitored(url) as sent:
            states.save_with_metadata({f"k{k}": f"{k} {n} " * 50 for k in range(keys)}, "s", tags=[f"t{n}"])
        if n:
            assert sent == ["EVALSHA"] * (1 if n < 3 else 2)
    make(max_versions=3).save_with_metadata({"other": 1}, "s")
    with monitored(url) as sent:
        states.save_with_metadata({"n": 1}, "s")
    assert len([name for name in sent if name != "PING"]) <= 5, "refused, looked again, saved, removed what the other left"


def test_a_save_by_who_does_not_know_the_newest_version_looks_first(make: Make, url: str) -> None:
    one, other = make(), make()
    for states in (one, other):  # the server learns the scripts
        states.save_with_metadata({"n": 0}, "warm", ttl_seconds=100)
    one.save_with_metadata({"n": 1}, "s")
    for states, more, round_trips in (
        (other, {}, 2),  # looked, saved
        (one, {}, 3),  # refused, looked, saved
        (one, {}, 1),
        (one, {"ttl_seconds": 100}, 2),
    ):
        with monitored(url) as sent:
            states.save_with_metadata({"n": 2}, "s", **more)
        assert sent == ["EVALSHA"] * round_trips


async def test_a_save_is_one_round_trip_async(url: str, namespace: str) -> None:
    async with RedisStatePersistence(url, namespace=namespace) as states:
        for n in range(3):
            with monitored(url) as sent:
                await states.asave_with_metadata({"n": n}, "s")
        assert sent == ["EVALSHA"]


@pytest.mark.parametrize("version", [True, "", 1.5, b"1", [1], 2**63, -(2**70)])
def test_other_versions_are_refused(states: RedisStatePersistence, version: Any) -> None:
    with pytest.raises(ValueError, match="version"):
        states.save_with_metadata({}, "s", version=version)
    assert not states.exists("s")


def test_saving_an_existing_version_replaces_it_where_it_stands(states: RedisStatePersistence, raw: Any) -> None:
    secret, other = "secret " * 400, "another " * 400
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n, "own": f"{n} " * 500, "text": secret if n == 2 else other}, "s", tags=[f"t{n}"])
    before = states.list_versions("s")[1]
    chunks = raw.hlen(thread(states, "s").hash)
    again = states.save_with_metadata({"n": "new"}, "s", version=2, tags=["t9"])
    assert again.version == 2
    assert again.created_at == before.created_at <= again.updated_at
    assert numbers(states, "s") == [1, 2, 3]
    assert loaded(states, "s", 2) == {"n": "new"}
    assert loaded(states, "s") == {"n": 3, "own": "3 " * 500, "text": other}
    assert raw.hlen(thread(states, "s").hash) < chunks, "the replaced content is gone from the server"
    assert states.save_with_metadata({}, "s").version == 4


def test_replacing_the_newest_replaces_its_tags(states: RedisStatePersistence, raw: Any) -> None:
    states.save_with_metadata({"n": 1}, "s", version=1, tags=["a", "b"])
    states.save_with_metadata({"n": 2}, "s", version=1, tags=["b", "c"])
    assert states.search_by_tags(["a"]) == []
    assert [each.version for each in states.search_by_tags(["c"])] == [1]
    assert b"tag:a" not in b" ".join(raw.zrange(thread(states, "s").all[5], 0, -1))


def test_never_more_than_max_versions(make: Make, raw: Any) -> None:
    states = make(max_versions=3)
    for n in range(1, 9):
        states.save_with_metadata({"n": n, "text": f"{n}" * 2000}, "s")
        assert numbers(states, "s") == list(range(max(1, n - 2), n + 1))
        assert raw.zcard(thread(states, "s").all[1]) == min(n, 3)
    assert states.load_with_metadata("s", 5) is None
    assert states.get_stats()["versions"] == 3
    names = raw.hkeys(thread(states, "s").hash)
    assert sum(name[:1] == b"D" for name in names) == 3


def test_versions_beyond_those_kept_are_never_shown(make: Make) -> None:
    """A program that died between saving and removing left one too many; or the limit is lower now."""
    wide, narrow = make(max_versions=None), make(max_versions=2)
    for n in range(5):
        wide.save_with_metadata({"n": n}, "s")
    assert numbers(narrow, "s") == [4, 5]
    assert narrow.load_with_metadata("s", 3) is None
    assert not narrow.exists("s", 3)
    narrow.save_with_metadata({"n": 5}, "s")
    assert numbers(wide, "s") == [5, 6]


def test_without_versioning_one_is_kept(make: Make, raw: Any) -> None:
    states = make(enable_versioning=False)
    for n in range(5):
        states.save_with_metadata({"text": f"{n} " * 1000}, "s", tags=[f"t{n}"])
    assert numbers(states, "s") == [5]
    assert loaded(states, "s") == {"text": "4 " * 1000}
    names = raw.hkeys(thread(states, "s").hash)
    assert sorted(name[:1] for name in names) == [b"C", b"D", b"S"]
    assert len([each for each in raw.zrange(thread(states, "s").all[5], 0, -1) if each.startswith(b"Vtag:")]) == 1


def test_rollback_adds_a_version_and_loses_none(states: RedisStatePersistence) -> None:
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n, "text": "t" * 500}, "s", tags=[f"t{n}"])
    back = states.rollback("s", 1)
    assert (back.version, back.tags) == (4, ["t1"])
    assert back.checksum == states.list_versions("s")[0].checksum
    assert numbers(states, "s") == [1, 2, 3, 4]
    assert loaded(states, "s")["n"] == 1
    assert loaded(states, "s", 3)["n"] == 3
    assert [each.version for each in states.search_by_tags(["t1"])] == [4]


def test_rollback_by_truncation_removes_what_came_after(states: RedisStatePersistence) -> None:
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s", tags=[f"t{n}"])
    assert states.rollback("s", 2, truncate=True).version == 2
    assert numbers(states, "s") == [1, 2]
    assert states.search_by_tags(["t3"]) == []
    assert [each.version for each in states.search_by_tags(["t2"])] == [2]
    assert states.save_with_metadata({}, "s").version == 4


def test_rollback_to_nothing_is_an_error(states: RedisStatePersistence) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'s'"):
        states.rollback("s", 1)
    states.save_with_metadata({}, "s")
    for truncate in (False, True):
        with pytest.raises(CheckpointNotFoundError, match="version 7"):
            states.rollback("s", 7, truncate=truncate)
    assert numbers(states, "s") == [1]


def test_deleting_versions_and_with_the_last_the_state(states: RedisStatePersistence, raw: Any) -> None:
    states.save_with_metadata({"n": 1}, "s", tags=["a"])
    states.save_with_metadata({"n": 2}, "s", tags=["b"])
    assert states.delete_version("s", 2)
    assert not states.delete_version("s", 2)
    assert loaded(states, "s") == {"n": 1}
    assert [each.version for each in states.search_by_tags(["a"])] == [1]
    assert states.search_by_tags(["b"]) == []
    assert states.delete_version("s", 1)
    assert not states.exists("s")
    assert states.list_states() == []
    assert raw.keys(f"{states._engine.settings.prefix}:*") == [f"{states._engine.settings.prefix}:layout".encode()]


def test_a_deleted_state_can_be_saved_again_at_once(states: RedisStatePersistence) -> None:
    states.save_with_metadata({"n": 1}, "s")
    states.save_with_metadata({"n": 2}, "s")
    assert states.delete_state("s")
    assert states.save_with_metadata({"n": 3}, "s").version == 1
    assert loaded(states, "s") == {"n": 3}


def test_a_clock_behind_does_not_misplace_a_version(states: RedisStatePersistence, monkeypatch: pytest.MonkeyPatch) -> None:
    states.save_with_metadata({"n": 1}, "s")
    monkeypatch.setattr("langgraph_redis_state.storage.ids.uuid6", lambda: uuid.UUID("1d000000-0000-6000-8000-000000000000"))
    states.save_with_metadata({"n": 2}, "s")
    states.save_with_metadata({"n": 3}, "s")
    assert numbers(states, "s") == [1, 2, 3]
    assert loaded(states, "s") == {"n": 3}


def test_a_surplus_version_is_not_shown_again_when_a_newer_one_goes(make: Make) -> None:
    wide, narrow = make(max_versions=None), make(max_versions=3)
    for n in range(7):
        wide.save_with_metadata({"n": n}, "s")
    assert narrow.delete_version("s", 7)
    assert numbers(narrow, "s") == numbers(wide, "s") == [5, 6]
    for n in range(7):
        wide.save_with_metadata({"n": n}, "s")
    assert narrow.rollback("s", 13, truncate=True).version == 13
    assert numbers(narrow, "s") == numbers(wide, "s") == [12, 13]


def test_surplus_versions_are_removed_a_quarter_of_max_versions_at_a_time(make: Make, raw: Any, url: str) -> None:
    states = make(max_versions=12)
    for n in range(1, 31):
        with monitored(url) as sent:
            states.save_with_metadata({"n": n, "text": f"{n}" * 2000}, "s", tags=[f"t{n}"])
        due = n > 12 and n % 3 == 0
        assert n < 16 or sent == ["EVALSHA"] * (2 if due else 1)
        assert numbers(states, "s") == list(range(max(1, n - 11), n + 1))
        assert states.get_stats()["versions"] == (n if n < 12 else 12 + n % 3)
        assert not states.exists("s", n - 12)
        assert states.search_by_tags([f"t{n - 12}"]) == []
    assert sum(name[:1] == b"D" for name in raw.hkeys(thread(states, "s").hash)) == 12
    audit(raw, states._engine.settings.prefix, "s", clean=True)
