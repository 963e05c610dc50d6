"""`lgrs serve` from the command line: what it prints, where it listens, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import Lgrs


def test_addresses_that_others_reach_are_refused(lgrs: Lgrs) -> None:
    told = lgrs("serve", "--host", "0.0.0.0")
    assert told.code == 2
    assert "--allow-others" in told.err


def test_a_port_in_use_is_told(lgrs: Lgrs) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = lgrs("serve", "--port", str(taken.getsockname()[1]))
    assert told.code == 2
    assert "cannot be listened on" in told.err


def test_without_its_packages_one_sentence_says_what_to_install(lgrs: Lgrs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("langgraph_redis_state.web")]:
        monkeypatch.delitem(sys.modules, name)
    import langgraph_redis_state

    monkeypatch.delattr(langgraph_redis_state, "web", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = lgrs("serve")
    assert told.code == 1
    assert (
        told.err == "lgrs serve needs the package uvicorn, which is not installed: pip install 'langgraph-redis-state[web]'\n"
    )


def test_it_serves_on_a_unix_socket_until_it_is_interrupted(url: str, store: str, tmp_path: Path) -> None:
    path, audit = tmp_path / "page.sock", tmp_path / "audit"
    process = subprocess.Popen(
        [sys.executable, "-m", "langgraph_redis_state", "serve", "--socket", str(path), "--audit", str(audit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=dict(os.environ),
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    assert address.startswith("http://localhost/enter?token=")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 401")
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert "Traceback" not in complaints
    assert not path.exists()
    assert "refused GET /: open the address" in audit.read_text()
