"""Commands that move threads: into files and back, and from other savers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commandline import Lgrs, Result
from exercise import BIG
from langgraph.checkpoint.memory import InMemorySaver
from shapes import at, checkpoint, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.archive import ArchiveSaver, frames
from langgraph_redis_state.cli import move
from langgraph_redis_state.cli.command import FIELDS


@pytest.fixture
def mine(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> Any:
    """`lgrs` on a prefix of the test's own, with two threads."""
    for name in ("ada", "bob"):
        made = checkpoint({"x": [*BIG, name], "raw": b"\0" * 60})
        config = saver.put(at(name), made, metadata(step=1), made["channel_versions"])
        saver.put_writes(config, [("x", (1, 2))], "task")

    def call(*arguments: Any) -> Result:
        return lgrs("--prefix", prefix, *map(str, arguments))

    return call


def test_a_file_is_written_and_imported(mine: Any, lgrs: Lgrs, saver: RedisSaver, prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert "2 threads, 2 checkpoints" in mine("export", "-o", file).out
    told = mine("import", file, "--json")
    assert (told.code, list(told.record), told.record["ok"]) == (1, list(FIELDS["import"]), False)
    assert list(told.record["failures"]) == ["ada", "bob"]
    assert mine("import", file, "--skip-existing", "--json").record["existing"] == 2
    assert mine("import", file, "--thread", "ada", "--as", "ada 2").code == 0
    assert [tup.checkpoint for tup in saver.list(at("ada 2"))] == [tup.checkpoint for tup in saver.list(at("ada"))]
    assert mine("import", file, "--as", "ada 3").code == 2
    again = mine("export", "-o", file)
    assert (again.code, "would be overwritten" in again.err) == (1, True)
    assert mine("import", tmp_path / "nothing").code == 1
    assert mine("export", "nobody", "-o", tmp_path / "more").code == 4
    assert mine("export").code == mine("export", "-o", file, "--json").code == 2


def test_a_dry_run_verifies_files_without_a_server(mine: Any, lgrs: Lgrs, tmp_path: Path) -> None:
    file = tmp_path / "file"
    mine("export", "ada", "-o", file)
    assert lgrs("-u", "redis://127.0.0.1:1", "import", "--dry-run", str(file)).out.startswith("1 thread, every byte")
    content = bytearray(file.read_bytes())
    content[frames.HEAD + 40] ^= 1
    file.write_bytes(content)
    told = lgrs("-u", "redis://127.0.0.1:1", "import", "--dry-run", str(file))
    assert (told.code, "thread 'ada'" in told.out) == (1, True)


def test_a_backup_and_the_next_one_are_restored(
    mine: Any, lgrs: Lgrs, saver: RedisSaver, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "COST", 1)
    secret = tmp_path / "secret"
    secret.write_text("a passphrase\n")
    monkeypatch.setenv("LGRS_PASSPHRASE_FILE", str(secret))
    full, more = tmp_path / "full", tmp_path / "more"
    assert mine("backup", full).code == 0
    saver.delete_thread("ada")
    told = mine("backup", more, "--base", full, "--json").record
    assert (list(told), told["threads"], told["unchanged"]) == (list(FIELDS["backup"]), 0, 1)
    assert lgrs("--prefix", f"{prefix}-back", "import", str(full), str(more)).code == 0
    with RedisSaver(url, prefix=f"{prefix}-back") as back:
        assert [each.thread_id for each in back.list_threads()] == ["bob"]
    monkeypatch.delenv("LGRS_PASSPHRASE_FILE")
    missing = mine("import", full)
    assert (missing.code, "give its passphrase" in missing.err) == (2, True)
    with ArchiveSaver(full, passphrase="a passphrase") as file:
        assert file.threads == ["ada", "bob"]


def test_people_get_lines_that_say_they_are_lossy(mine: Any, saver: RedisSaver) -> None:
    told = mine("export", "ada", "--json")
    assert list(told.record) == list(FIELDS["export"])
    assert (told.record["lossy"], told.record["thread_id"]) == (True, "ada")
    assert told.record["values"]["x"] == [*json.loads(json.dumps(BIG)), "ada"]
    assert told.record["values"]["raw"]["$bytes"]
    assert told.record["writes"][0]["channel"] == "x"
    assert [each["thread_id"] for each in mine("export", "--json").records] == ["ada", "bob"]


def test_threads_migrate_from_another_saver(
    lgrs: Lgrs, mine: Any, saver: RedisSaver, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> Result:
        return lgrs("--prefix", f"{prefix}-other", "migrate", *arguments)

    spec = f"lgrs:{prefix}@{url}"
    dry = call("--from", spec, "--dry-run", "--json").record
    assert (dry["ok"], dry["checkpoints"], dry["stored_bytes"]) == (True, 2, None)
    told = call("--from", spec, "--thread", "ada", "--workers", "2", "--json")
    assert (told.code, list(told.record), told.record["verified"]) == (0, list(FIELDS["migrate"]), 1)
    with RedisSaver(url, prefix=f"{prefix}-other") as other:
        assert list(other.list(at("ada"))) == list(saver.list(at("ada")))
    assert "1 were there" in call("--from", spec, "--no-verify").out
    failed = call("--from", spec, "--thread", "nobody", "--json")
    assert (failed.code, failed.record["failures"]) == (1, {"nobody": "the source has no such thread"})
    assert "allowed are sqlite:PATH" in call("--from", "oracle:x").err
    assert call().code == 2
    assert "LGRS_FROM" in call("--from", "lgrs:x@redis://user:secret@host").err
    assert "LGRS_FROM" in call("--from", "postgres:postgresql://user:secret@host/x").err
    monkeypatch.setenv("LGRS_FROM", spec)
    assert call().code == 0


def test_a_source_without_threads_or_without_a_file_is_no_success(lgrs: Lgrs, url: str, prefix: str, tmp_path: Path) -> None:
    empty = lgrs("migrate", "--from", f"lgrs:{prefix}-empty@{url}", "--dry-run")
    assert (empty.code, "no threads" in empty.err) == (1, True)
    absent = lgrs("migrate", "--from", f"sqlite:{tmp_path / 'absent'}")
    assert (absent.code, "there is no file" in absent.err, list(tmp_path.iterdir())) == (2, True, [])


def test_what_a_source_raises_when_it_is_opened_is_told(lgrs: Lgrs, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> InMemorySaver:
        raise OSError("no route")

    monkeypatch.setattr(move, "opened", opened)
    told = lgrs("migrate", "--from", "sqlite:x")
    assert (told.code, "the source cannot be opened: OSError: no route" in told.err) == (1, True)
