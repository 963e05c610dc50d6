"""Every Python block of the guides runs as it stands, but for the address of the server; a guide is one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = sorted(DOCS.glob("*.md"))
PROGRAMS = [guide for guide in GUIDES if guide.name != "recipes.md"]  # each recipe is a file of its own: test_recipes.py
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + GUIDES
ADDRESS = "redis://localhost:6379/0"


def blocks(guide: Path) -> list[tuple[int, str]]:
    """(line, source) of each block."""
    text = guide.read_text("utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, each.start()) + 2, each.group(1)) for each in found]


@pytest.mark.parametrize("guide", PROGRAMS, ids=lambda guide: guide.name)
def test_the_python_of_a_guide_runs_from_top_to_bottom(guide: Path, url: str, prefix: str) -> None:
    names: dict[str, Any] = {"__name__": guide.stem}
    with redis.Redis.from_url(url) as client:
        before = set(client.scan_iter(match="lgrs:*", count=10_000))
        try:
            for line, block in blocks(guide):
                source = "\n" * (line - 1) + block.replace(ADDRESS, url)  # so that a traceback names the line of the guide
                exec(compile(source, str(guide), "exec", dont_inherit=True), names)
        finally:
            if "saver" in names:
                names["saver"].close()
            left = set(client.scan_iter(match="lgrs:*", count=10_000)) - before
            if left:
                client.unlink(*left)


@pytest.mark.parametrize(
    ("guide", "least"), [("history.md", 8), ("state.md", 8), ("verification.md", 5), ("reference.md", 4), ("security.md", 3)]
)
def test_a_guide_has_a_worked_example(guide: str, least: int) -> None:
    assert len(blocks(DOCS / guide)) >= least


def anchors(page: Path) -> set[str]:
    """The headings of a page, as the hosts of repositories name them in links."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", page.read_text("utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_the_make_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in {each for page in PAGES for each in re.findall(r"`make (\w+)`", page.read_text("utf-8"))}:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
