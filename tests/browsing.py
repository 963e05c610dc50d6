"""Browsers of the page, without a browser."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

HOST = "127.0.0.1:8765"
ORIGIN = f"http://{HOST}"

Open = Callable[..., TestClient]
