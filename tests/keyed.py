"""Tests on savers that encrypt: with `LGRS_KEYS=encrypt` in the environment each saver gets a key that it was not given, with
`LGRS_KEYS=encrypt,names` also a name key, and with `LGRS_KEYS=encrypt,fresh` freshness. A test that builds bytes of its own,
or says how many there are, fails then."""

from __future__ import annotations

from typing import Any

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.names import HiddenNames

ENCRYPTION_KEY = bytes(range(32))
NAME_KEY = bytes(range(32, 64))


def give_keys(names: bool, fresh: bool) -> None:
    """From now on each saver of this process encrypts. `names`: and hides them, and tests find its keys all the same; `fresh`:
    and makes statements."""
    made, built = RedisSaver.__init__, ThreadKeys.__init__
    keys: dict[str, Any] = {"encryption_key": ENCRYPTION_KEY, **({"name_key": NAME_KEY} if names else {}), "freshness": fresh}

    def keyed(self: RedisSaver, *url: Any, **options: Any) -> None:
        made(self, *url, **{**keys, **options})

    def found(self: ThreadKeys, prefix: str, thread: bytes, under: Any = None) -> None:
        built(self, prefix, thread, under or HiddenNames(NAME_KEY, prefix))

    RedisSaver.__init__ = keyed  # type: ignore[method-assign]
    if names:
        ThreadKeys.__init__ = found  # type: ignore[method-assign]
