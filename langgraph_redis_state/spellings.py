"""Arguments under the names that other savers give them: taken, or answered with the name here. No I/O.

Code that was written for langgraph-checkpoint-redis, ValkeySaver or langgraph-checkpoint-plainredis constructs a saver of this
package after its import was changed. `docs/migration.md` has one table for each of these packages, and a test compares the
tables with this module. Type checkers know only the names of `RedisSaver`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

P = ParamSpec("P")

ALIASES: Mapping[str, str] = {
    "redis_url": "url",
    "conn_string": "url",
    "redis_client": "client",
    "connection_args": "redis_options",
    "checkpoint_prefix": "prefix",
    "ttl_seconds": "ttl",
}
"""Another saver's name for an option of `RedisSaver` that means the same. None under such a name means: not given."""

_IN_THE_URL = "name the server in the URL: url='redis://user:password@host:6379/0'"

ANSWERS: Mapping[str, str] = {
    "checkpoint_write_prefix": "everything has one prefix; leave it out, and set prefix=",
    "key_cache_max_size": "leave it out; cache_bytes= bounds the memory of a saver, in bytes",
    "channel_cache_max_size": "leave it out; cache_bytes= bounds the memory of a saver, in bytes",
    "host": _IN_THE_URL,
    "port": _IN_THE_URL,
    "db": _IN_THE_URL,
    "username": _IN_THE_URL,
    "password": _IN_THE_URL,
}
"""Arguments of other savers that have no counterpart, and what to do instead."""

_CONNECTION = ("socket_", "ssl_", "retry", "health_check_interval", "max_connections", "protocol", "client_name", "decode_resp")
"""How the names of connection options begin, which others take beside their own."""


def taking_other_spellings(construct: Callable[P, None]) -> Callable[P, None]:
    """`RedisSaver.__init__`, called with the names of other savers too, and with a client as its first argument."""

    @functools.wraps(construct)
    def constructing(*args: P.args, **options: P.kwargs) -> None:
        given: dict[str, Any] = dict(options)
        place = list(args)
        if len(place) > 1 and hasattr(type(place[1]), "execute_command"):
            given = {"redis_client": place.pop(1), **given}
        elif len(place) > 1 and place[1] is None and ALIASES.keys() & given.keys():
            place.pop(1)
        construct(*place, **translated(given, "url" if len(place) > 1 else None))  # type: ignore[arg-type]

    return constructing


def translated(options: Mapping[str, Any], by_position: str | None = None) -> dict[str, Any]:
    """`options` under the names of `RedisSaver`.

    Raises:
        TypeError: a name means nothing here, and the message says what to use; or one option was given under two names.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {} if by_position is None else {by_position: "the first argument"}
    for name, value in options.items():
        if name in ANSWERS:
            raise TypeError(f"RedisSaver has no argument {name!r}: {ANSWERS[name]} (docs/migration.md)")
        if name.startswith(_CONNECTION):
            raise TypeError(f"RedisSaver takes connection options as redis_options={{{name!r}: ...}} (docs/migration.md)")
        if value is None and name in (*ALIASES, "pool_size"):
            continue
        right = _option(name, value)
        if right in origin and (name, origin[right]) != (right, right):
            raise TypeError(f"RedisSaver got {right!r} twice: as {origin[right]!r} and as {name!r}; pass one of them")
        origin[right], found[right] = name, value
    if "pool_size" in found:
        size = found.pop("pool_size")
        others = found.get("redis_options") or {}
        if "max_connections" in others:
            raise TypeError("RedisSaver got 'max_connections' twice: in redis_options and as 'pool_size'; pass one of them")
        found["redis_options"] = {**others, "max_connections": size}
    return found


def _option(name: str, value: Any) -> str:
    right = ALIASES.get(name, name)
    if name == "redis_client" and inspect.iscoroutinefunction(getattr(type(value), "execute_command", None)):
        return "async_client"
    return right
