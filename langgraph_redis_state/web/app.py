"""The page's application: routes, templates, and what errors become. Views block, and run in threads of their own.

Screens: / stuck now, /thread, /step, /diff, /raw, /cost, /health. Forms, with `--write`: /tag, /rollback, /truncate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from .. import (
    CheckpointerError,
    CheckpointNotFoundError,
    RedisSaver,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadNotFoundError,
)
from ..inspection.doctor import examine
from ..inspection.selecting import exists
from ..inspection.values import clean, line, size
from . import screens
from .guard import Guard, Sessions
from .health import Verification
from .survey import Survey

FOLDER = Path(str(resources.files(__package__)))

View = Callable[[Request], dict[str, Any]]


@dataclass
class Page:
    """What the views share."""

    saver: RedisSaver
    """One that only reads."""
    steering: RedisSaver | None
    """One that writes, with `--write`."""
    mask: bool
    survey: Survey
    verification: Verification
    where: str
    """The server and prefix, for the head of each screen."""


def address(path: str, **query: Any) -> str:
    """A link inside of the page. What ids hold is encoded; what is None or empty is left out."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def templates(page: Page) -> Environment:
    """The templates. Whatever one prints is made safe for a reader's eyes first, then escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.globals.update(address=address, where=page.where, write=page.steering is not None, mask=page.mask)
    environment.filters.update(size=size, line=line)
    environment.filters["moment"] = lambda when: when.strftime("%Y-%m-%d %H:%M:%S")
    return environment


def create(
    saver: RedisSaver, sessions: Sessions, hosts: Collection[str], *, steering: RedisSaver | None = None, mask: bool = False
) -> ASGIApp:
    """The application with its guard.

    Args:
        saver: a `read_only` saver with structural values.
        sessions: has the one-time token.
        hosts: what a Host header may say.
        steering: with `--write`, a saver that writes.
    """
    where = repr(saver).partition("(")[2].removesuffix(")").replace("'", "").replace(", prefix=", " · ")
    page = Page(saver, steering, mask, Survey(saver), Verification(saver), where)
    environment = templates(page)

    def render(name: str, request: Request, context: dict[str, Any], code: int = 200) -> Response:
        text = environment.get_template(name).render(csrf=request.scope.get("csrf", ""), path=request.url.path, **context)
        return HTMLResponse(text, code)

    def shown(template: str, view: View) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            context = await run_in_threadpool(view, request)
            if context.get("unchanged"):
                return Response(status_code=204)
            return render(template, request, context)

        return answer

    async def failed(request: Request, error: Exception) -> Response:
        found = isinstance(error, CheckpointNotFoundError | ThreadNotFoundError)
        down = isinstance(error, ServerUnavailableError)
        code = 404 if found else 502 if down or isinstance(error, ServerRefusedError) else 500
        return render("error.html", request, {"message": clean(str(error))}, code)

    async def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return render("error.html", request, {"message": clean(error.detail)}, error.status_code)

    views = Views(page)
    routes = [
        Route("/", shown("stuck.html", views.stuck)),
        Route("/stuck", shown("stuck_rows.html", views.stuck)),
        Route("/thread", shown("thread.html", views.thread)),
        Route("/thread/live", shown("thread_live.html", views.thread_live)),
        Route("/step", shown("step.html", views.step)),
        Route("/diff", shown("diff.html", views.diff)),
        Route("/raw", shown("raw.html", views.raw)),
        Route("/cost", shown("cost.html", views.cost)),
        Route("/health", shown("health.html", views.health)),
        Route("/health/progress", shown("verification.html", views.progress)),
        Route("/health/verify", posted(views.verify), methods=["POST"]),
        Route("/tag", posted(views.tag), methods=["POST"]),
        Route("/rollback", posted(views.rollback), methods=["POST"]),
        Route("/truncate", posted(views.truncate), methods=["POST"]),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ]
    app = Starlette(routes=routes, exception_handlers={CheckpointerError: failed, HTTPException: wrong})
    return Guard(app, sessions, hosts, write=steering is not None)


def posted(change: Callable[[Request, dict[str, str]], str]) -> Callable[[Request], Awaitable[Response]]:
    """A form: does it, and goes on to where it says."""

    async def answer(request: Request) -> Response:
        return RedirectResponse(await run_in_threadpool(change, request, request.scope["form"]), 303)

    return answer


class Views:
    """What each route shows or does. Each blocks."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def stuck(self, request: Request) -> dict[str, Any]:
        status, whole = request.query_params.get("status", ""), request.query_params.get("whole") == "1"
        return screens.stuck(self._page.survey, whole=whole, status=status, mask=self._page.mask)

    def thread(self, request: Request) -> dict[str, Any]:
        steps = _number(request.query_params.get("steps"), screens.STEPS, 5000)
        return screens.thread(self._page.saver, self._thread(request), mask=self._page.mask, steps=steps)

    def thread_live(self, request: Request) -> dict[str, Any]:
        found = self.thread(request)
        return {"unchanged": True} if found["mark"] == request.query_params.get("mark") else found

    def step(self, request: Request) -> dict[str, Any]:
        return screens.step(self._page.saver, self._thread(request), *_at(request), mask=self._page.mask)

    def diff(self, request: Request) -> dict[str, Any]:
        return screens.diff(self._page.saver, self._thread(request), *_at(request), mask=self._page.mask)

    def raw(self, request: Request) -> dict[str, Any]:
        at, ns = _at(request)
        channel = request.query_params.get("channel", "")
        return screens.raw(self._page.saver, self._thread(request), at or "", ns, channel, mask=self._page.mask)

    def cost(self, request: Request) -> dict[str, Any]:
        return screens.cost(self._page.saver, self._thread(request))

    def health(self, request: Request) -> dict[str, Any]:
        checks = examine(self._page.saver, self._page.steering)
        return {"checks": checks, **self.progress(request)}

    def progress(self, request: Request) -> dict[str, Any]:
        return {"verification": self._page.verification}

    def verify(self, request: Request, form: dict[str, str]) -> str:
        self._page.verification.start()
        return "/health"

    # --- steering ---

    def tag(self, request: Request, form: dict[str, str]) -> str:
        thread, at = self._place(request)
        if not form.get("name", "").strip():
            raise HTTPException(400, "a tag needs a name")
        self._steering().tag(thread, form["name"].strip(), at)
        return address("/thread", id=thread)

    def rollback(self, request: Request, form: dict[str, str]) -> str:
        thread, at = self._place(request)
        self._steering().rollback(thread, at)
        return address("/thread", id=thread)

    def truncate(self, request: Request, form: dict[str, str]) -> str:
        thread, at = self._place(request)
        if form.get("typed", "") != line(thread):
            raise HTTPException(400, "nothing was changed: what was typed is not the id of the thread")
        self._steering().rollback(thread, at, mode="truncate")
        return address("/thread", id=thread)

    def _steering(self) -> RedisSaver:
        if self._page.steering is None:
            raise HTTPException(403, "this server only looks")
        return self._page.steering

    def _place(self, request: Request) -> tuple[str, str]:
        at, _ = _at(request)
        if not at:
            raise HTTPException(400, "which checkpoint?")
        return self._thread(request), at

    def _thread(self, request: Request) -> str:
        thread = request.query_params.get("id", "")
        if "\0" in thread or not exists(self._page.saver, thread):
            raise HTTPException(404, f"there is no thread {line(thread)[:200]!r}; was it deleted, or did it expire?")
        return thread


def _at(request: Request) -> tuple[str | None, str]:
    at, ns = request.query_params.get("at"), request.query_params.get("ns", "")
    if "\0" in (at or "") + ns:
        raise HTTPException(404, "there is no such checkpoint")
    return at or None, ns


def _number(text: str | None, default: int, most: int) -> int:
    return min(int(text), most) if text and text.isdecimal() and len(text) < 8 else default
