"""What the screens show, on threads in every state; that values stay text, and nothing of them is run or loaded."""

from __future__ import annotations

import os
import re
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browsing import ORIGIN, Open
from langchain_core.messages import HumanMessage
from langgraph.graph import START, StateGraph
from shapes import at
from starlette.testclient import TestClient
from storehouse import MARK, State, says

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.web import screens


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_stuck_now_has_the_most_urgent_first_with_node_and_error(page: TestClient) -> None:
    text = page.get("/").text
    rows = re.findall(r'<a href="/thread\?id=([\w-]+)">.*?class="status (\w+)"', text, re.DOTALL)
    assert rows[0] == ("failed", "failed")
    assert ("asked", "asks") in rows
    assert "the printer is on fire" in unescape(text)
    only = re.findall(r'/thread\?id=([\w-]+)"', page.get("/?status=asks").text)
    assert set(only) == {"asked", "sends"}


def test_a_thread_says_what_it_waits_for_with_its_timeline(page: TestClient) -> None:
    text = unescape(page.get("/thread?id=asked").text)
    assert "Waits for a person: work asked a question" in text
    assert "Shall I pay 653.70 EUR?" in text
    assert "invoke(Command(resume=answer))" in text
    forked = page.get("/thread?id=forked").text
    assert "│ ●" in forked
    assert '<span class="tag">planned</span>' in forked
    assert "call:" in page.get("/thread?id=called").text
    assert page.get("/thread?id=damaged").status_code == 200


def test_live_is_empty_until_something_changes(open_page: Open, saver: RedisSaver, prefix: str) -> None:
    graph = StateGraph(State).add_node("a", says("a")).add_edge(START, "a").compile(checkpointer=saver)
    graph.invoke({"log": []}, at("t"))
    browser = open_page(prefix)
    text = browser.get("/thread?id=t").text
    (live,) = re.findall(r'hx-get="(/thread/live[^"]+)"', text)
    assert browser.get(unescape(live)).status_code == 204
    graph.update_state(at("t"), {"log": ["x"]})
    changed = browser.get(unescape(live))
    assert changed.status_code == 200
    assert "update" in changed.text
    assert changed.text.lstrip().startswith('<div id="live"'), "a part of a page"


def test_a_step_has_channels_chat_writes_and_links_to_the_steps_beside_it(page: TestClient) -> None:
    text = unescape(page.get("/step?id=chat").text)
    assert 'rel="prev"' in text
    assert 'rel="next"' not in text
    assert "<strong>weather</strong>" in text
    assert "21 degrees" in text
    assert "no answer" in text
    assert "pull, draft" in page.get("/step?id=asked").text
    (earlier,) = re.findall(r'rel="prev" href="([^"]+)"', page.get("/step?id=chat").text)
    assert 'rel="next"' in page.get(unescape(earlier)).text


def test_what_changed_compares_with_the_parent(page: TestClient) -> None:
    text = page.get("/diff?id=forked").text
    assert '<div class="new mono">settled</div>' in text
    first = page.get("/diff?id=forked")
    while found := re.search(r'rel="prev" href="([^"]+)"', first.text):
        first = page.get(unescape(found[1]))
    assert "nothing to compare it with" in first.text


def test_cost_has_plots_of_each_step(page: TestClient) -> None:
    text = page.get("/cost?id=forked").text
    assert text.count("<title>v") == 2 * 8
    assert "times as much" in text
    assert page.get("/cost?id=damaged").status_code == 200


def test_health_verifies_in_the_background_and_names_what_is_wrong(page: TestClient) -> None:
    text = page.get("/health").text
    assert "persistence" in text
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', text)
    assert page.post("/health/verify", data={"csrf": "no"}, headers={"origin": ORIGIN}).status_code == 403
    assert page.post("/health/verify", data={"csrf": csrf}, headers={"origin": ORIGIN}).status_code == 200
    until = time.monotonic() + 20
    while "hx-trigger" in (text := page.get("/health/progress").text):
        assert time.monotonic() < until
    assert '<a href="/thread?id=damaged">' in text


@pytest.mark.parametrize("screen", ["/thread?id=chat", "/step?id=chat", "/diff?id=chat", "/raw?id=chat&channel=messages"])
def test_markup_in_a_message_stays_text(page: TestClient, screen: str) -> None:
    text = page.get(screen).text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("img", "iframe", "object", "b", "style")]
    scripts = [given.get("src") for tag, given in tags if tag == "script"]
    assert scripts == ["/static/htmx.min.js", "/static/keys.js"]
    for _, given in tags:
        assert not any(name.startswith("on") or name == "style" for name in given)
        assert all(not (given.get(name) or "/").startswith(("http", "//", "javascript")) for name in ("src", "href", "action"))


def test_markup_in_ids_channels_tags_and_namespaces_stays_text(open_page: Open, saver: RedisSaver, prefix: str) -> None:
    evil = '"><script>alert(1)</script>\x1b[31m&id=x'
    for thread in (evil, "a/b?c#d%00", "../x"):
        config = saver.put(
            at(thread),
            {"v": 4, "id": "1f000000-0000-6000-8000-000000000001", "ts": evil, "channel_values": {evil: [evil]},
             "channel_versions": {evil: "1"}, "versions_seen": {}, "updated_channels": None},
            {"source": evil, "step": 1},
            {evil: "1"},
        )  # fmt: skip
        saver.put_writes(config, [(evil, evil)], "task", evil)
        saver.tag(thread, evil)
    browser = open_page(prefix)
    links = {unescape(each) for each in re.findall(r'href="(/thread\?id=[^"]+)"', browser.get("/").text)}
    assert len(links) == 3
    for link in links:
        for path in ("/thread", "/step", "/diff", "/cost"):
            answer = browser.get(link.replace("/thread", path))
            assert answer.status_code == 200
            assert "<script>alert" not in answer.text
            assert "\x1b" not in answer.text


def test_a_planted_record_is_shown_and_runs_nothing(page: TestClient) -> None:
    for screen in ("/", "/thread?id=planted", "/step?id=planted", "/diff?id=planted", "/cost?id=planted"):
        assert page.get(screen).status_code == 200
    shown = unescape(page.get("/raw?id=planted&channel=evil").text)
    assert '"$class": "os.system"' in shown
    assert not os.path.exists(MARK)


def test_masked_pages_hold_no_value(open_page: Open, store: str) -> None:
    browser = open_page(store, mask=True)
    for screen in ("/thread?id=asked", "/step?id=chat", "/diff?id=chat", "/raw?id=chat&channel=messages", "/step?id=asked"):
        text = browser.get(screen).text
        assert "•str" in text, screen
        assert not re.search(r"warm|Rome|degrees|653\.70|drafted|owned", text), screen
    assert "printer" not in browser.get("/thread?id=failed").text
    assert "printer" not in browser.get("/").text


def test_large_values_are_cut(open_page: Open, saver: RedisSaver, prefix: str) -> None:
    messages = [HumanMessage("x" * 300_000)] + [HumanMessage(f"number {n}") for n in range(200)]
    builder = StateGraph(State).add_node("a", says("a")).add_edge(START, "a")
    builder.compile(checkpointer=saver).invoke({"log": [], "messages": messages}, at("t"))
    browser = open_page(prefix)
    text = browser.get("/step?id=t").text
    assert len(text) < 100_000
    assert "141 earlier messages are not shown" in text
    assert len(browser.get("/raw?id=t&channel=messages").text) < screens.RAW_MAX + 5_000


@pytest.mark.parametrize(
    "path", ["/thread", "/thread?id=none", "/step?id=asked&at=none", "/raw?id=asked&channel=none", "/nothing", "/thread?id=%00",
             "/step?id=asked&ns=none", "/static/../app.py", "/static/%2e%2e/app.py"]
)  # fmt: skip
def test_what_is_not_there_is_404(page: TestClient, path: str) -> None:
    assert page.get(path).status_code == 404


def test_a_damaged_step_is_an_error_with_words(page: TestClient) -> None:
    answer = page.get("/step?id=damaged")
    assert answer.status_code == 500
    assert "cannot be shown" in answer.text


def test_the_vendored_script_is_the_released_one() -> None:
    import hashlib

    content = (Path(screens.__file__).parent / "static" / "htmx.min.js").read_bytes()
    assert b'version:"2.0.11"' in content
    assert hashlib.sha256(content).hexdigest() == SHA


SHA = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
