"""Every Python block of the guides runs as it stands, but for the address of the server; a guide is one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = sorted(DOCS.glob("*.md"))
ADDRESS = "redis://localhost:6379/0"


def blocks(guide: Path) -> list[tuple[int, str]]:
    """(line, source) of each block."""
    text = guide.read_text("utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, each.start()) + 2, each.group(1)) for each in found]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
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


@pytest.mark.parametrize(("guide", "least"), [("history.md", 8), ("state.md", 8), ("verification.md", 5)])
def test_a_guide_has_a_worked_example(guide: str, least: int) -> None:
    assert len(blocks(DOCS / guide)) >= least


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_the_links_of_a_guide_lead_to_files(guide: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", guide.read_text("utf-8")):
        assert (guide.parent / target).exists(), target
