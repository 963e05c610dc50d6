"""Random operations on `RedisStore` and on `InMemoryStore`: the same results, but for the order of a search."""

from __future__ import annotations

import random
from typing import Any

import pytest
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from soak import times

from langgraph_redis_state import RedisStore

LABELS = ["a", "b", "ab", "a:b", "*", "x\n"]


def namespace(rng: random.Random, least: int = 1) -> tuple[str, ...]:
    return tuple(rng.choice(LABELS) for _ in range(rng.randint(least, 3)))


def value(rng: random.Random) -> dict[str, Any]:
    return {
        "n": rng.randrange(5),
        "kind": rng.choice(["x", "y"]),
        "in": {"deep": rng.randrange(3), "list": [rng.randrange(2), "t"]},
    }


def condition(rng: random.Random) -> dict[str, Any]:
    chosen: list[dict[str, Any]] = [
        {"n": rng.randrange(5)},
        {"n": {rng.choice(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]): rng.randrange(5)}},
        {"kind": "x", "in": {"deep": {"$gt": 0}}},
        {"in": {"list": [1, "t"]}},
        {"absent": {"$ne": 1}},
    ]
    return rng.choice(chosen)


def operation(rng: random.Random) -> Op:
    kind = rng.randrange(10)
    key = f"k{rng.randrange(4)}"
    if kind < 4:
        return PutOp(namespace(rng), key, value(rng))
    if kind == 4:
        return PutOp(namespace(rng), key, None)
    if kind == 5:
        return GetOp(namespace(rng), key)
    if kind < 8:
        return SearchOp(namespace(rng, 0), condition(rng) if rng.random() < 0.7 else None, limit=10_000)
    paths = [MatchCondition(rng.choice(["prefix", "suffix"]), namespace(rng)) for _ in range(rng.randrange(3))]  # type: ignore[arg-type]
    return ListNamespacesOp(tuple(paths), rng.choice([None, 1, 2]), limit=rng.choice([2, 100]), offset=rng.choice([0, 1]))


def shape(result: Any, ordered: bool) -> Any:
    if isinstance(result, Item):
        return (result.namespace, result.key, result.value)
    if isinstance(result, list):
        return [shape(each, True) for each in result] if ordered else sorted((shape(each, True) for each in result), key=repr)
    return result


def without_empty(memory: InMemoryStore) -> None:
    """InMemoryStore also lists namespaces that became empty, or were only asked for; the SQL stores do not."""
    for space in [space for space, held in memory._data.items() if not held]:
        del memory._data[space]


@pytest.mark.parametrize("seed", range(times(3, 40)))
async def test_random_operations_give_what_they_give_in_memory(url: str, prefix: str, seed: int) -> None:
    rng = random.Random(seed)
    memory = InMemoryStore()
    async with RedisStore(url, prefix=prefix) as store:
        for _ in range(times(40, 150)):
            # a get makes an empty namespace in memory, which a listing behind it would name
            ops = sorted((operation(rng) for _ in range(rng.choice([1, 1, 1, 6]))), key=lambda op: isinstance(op, GetOp))
            without_empty(memory)
            expected = memory.batch(ops)
            found = store.batch(ops) if rng.random() < 0.5 else await store.abatch(ops)
            for op, one, other in zip(ops, found, expected, strict=True):
                ordered = not isinstance(op, SearchOp)
                assert shape(one, ordered) == shape(other, ordered), op
        assert await store.arepair() == 0
