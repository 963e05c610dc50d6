"""Statements: what is frozen, when, and that all frozen fields of a checkpoint say the same."""

from __future__ import annotations

import random

import pytest

from langgraph_redis_state.storage.statements import COLD, KEPT, Entry, Frozen, Statement, Where

ROOTS: list[Where] = [(b"", b"%03d" % n) for n in range(100)]


def test_an_entry_is_cold_after_two_rounds_and_frozen_by_the_next_put() -> None:
    statement = Statement()
    frozen: list[Frozen] = []
    for n in range(5):
        statement, gone = statement.put(ROOTS[n], b"record %d" % n)
        frozen.append(gone)
    assert [list(each) for each in frozen] == [[], [], [], [ROOTS[0]], [ROOTS[1]]]
    assert [entry.state for entry in statement.entries.values()] == [COLD, 0, 0]
    statement = statement.wrote(ROOTS[2], b"writes")
    for n in range(5, 10):
        statement, _ = statement.put(ROOTS[n], b"record")
    assert statement.entries[ROOTS[2]] == Entry(b"record 2", b"writes", 5, KEPT)


def test_an_entry_without_a_record_is_not_frozen() -> None:
    statement = Statement().wrote(ROOTS[99], b"early")
    for n in range(9):
        statement, gone = statement.put(ROOTS[n], b"record")
        assert ROOTS[99] not in gone
    assert statement.entries[ROOTS[99]] == Entry(b"", b"early", 0)


@pytest.mark.parametrize("seed", range(20))
def test_all_frozen_fields_of_a_checkpoint_are_equal_also_of_writes_that_never_came_through(seed: int) -> None:
    """Somebody may keep what a call brought that the server refused, never got, or that was cut off."""
    chance = random.Random(seed)
    statement, stored, brought = Statement(), Frozen(), dict[Where, set[tuple[bytes, bytes]]]()
    for step in range(300):
        spaces = [b"", b"", b"remembers", b"call:%d" % (step // 20)]
        where = chance.choice(spaces), b"%03d" % (step if chance.random() < 0.7 else chance.randrange(step + 1))
        before = None if where in statement.entries else stored.get(where)
        if chance.random() < 0.5:
            after, gone = statement.put(where, b"record %d" % step, before)
        else:
            after, gone = statement.wrote(where, b"writes %d" % step, before), {}
        for each, entry in gone.items():
            brought.setdefault(each, set()).add(entry[:2])
        if chance.random() < 0.7:  # else it does not come through
            statement, stored = after, {each: entry for each, entry in {**stored, **gone}.items() if each != where}
    assert stored
    assert {len(each) for each in brought.values()} == {1}
    assert len(statement.entries) < 150
