"""The demo, as a reader starts it (`make demo-test`, which `.ci/run` runs), and the pieces its claims rest on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from soak import times

from demo import __main__ as command
from demo import papers, play, story
from demo.desk import Desk, DeskContext, build

ROOT = Path(__file__).parents[2]
CONFIG: RunnableConfig = {"configurable": {"thread_id": "a-claim"}}


@pytest.fixture
def desk() -> Desk:
    return build(InMemorySaver())


@pytest.fixture
def context(tmp_path: Path) -> DeskContext:
    return DeskContext(tmp_path / "journal")


@pytest.mark.demo
@pytest.mark.longer
def test_the_demo_runs_to_its_end_without_a_terminal_and_again_on_the_same_path(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    for encoding in ("ascii", "utf-8")[: times(1, 2, 2)]:
        done = subprocess.run(
            [sys.executable, "-m", "demo", "--path", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            encoding=encoding,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        for said in ("May we pay 653.70 EUR?", "not run again", "branch 2", "times smaller", "what was checked"):
            assert said in done.stdout
        times_smaller = re.search(r"([\d.]+) times smaller", done.stdout)
        assert times_smaller is not None
        assert float(times_smaller[1]) > 4, "the README says: less than a quarter"
        assert max(map(len, done.stdout.splitlines())) <= 100
    assert len(list(folder.glob("claim-????????.journal"))) == times(1, 2, 2), "each run begins a thread of its own"


def test_the_desk_waits_for_a_person_and_pays_what_the_person_leaves(desk: Desk, context: DeskContext) -> None:
    list(play.hand_in_letter(desk, CONFIG, context))
    waiting = desk.get_state(CONFIG)
    assert [asked.value["total"] for asked in waiting.interrupts] == ["653.70"]
    assert {item["condition"]: str(item["granted"]) for item in waiting.values["proposal"]} == {
        2: "156.20",
        3: "84.00",
        4: "23.50",
        5: "310.00",
        6: "80.00",
        7: "0.00",
    }
    list(play.decide(desk, CONFIG, context, play.ESTIMATE_IS_NOT_ENOUGH))
    assert str(desk.get_state(CONFIG).values["outcome"]["paid"]) == "343.70"


def test_the_fork_pays_for_the_car_and_leaves_the_first_outcome_alone(desk: Desk, context: DeskContext) -> None:
    list(play.hand_in_letter(desk, CONFIG, context))
    list(play.decide(desk, CONFIG, context, play.ESTIMATE_IS_NOT_ENOUGH))
    settled = desk.get_state(CONFIG)
    fork = play.put_invoice_on_file(desk, play.before_assessment(desk, CONFIG))
    list(play.carry_on(desk, fork, context))
    list(play.decide(desk, CONFIG, context, play.INVOICE_IS_HERE))
    assert str(desk.get_state(CONFIG).values["outcome"]["paid"]) == "631.70"
    assert desk.get_state(settled.config).values == settled.values


ANSWERS = {
    "How late was the boat": "five hours and ten minutes late",
    "What fare": "312.40 EUR",
    "What was wrong with cabin": "no heating",
    "What meals": "soup and bread",
    "Who saw the damage": "deck officer",
    "What excess": "100.00 EUR",
    "Where did they spend the night": "Harbour Hotel",
    "Are tickets": "not repaid",
    "Who played the accordion": "gentleman from Row 9",
    "Who brought the blankets": "Ines",
    "By which day": "30 April 2025",
    "How many days": "60 days",
    "Within how many days": "7 days",
    "Do dogs": "free of charge",
    "What becomes": "the next muster",
    "Who approved": "Officer Tamm approved it; 343.70 EUR",
}


def test_every_question_is_answered_from_the_papers(desk: Desk, context: DeskContext) -> None:
    list(play.hand_in_letter(desk, CONFIG, context))
    list(play.decide(desk, CONFIG, context, play.ESTIMATE_IS_NOT_ENOUGH))
    answers = {question: play.ask(desk, CONFIG, context, question) for question in papers.questions()}
    assert len(answers) == len(ANSWERS)
    for (question, answer), (opening, expected) in zip(answers.items(), ANSWERS.items(), strict=True):
        assert question.startswith(opening)
        assert expected in answer


def test_a_question_the_papers_do_not_answer_is_not_answered(desk: Desk, context: DeskContext) -> None:
    list(play.hand_in_letter(desk, CONFIG, context))
    list(play.decide(desk, CONFIG, context, play.ESTIMATE_IS_NOT_ENOUGH))
    assert play.ask(desk, CONFIG, context, "Quo vadis?") == "The papers do not say."


def test_the_journal_shows_what_a_second_process_ran_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("1 read 1\n1 assess\n1 approve\n2 approve\n2 settle\n", "utf-8")
    assert story.ran_again(journal, 1, 2) == []
    journal.write_text("1 read 1\n1 assess\n1 approve\n2 assess\n2 approve\n2 settle\n2 settle\n", "utf-8")
    assert story.ran_again(journal, 1, 2) == ["assess", "settle"]


@pytest.mark.soak
def test_a_claim_that_does_not_hold_ends_the_demo_with_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "ran_again", lambda *_: ["assess"])
    assert command.main(["--path", str(tmp_path)]) == 1
    assert "These did: assess." in capsys.readouterr().out


@pytest.mark.demo
@pytest.mark.longer
def test_a_worker_that_ends_too_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    not_a_directory = tmp_path / "file"
    not_a_directory.touch()
    with story.Worker(not_a_directory, "a-claim", tmp_path / "journal") as worker:
        with pytest.raises(story.ClaimFailed, match=r"(?s)ended with 1 too early.*Error"):
            list(worker.events())
