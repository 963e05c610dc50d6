"""The page in headless Chromium: `make browser`, which `.ci/run` runs. A real `lgrs serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from shapes import at
from storehouse import MARK, State, asks, beside, says, sync

from langgraph_redis_state import RedisSaver

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "docs" / "inspector"
"""With LGRS_SHOTS set, screenshots for docs/inspector.md are written there."""


@contextlib.contextmanager
def served(url: str, prefix: str, *options: str) -> Iterator[str]:
    """The address that `lgrs serve` printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "langgraph_redis_state", "--prefix", prefix, "serve", "--port", "0", *options],
        env={**os.environ, "LGRS_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        pytest.fail("make browser needs chromium and chromedriver: apt-get install chromium chromium-driver")
    given = Options()
    given.binary_location = program
    for each in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
        *options,
    ):
        given.add_argument(each)
    given.set_capability("goog:loggingPrefs", {"browser": "ALL"})  # type: ignore[no-untyped-call]
    browser = webdriver.Chrome(options=given, service=Service(driver))
    browser.implicitly_wait(10)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def shot(browser: Any, name: str) -> None:
    if os.environ.get("LGRS_SHOTS"):
        SHOTS.mkdir(exist_ok=True)
        browser.save_screenshot(str(SHOTS / f"{name}.png"))


def wait(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(condition)


def complaints(browser: Any) -> list[str]:
    """What the browser refused or could not run."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_an_operator_finds_the_stuck_thread_and_steps_through_it(browser: Any, url: str, store: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with served(url, store) as address:
        browser.get(address)
        base = address.partition("/enter")[0]
        assert browser.current_url == f"{base}/"
        assert "token" not in browser.page_source
        shot(browser, "stuck")
        browser.find_element(By.LINK_TEXT, "asked").click()
        assert "Waits for a person" in browser.find_element(By.ID, "live").text
        shot(browser, "thread")

        browser.get(f"{base}/diff?id=forked")
        assert "settled" in browser.page_source
        shot(browser, "diff")
        newest = browser.current_url
        body = browser.find_element(By.TAG_NAME, "body")
        body.send_keys(Keys.ARROW_LEFT)
        wait(browser, lambda page: page.current_url != newest)
        assert "at=" in browser.current_url
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
        wait(browser, lambda page: "settled" in page.page_source)

        browser.get(f"{base}/step?id=chat")
        shot(browser, "state")
        text = browser.find_element(By.TAG_NAME, "main").text
        assert "<script>alert(1)</script><img src=x" in text, "markup stays text"
        assert not browser.find_elements(By.CSS_SELECTOR, "img, script:not([src])")
        browser.find_element(By.LINK_TEXT, "raw").click()
        wait(browser, lambda page: "$class" in page.find_element(By.ID, "raw").text)
        assert browser.current_url.endswith("/step?id=chat"), "raw values come without reload"

        for screen in ("cost?id=forked", "health", "step?id=planted", "raw?id=planted&channel=evil"):
            browser.get(f"{base}/{screen}")
            shot(browser, screen.partition("?")[0])
        assert "os.system" in browser.page_source
        assert not os.path.exists(MARK)
        assert complaints(browser) == []


def test_the_page_follows_a_thread_without_reload(browser: Any, url: str, prefix: str, saver: RedisSaver) -> None:
    from selenium.webdriver.common.by import By

    graph = StateGraph(State).add_node("a", says("a")).add_edge(START, "a").compile(checkpointer=saver)
    graph.invoke({"log": []}, at("t"))
    with served(url, prefix) as address:
        browser.get(address)
        browser.get(f"{address.partition('/enter')[0]}/thread?id=t")
        assert "Finished" in browser.find_element(By.ID, "live").text
        browser.execute_script("window.kept = 1")
        sync(beside(asks, says("drafted")), saver, {"log": []}, "other")
        graph.update_state(at("t"), {"log": ["x"]})
        wait(browser, lambda page: "update" in page.find_element(By.ID, "live").text)
        assert browser.execute_script("return window.kept") == 1
        browser.get(f"{address.partition('/enter')[0]}/")
        wait(browser, lambda page: "other" in page.find_element(By.ID, "stuck").text)


def test_masked_narrow_and_dark(url: str, store: str) -> None:
    with chromium("--force-dark-mode") as browser, served(url, store, "--mask") as address:
        browser.set_window_size(500, 900)
        browser.get(address)
        base = address.partition("/enter")[0]
        for screen in ("", "thread?id=asked", "step?id=chat", "diff?id=forked", "cost?id=forked"):
            browser.get(f"{base}/{screen}")
            width = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            assert width <= 0, f"{screen} scrolls sideways"
            assert not re.search(r"warm|Rome|653\.70|drafted", browser.page_source), screen
        browser.get(f"{base}/step?id=chat")
        shot(browser, "phone")


def answer(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_stranger_is_refused_by_the_real_server(url: str, store: str) -> None:
    with served(url, store) as address:
        base = address.partition("/enter")[0]
        assert answer(f"{base}/") == 401
        assert answer(f"{base}/", Host="evil.example") == 421
        assert answer(f"{base}/", Origin="http://evil.example") == 403
        assert answer(f"{base}/enter?token=guessed") == 401
        with chromium() as browser:
            browser.get(f"{base}/thread?id=asked")
            assert "Shall I pay" not in browser.page_source
