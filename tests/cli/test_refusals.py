"""What `lgrs` says when something is in the way, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from commandline import Lgrs
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from shapes import SyncSurface, at, put

from langgraph_redis_state import RedisSaver

KEY = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "command", ["why", "history", "show", "messages", "writes", "diff", "tags", "stats", "watch", "verify"]
)
def test_an_unknown_thread_is_4_with_names_that_are_near(lgrs: Lgrs, command: str) -> None:
    told = lgrs(command, "forkde")
    assert told.code == 4
    assert "there is no thread 'forkde'" in told.err
    assert "did you mean: forked" in told.err
    assert told.out == ""


def test_a_beginning_with_a_mistake_is_near_too(lgrs: Lgrs) -> None:
    assert "killed-last" in lgrs("why", "kiled-l").err


def test_several_threads_that_begin_so_are_named_and_none_is_chosen(lgrs: Lgrs) -> None:
    told = lgrs("why", "killed")
    assert told.code == 4
    assert "killed-last" in told.err


def test_an_unknown_checkpoint_is_4_with_what_there_is(lgrs: Lgrs) -> None:
    told = lgrs("show", "forked@planed")
    assert told.code == 4
    assert "did you mean: planned" in told.err
    assert lgrs("show", "forked@-99").code == 4
    assert lgrs("show", "forked@v999").code == 4
    assert "begin so" in lgrs("show", "forked@1").err


def test_an_error_is_an_object_with_json(lgrs: Lgrs) -> None:
    told = lgrs("why", "forkde", "--json")
    assert json.loads(told.err) == {
        "error": "NothingNear",
        "message": "there is no thread 'forkde'",
        "near": ["forked"],
        "exit": 4,
    }


def test_a_server_that_is_not_there_is_10(lgrs: Lgrs) -> None:
    told = lgrs("-u", "redis://127.0.0.1:1", "threads")
    assert told.code == 10
    assert "127.0.0.1:1" in told.err
    assert "Traceback" not in told.err


def test_a_user_without_rights_is_11_and_sent_to_the_doctor(
    lgrs: Lgrs, raw: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">secret-word", f"~{prefix}:*", "+ping", "+zrange")
    monkeypatch.setenv("LGRS_URL", f"unix://{prefix}:secret-word@{raw.connection_pool.connection_kwargs['path']}")
    told = lgrs("threads")
    raw.execute_command("ACL", "DELUSER", prefix)
    assert told.code == 11
    assert "lgrs doctor" in told.err
    assert "secret-word" not in told.err


def test_a_password_in_the_arguments_is_refused(lgrs: Lgrs) -> None:
    told = lgrs("-u", "redis://user:secret-word@localhost", "threads")
    assert told.code == 2
    assert "LGRS_URL" in told.err
    assert "secret-word" not in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("threads", "--status", "tired"),
        ("threads", "--idle", "7"),
        ("threads", "--where", "user"),
        ("why",),
        ("-u", "http://x", "threads"),
        ("--prefix", "a{b", "threads"),
        ("--embedded", "/nowhere/at/all", "threads"),
    ],
)
def test_a_wrong_command_line_is_2(lgrs: Lgrs, arguments: tuple[str, ...]) -> None:
    told = lgrs(*arguments)
    assert told.code == 2
    assert told.err
    assert "Traceback" not in told.err


async def test_a_missing_or_wrong_key_is_told_with_the_variable_to_set(
    lgrs: Lgrs, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisSaver(url, prefix=prefix, integrity_key=KEY) as saver:
        await put(SyncSurface(saver), at("t"), {"x": 1})
    keys = tmp_path / "keys"
    monkeypatch.setenv("LGRS_INTEGRITY_KEY_FILE", str(keys))
    assert lgrs("--prefix", prefix, "show", "t").code == 2, "the file is not there"
    for content, code in (
        (b"another key of 32 bytes, I think", 1),
        (KEY + b"\n", 0),
        (b"hex:" + b"00" * 32 + b"\nhex:" + KEY.hex().encode() + b"\n", 0),
        (b"hex:xyz", 2),
        (b"", 2),
        (b"short", 2),
    ):
        keys.write_bytes(content)
        told = lgrs("--prefix", prefix, "show", "t")
        assert told.code == code, content
        assert content.decode().strip() not in told.err or not content
    keys.write_bytes(b"another key of 32 bytes, I think")
    assert "LGRS_INTEGRITY_KEY_FILE" in lgrs("--prefix", prefix, "show", "t").err
    assert lgrs("--prefix", prefix, "threads", "--json").record["status"] == "unreadable"
    monkeypatch.delenv("LGRS_INTEGRITY_KEY_FILE")
    assert lgrs("--prefix", prefix, "show", "t").code == 1


async def test_what_was_stored_under_keys_is_shown_with_them_and_told_without(
    lgrs: Lgrs, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=KEY, name_key=KEY[::-1]) as saver:
        await put(SyncSurface(saver), at("t"), {"x": ["hidden"]})
    told = lgrs("--prefix", prefix, "show", "t")
    assert (told.code, "LGRS_NAME_KEY_FILE" in told.err) == (1, True)
    for variable, key in (("LGRS_NAME_KEY_FILE", KEY[::-1]), ("LGRS_ENCRYPTION_KEY_FILE", KEY)):
        told = lgrs("--prefix", prefix, "show", "t")
        assert (told.code, variable in told.err) == (1, True)
        (tmp_path / variable).write_bytes(key)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    told = lgrs("--prefix", prefix, "show", "t")
    assert (told.code, "hidden" in told.out) == (0, True)


async def test_encrypted_values_are_shown_with_their_key_and_told_without(
    lgrs: Lgrs, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisSaver(url, prefix=prefix, serde=EncryptedSerializer.from_pycryptodome_aes(key=KEY)) as saver:
        await put(SyncSurface(saver), at("t"), {"x": ["hidden"]})
    told = lgrs("--prefix", prefix, "show", "t")
    assert told.code == 1
    assert "LGRS_SERDE_KEY_FILE" in told.err
    key = tmp_path / "key"
    monkeypatch.setenv("LGRS_SERDE_KEY_FILE", str(key))
    key.write_bytes(b"x" * 32)
    assert lgrs("--prefix", prefix, "show", "t").code == 1
    key.write_bytes(KEY)
    assert lgrs("--prefix", prefix, "show", "t", "x", "--json").record["value"] == ["hidden"]
    assert lgrs("--prefix", prefix, "rollback", "t@v1").code == 0, "what is written again is encrypted again"
    assert saver_reads(url, prefix) == ["hidden"]


def saver_reads(url: str, prefix: str) -> Any:
    with RedisSaver(url, prefix=prefix, serde=EncryptedSerializer.from_pycryptodome_aes(key=KEY)) as saver:
        found = saver.get_tuple(at("t"))
        assert found is not None
        return found.checkpoint["channel_values"]["x"]


async def test_a_newer_layout_is_told(lgrs: Lgrs, saver: RedisSaver, prefix: str, raw: redis.Redis) -> None:
    await put(SyncSurface(saver), at("t"), {"x": 1})
    raw.set(f"{prefix}:layout", "7 7")
    told = lgrs("--prefix", prefix, "threads")
    assert told.code == 1
    assert "update langgraph-redis-state" in told.err
    checks = {record["check"]: record["level"] for record in lgrs("--prefix", prefix, "doctor", "--json").records}
    assert checks["layout"] == "problem"


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "langgraph_redis_state", *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        **options,
    )


def test_a_pipe_that_closes_early_is_no_error(url: str, store: str) -> None:
    line = f"{sys.executable} -m langgraph_redis_state history forked --json | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, encoding="utf-8", timeout=60, env=dict(os.environ)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_output_that_is_ascii_holds_every_value(url: str, store: str) -> None:
    done = command("messages", "chat", env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "weather" in done.stdout


def test_without_click_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from langgraph_redis_state.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 1
    assert done.stderr == "lgrs needs the package click, which is not installed: pip install 'langgraph-redis-state[cli]'\n"
