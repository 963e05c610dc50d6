"""`lgrs serve`: the page in the browser."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from .command import command
from .session import ERROR, Session, shell_word


@command("serve", {})
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--socket", "path", metavar="PATH", help="Listen on a unix socket, which only this user can open, instead.")
@click.option("--allow-others", is_flag=True, help="Allow an address that other machines reach, without TLS.")
@click.option("--write", is_flag=True, help="The page can also tag, fork and truncate.")
@click.option("--mask", is_flag=True, help="Show kinds and sizes in place of values.")
@click.option("--audit", metavar="FILE", help="Append a line for each look to this file, without values. Default: stderr.")
def serve(
    session: Session, host: str, port: int, path: str | None, allow_others: bool, write: bool, mask: bool, audit: str | None
) -> None:
    """Serves a page in the browser, for this machine and this user only.

    It prints an address that opens the page once. It only looks, unless `--write` is given.
    """
    serving = _serving(session)
    if serving is None:
        return
    saver = session.looking()
    saver.ping()
    try:
        listening = serving.unix_socket(path) if path else serving.tcp_socket(host, port, others=allow_others)
    except serving.AddressError as error:
        raise click.UsageError(str(error)) from error
    _audit_to(audit)

    def ready(address: str) -> None:
        session.say(address)
        session.flush()
        if path:
            session.tell(f"It is served on {path}: ssh -L 8765:{shell_word(str(Path(path).resolve()))}, or a proxy of your own")
        session.tell("The address works once. Ctrl-C ends the server.")

    steering = session.steering() if write else None
    serving.serve(saver, listening, host, steering=steering, mask=mask, ready=ready)


def _serving(session: Session) -> Any:
    """The room of the page; None, with a sentence, if its packages are not installed."""
    try:
        from ..web import serving
    except ImportError as missing:
        session.exit_code = ERROR
        session.tell(
            f"lgrs serve needs the package {missing.name}, which is not installed: pip install 'langgraph-redis-state[web]'"
        )
        return None
    return serving


def _audit_to(path: str | None) -> None:
    logger = logging.getLogger("langgraph_redis_state.audit")
    handler: logging.Handler = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
