"""`AsyncRedisSaver`, `ShallowRedisSaver`, `AsyncShallowRedisSaver`: `RedisSaver` under the names of other packages.

For code that was written for those. They add no behaviour but what their docstrings say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any

from .saver import RedisSaver


class AsyncRedisSaver(RedisSaver):
    """`RedisSaver`, whose `setup()` is awaited. All methods of `RedisSaver` are here, sync and async."""

    def setup(self) -> Awaitable[None]:  # type: ignore[override]  # awaited here, as in the other savers of this name
        """Nothing is needed before first use. `await saver.setup()` checks that the server can be reached; without `await`
        this returns at once and does nothing."""
        return _Setup(self)


class _Setup:
    """What `await saver.setup()` awaits. Unlike a coroutine it may be left alone."""

    def __init__(self, saver: RedisSaver) -> None:
        self._saver = saver

    def __await__(self) -> Generator[Any, Any, None]:
        return self._saver.asetup().__await__()


class ShallowRedisSaver(RedisSaver):
    """`RedisSaver` with `max_versions=1`: a thread keeps its newest root checkpoint.

    A put stores the new checkpoint, then removes the one before in round trips of its own. If the process ends or pending
    writes arrive in between, the next put removes both. An unanswered interrupt and a tagged checkpoint are kept as well.
    """

    def __init__(self, *url: Any, **options: Any) -> None:
        super().__init__(*url, **_shallow(type(self).__name__, options))


class AsyncShallowRedisSaver(AsyncRedisSaver):
    """`ShallowRedisSaver`, whose `setup()` is awaited."""

    def __init__(self, *url: Any, **options: Any) -> None:
        super().__init__(*url, **_shallow(type(self).__name__, options))


def _shallow(name: str, options: dict[str, Any]) -> dict[str, Any]:
    if options.setdefault("max_versions", 1) != 1:
        raise ValueError(f"{name} keeps one version; for {options['max_versions']!r} use RedisSaver(max_versions=...)")
    return options
