"""docs/cli.md is what the commands say, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import click

from langgraph_redis_state.cli import reference
from langgraph_redis_state.cli.app import SECTIONS, lgrs
from langgraph_redis_state.cli.command import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")


def test_the_page_is_made_from_the_commands() -> None:
    assert reference.page() == PAGE, "python -m langgraph_redis_state.cli.reference > docs/cli.md"


def test_every_command_is_in_a_section_and_says_what_it_does() -> None:
    assert {name for names in SECTIONS.values() for name in names} == COMMANDS.keys() == lgrs.commands.keys()
    for command in COMMANDS.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter


def test_every_command_of_the_example_exists() -> None:
    found = re.findall(r"^lgrs (\w+)", PAGE, re.MULTILINE)
    assert len(found) == 6
    assert set(found) <= COMMANDS.keys()


def test_every_environment_variable_that_is_read_is_listed() -> None:
    package = ROOT / "langgraph_redis_state"
    text = "".join(path.read_text("utf-8") for room in ("cli", "inspection") for path in (package / room).rglob("*.py"))
    read = {*re.findall(r"\"(LGRS_[A-Z_]+)\"", text), "LGRS_SERDE_KEY_FILE"}
    assert read <= set(re.findall(r"`(LGRS_[A-Z_]+)`", PAGE))
