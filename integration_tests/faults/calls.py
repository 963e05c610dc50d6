"""What the fault tests call on a saver, and with what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from shapes import at, listed, new_id, put

BIG = [f"{n}: " + "some words that differ " * 8 for n in range(1_500)]
"""About 300 KB in 1,500 elements: several chunks."""

Open = Callable[..., Any]
"""The fixture `open_on`."""


def every_method(saver: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "get_tuple": lambda: saver.aget_tuple(at("t")),
        "list": lambda: listed(saver, at("t")),
        "list(None)": lambda: listed(saver, None),
        "put": lambda: put(saver, at("t"), {"x": BIG}),
        "put_writes": lambda: saver.aput_writes(at("t", "", new_id()), [("x", 1)], "task"),
        "delete_thread": lambda: saver.adelete_thread("t"),
        "delete_for_runs": lambda: saver.adelete_for_runs(["r"]),
        "copy_thread": lambda: saver.acopy_thread("t", "u"),
        "prune": lambda: saver.aprune(["t"]),
        "get_delta_channel_history": lambda: saver.aget_delta_channel_history(config=at("t"), channels=["x"]),
    }
