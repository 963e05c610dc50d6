"""A user who lacks one command: a call of the store is refused before anything is written, or does not need it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.store.base import PutOp

from langgraph_redis_state import RedisStore
from langgraph_redis_state.effects import Script
from langgraph_redis_state.errors import ServerRefusedError
from langgraph_redis_state.scripts import store_commands

HERE = ("users", "ada")
SCRIPTS = [each for each in vars(store_commands).values() if isinstance(each, Script) and each is not store_commands.SIMILAR]
COMMANDS = sorted(frozenset[str]().union(*(script.commands for script in SCRIPTS)))
LOOKING = sorted(store_commands.READ.commands | store_commands.SEARCH.commands | store_commands.SPACES.commands)

VERBS: dict[str, Callable[[RedisStore], Any]] = {
    "put": lambda store: store.put(HERE, "k", {"n": 2}, ttl=2),
    "batch": lambda store: store.batch([PutOp(HERE, f"{n}", None if n == 1 else {"n": n}) for n in range(3)]),
    "delete": lambda store: store.delete(HERE, "k"),
    "sweep_ttl": lambda store: store.sweep_ttl(),
    "repair": lambda store: store.repair(),
}


@contextlib.contextmanager
def user(raw: Any, prefix: str, *rules: str) -> Iterator[str]:
    """The URL of a user with these rules."""
    raw.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">pw", *rules)
    try:
        yield f"unix://{prefix}:pw@{raw.connection_pool.connection_kwargs['path']}"
    finally:
        raw.execute_command("ACL", "DELUSER", prefix)


def bytes_of(raw: Any, prefix: str) -> dict[bytes, bytes]:
    return {key: raw.dump(key) for key in raw.scan_iter(match=f"{prefix}:*", count=1000)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_right_that_is_missing_refuses_the_call_before_anything_is_written(
    memories: RedisStore, raw: Any, prefix: str, verb: str
) -> None:
    for key in ("k", "1"):
        memories.put(HERE, key, {"n": 1}, ttl=1)
    before, refused = bytes_of(raw, prefix), set()
    for command in COMMANDS:
        with user(raw, prefix, f"~{prefix}:*", "+@all", f"-{command.lower()}") as url, RedisStore(url, prefix=prefix) as store:
            said = ""
            try:
                VERBS[verb](store)
            except ServerRefusedError as error:
                said = str(error)
        if said:
            assert command in said
            assert bytes_of(raw, prefix) == before
            refused.add(command)
        before = bytes_of(raw, prefix)
    assert refused


def test_looking_needs_these_commands_and_no_right_to_write(memories: RedisStore, raw: Any, prefix: str) -> None:
    memories.put(HERE, "k", {"n": 1}, ttl=1)
    allowed = [f"+{command.lower()}" for command in (*LOOKING, "GET", "EVALSHA", "EVAL", "PING")]
    with user(raw, prefix, f"~{prefix}:*", *allowed) as url, RedisStore(url, prefix=prefix, read_only=True) as store:
        assert store.get(HERE, "k").value == store.search(())[0].value == {"n": 1}  # type: ignore[union-attr]
        assert store.list_namespaces() == [HERE]
    assert LOOKING == ["EXISTS", "HGET", "HMGET", "TIME", "ZCARD", "ZRANGEBYLEX", "ZSCORE"]
