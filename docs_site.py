"""Hooks of mkdocs.yml: pages of the site that are not in docs/, and links that lead out of it.

README.md is the front page; CHANGELOG.md, CONTRIBUTING.md and SECURITY.md are pages too; the API is what the package exports.
The files keep the links that work on the code host, and are given to the site with its own.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import langgraph_redis_state

ROOT = Path(__file__).parent
ADDED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "vulnerabilities.md",
}
"""Files of the repository that are pages, and what the site calls them."""

LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)((?:#[^)]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    found = re.search(r'^Repository = "([^"]+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None, "pyproject.toml has no URL of the repository"
    config.repo_url = found[1]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in ADDED.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Links of a file, as seen from where the file is in the repository, become those of the site."""
    place = page.file.src_uri
    origins = {page: name for name, page in ADDED.items()}
    folder = PurePosixPath(origins.get(place, f"docs/{place}")).parent

    def led(found: re.Match[str]) -> str:
        target = normpath(folder / found[2])
        if target in ADDED:
            return found[1] + relpath(ADDED[target], PurePosixPath(place).parent) + found[3]
        if target.startswith("docs/"):
            return found[1] + relpath(target.removeprefix("docs/"), PurePosixPath(place).parent) + found[3]
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{place}: there is no {target}")
        return f"{found[1]}{config.repo_url}/blob/main/{target}{found[3]}"

    return LINK.sub(led, markdown)


def api() -> str:
    """A page with every name that the package exports."""
    names = sorted(langgraph_redis_state.__all__, key=lambda name: (name.endswith("Error"), name != "RedisSaver", name.lower()))
    lines = [
        "# API",
        "",
        "For those who want every method with its arguments. The [reference](reference.md) explains options, URLs and errors",
        "with examples. Everything here is imported from `langgraph_redis_state`.",
        "",
    ]
    for name in names:
        if name == "CheckpointerError":
            lines += ["## Errors", ""]
        elif name == names[0]:
            lines += ["## Savers, states and what they return", ""]
        lines += [f"::: langgraph_redis_state.{name}", ""]
    lines += ["## The agent server", "", "::: langgraph_redis_state.server.checkpointer", ""]
    lines += ["::: langgraph_redis_state.server.ServedSaver", ""]
    return "\n".join(lines)
