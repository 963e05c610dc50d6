"""The whole suite, or some of it, on savers that encrypt: `LGRS_KEYS=1 pytest tests/contract` gives each saver keys that it was not
given. Tests that look at stored bytes, or count them, fail then; those that `encryption/test_everything.py` names do not."""

from __future__ import annotations

from typing import Any

from langgraph_redis_state import RedisSaver

ENCRYPTION_KEY = bytes(range(32))
NAME_KEY = bytes(range(32, 64))


def give_keys() -> None:
    """From now on each saver of this process has keys."""
    made = RedisSaver.__init__

    def keyed(self: RedisSaver, *url: Any, **options: Any) -> None:
        made(self, *url, **{"encryption_key": ENCRYPTION_KEY, "name_key": NAME_KEY, **options})

    RedisSaver.__init__ = keyed  # type: ignore[method-assign]
