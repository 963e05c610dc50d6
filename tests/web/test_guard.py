"""Who may ask the page, and what every answer says: each rule of guard.py, by requests."""

from __future__ import annotations

import logging
import re
import socket
import stat
from pathlib import Path

import pytest
from browsing import ORIGIN, Open
from shapes import at
from starlette.testclient import TestClient
from storehouse import State, says

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.web import guard, serving
from langgraph_redis_state.web.guard import HEADERS, Sessions

SCREENS = (
    "/",
    "/stuck",
    "/thread?id=asked",
    "/step?id=chat",
    "/diff?id=forked",
    "/cost?id=forked",
    "/health",
    "/static/style.css",
)


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_shown_without_the_cookie(open_page: Open, store: str, screen: str) -> None:
    stranger = open_page(store, enter=False)
    for cookies in ({}, {"lgrs": "guessed"}):
        stranger.cookies = cookies  # type: ignore[assignment]
        refused = stranger.get(screen)
        assert refused.status_code == 401
        assert "asked" not in refused.text


def test_the_token_works_once_and_its_cookie_is_for_this_site_only(open_page: Open, store: str) -> None:
    browser = open_page(store, enter=False)
    token = browser.token  # type: ignore[attr-defined]
    assert browser.get("/enter?token=guessed", follow_redirects=False).status_code == 401
    assert browser.post(f"/enter?token={token}", headers={"origin": ORIGIN}).status_code == 403
    entered = browser.get(f"/enter?token={token}", follow_redirects=False)
    said = entered.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert entered.headers["location"] == "/"
    assert browser.get("/").status_code == 200
    again = open_page(store, enter=False)
    again.app = browser.app
    assert again.get(f"/enter?token={token}", follow_redirects=False).status_code == 401


def test_a_token_that_nobody_used_in_time_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    monkeypatch.setattr(guard, "TOKEN_SECONDS", -1.0)
    assert sessions.exchange(sessions.token) is None
    assert sessions.exchange("") is None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8765", "[::1]:8765", ""])
def test_a_foreign_host_is_refused(page: TestClient, host: str) -> None:
    assert page.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8765", "http://127.0.0.1:1"])
def test_a_foreign_origin_is_refused(page: TestClient, origin: str) -> None:
    assert page.get("/", headers={"origin": origin}).status_code == 403
    assert page.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert page.get("/", headers={"origin": ORIGIN}).status_code == 200


@pytest.mark.parametrize("screen", [*SCREENS, "/nothing", "/thread?id=none", "/enter"])
def test_every_answer_forbids_what_comes_from_elsewhere_and_is_not_stored(page: TestClient, screen: str) -> None:
    answer = page.get(screen, follow_redirects=False)
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], name
    assert "server" not in answer.headers


def test_the_policy_allows_nothing_inline_and_no_page_has_it(page: TestClient) -> None:
    assert "default-src 'self'" in guard.POLICY
    assert "unsafe" not in guard.POLICY
    for screen in (each.replace("=chat", "=forked") for each in SCREENS[:-1]):
        text = page.get(screen).text
        assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|<style|javascript:|https?://", text), screen


@pytest.mark.parametrize("path", ["/tag", "/rollback", "/truncate"])
def test_nothing_can_be_changed_unless_the_server_was_started_with_write(page: TestClient, path: str) -> None:
    assert page.post(path, data={"id": "asked"}, headers={"origin": ORIGIN}).status_code == 403
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert page.request(method, path).status_code == 405


@pytest.fixture
def mine(open_page: Open, saver: RedisSaver, prefix: str) -> TestClient:
    from langgraph.graph import START, StateGraph

    builder = StateGraph(State).add_node("a", says("a")).add_node("b", says("b")).add_edge(START, "a").add_edge("a", "b")
    builder.compile(checkpointer=saver).invoke({"log": []}, at("t"))
    return open_page(prefix, write=True)


def form(browser: TestClient, saver: RedisSaver) -> tuple[str, str]:
    """The query and the CSRF token of the forms on the step before the newest."""
    earlier = list(saver.history("t"))[1].checkpoint_id
    text = browser.get("/step", params={"id": "t", "at": earlier}).text
    (csrf,) = set(re.findall(r'name="csrf" value="(\w+)"', text))
    return f"?id=t&at={earlier}", csrf


def test_a_form_needs_the_csrf_token_of_this_browser_and_an_origin(mine: TestClient, saver: RedisSaver) -> None:
    query, csrf = form(mine, saver)
    ours = {"origin": ORIGIN}
    for fields in (
        {"name": "x"},
        {"name": "x", "csrf": ""},
        {"name": "x", "csrf": "0" * 64},
        {"csrf": csrf, "name": "y" * 20_000},
    ):
        assert mine.post("/tag" + query, data=fields, headers=ours).status_code == 403
    assert mine.post("/tag" + query, data={"name": "x", "csrf": csrf}).status_code == 403, "no Origin"
    foreign = {"origin": "http://evil.example"}
    assert mine.post("/tag" + query, data={"name": "x", "csrf": csrf}, headers=foreign).status_code == 403
    assert saver.tags("t") == {}
    assert mine.post("/tag" + query, data={"name": "x", "csrf": csrf}, headers=ours).status_code == 200
    assert saver.tags("t").keys() == {"x"}


def test_truncate_wants_the_id_typed(mine: TestClient, saver: RedisSaver) -> None:
    (query, csrf), ours = form(mine, saver), {"origin": ORIGIN}
    assert mine.post("/truncate" + query, data={"csrf": csrf, "typed": "T"}, headers=ours).status_code == 400
    assert mine.post("/truncate?id=t", data={"csrf": csrf, "typed": "t"}, headers=ours).status_code == 400
    assert len(list(saver.history("t"))) == 4
    assert mine.post("/truncate" + query, data={"csrf": csrf, "typed": "t"}, headers=ours).status_code == 200
    assert len(list(saver.history("t"))) == 3
    query, csrf = form(mine, saver)
    assert mine.post("/rollback" + query, data={"csrf": csrf}, headers=ours).status_code == 200
    assert len(list(saver.history("t"))) == 4


def test_each_look_leaves_a_line_without_values(page: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "langgraph_redis_state.audit"):
        page.get("/step?id=chat")
        page.get("/raw?id=chat&channel=messages")
        page.get("/", headers={"host": "evil.example"})
    lines = [record.getMessage() for record in caplog.records if record.name == "langgraph_redis_state.audit"]
    assert re.fullmatch(r"[0-9a-f]{8} GET /step\?id=chat", lines[0])
    assert lines[2].startswith("refused GET /: ")
    assert not any("warm" in line for line in lines)


# --- addresses


def test_other_machines_reach_it_only_if_somebody_says_so() -> None:
    for host in ("0.0.0.0", "192.0.2.1"):
        with pytest.raises(serving.AddressError, match="allow-others"):
            serving.tcp_socket(host, 0, others=False)
    with serving.tcp_socket("127.0.0.1", 0, others=False) as listening:
        port = listening.getsockname()[1]
        assert f"127.0.0.1:{port}" in serving.hosts_of(listening, "127.0.0.1")
        assert f"localhost:{port}" in serving.hosts_of(listening, "127.0.0.1")
    with serving.tcp_socket("0.0.0.0", 0, others=True) as listening:
        assert serving.hosts_of(listening, "0.0.0.0") == (f"0.0.0.0:{listening.getsockname()[1]}",)


def test_a_unix_socket_is_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with serving.unix_socket(str(path)) as listening:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert listening.family == socket.AF_UNIX
        assert serving.hosts_of(listening, "") == ("localhost",)
        with pytest.raises(serving.AddressError, match="another server"):
            serving.unix_socket(str(path))
