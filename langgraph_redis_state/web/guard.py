"""Who may ask: what stands before every answer of the page. It shows conversations of people, so nothing is left to chance.

Rule 1: a request names one of our own hosts (else it came by DNS rebinding), and if it has an Origin, that is ours.
Rule 2: it brings the cookie that the one-time token of the command line was exchanged for, HttpOnly and SameSite=Strict.
Rule 3: what changes something is a POST with an Origin and the CSRF token of this cookie, on a server started with `--write`.
Rule 4: every answer forbids scripts, styles, frames and forms from anywhere else, and is never stored.
Rule 5: each look leaves a line: when, which cookie (its first digits), what of which thread. No values.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Collection
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

audit = logging.getLogger("langgraph_redis_state.audit")

COOKIE = "lgrs"

TOKEN_SECONDS = 600.0
"""So long the token of the command line can be exchanged."""

POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'; "
    "img-src 'self'; script-src 'self'; style-src 'self'"
)

HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

LOOKING_POSTS = frozenset({"/health/verify"})
"""Forms that only read, so they need no `--write`."""

BODY_MAX = 16 * 1024
"""Bytes of a form."""


class Sessions:
    """The one-time token, and the cookies it was exchanged for. Only digests of cookies are kept."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._made = time.monotonic()
        self._known: set[bytes] = set()
        self._key = secrets.token_bytes(32)

    def exchange(self, token: str) -> str | None:
        """A cookie for the token, once; None for a wrong, used or old one."""
        mine, self_made = self.token, self._made
        if not mine or not hmac.compare_digest(token.encode(), mine.encode()):
            return None
        self.token = ""
        if time.monotonic() - self_made > TOKEN_SECONDS:
            return None
        cookie = secrets.token_urlsafe(32)
        self._known.add(_digest(cookie))
        return cookie

    def knows(self, cookie: str) -> bool:
        digest = _digest(cookie)
        return digest in self._known  # digests of secrets tell nothing of them, however long it takes

    def csrf(self, cookie: str) -> str:
        """What forms of this cookie carry."""
        return hmac.new(self._key, cookie.encode(), "sha256").hexdigest()


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


class Guard:
    """The ASGI application in front of the page's.

    Args:
        hosts: what a Host header may say, `name:port`; a Host without port means port 80.
        write: whether POST is allowed at all.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, hosts: Collection[str], *, write: bool) -> None:
        self._app, self._sessions, self._write = app, sessions, write
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (name, value) for name, value in message["headers"] if name.decode() not in HEADERS and name != b"server"
                ]
                message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is not None:
            audit.warning("refused %s %s: %s", request.method, scope["path"], bytes(refusal.body).decode())
            await refusal(scope, receive, sent)
            return
        if scope["path"] == "/enter":
            await self._enter(request)(scope, receive, sent)
            return
        cookie = request.cookies.get(COOKIE, "")
        if request.method == "POST":
            form = await _form(request)
            if form is None or not hmac.compare_digest(form.get("csrf", "").encode(), self._sessions.csrf(cookie).encode()):
                await _plain(403, "the form is too large, or its CSRF token is not that of this browser")(scope, receive, sent)
                return
            scope["form"] = form
        scope["csrf"] = self._sessions.csrf(cookie)
        if not scope["path"].startswith("/static/"):
            audit.info("%s %s %s?%s", _digest(cookie).hex()[:8], request.method, scope["path"], request.url.query)
        await self._app(scope, receive, sent)

    def _refusal(self, request: Request) -> Response | None:
        headers = Headers(scope=request.scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _plain(421, "this server does not answer to that Host")
        if any(origin.lower() not in self._origins for origin in origins) or len(origins) > 1:
            return _plain(403, "requests from another Origin are refused")
        if headers.get("sec-fetch-site") == "cross-site":
            return _plain(403, "requests from another site are refused")
        if request.method not in ("GET", "HEAD", "POST"):
            return _plain(405, "not allowed")
        if request.method == "POST" and not self._write and request.scope["path"] not in LOOKING_POSTS:
            return _plain(403, "this server only looks; `lgrs serve --write` also steers")
        if request.method == "POST" and not origins:
            return _plain(403, "a form without an Origin is refused")
        if request.scope["path"] == "/enter":
            return None
        if not self._sessions.knows(request.cookies.get(COOKIE, "")):
            return _plain(401, "open the address that `lgrs serve` printed; it works once. Start it again for another browser")
        return None

    def _enter(self, request: Request) -> Response:
        cookie = self._sessions.exchange(request.query_params.get("token", "")) if request.method == "GET" else None
        if cookie is None:
            return _plain(401, "this token was used, is too old, or is none; start `lgrs serve` again")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path="/")
        return answer


def _plain(code: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", code)


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form, each once; None if it is too large or no form."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX:
            return None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}
