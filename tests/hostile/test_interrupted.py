"""Signal handlers that raise, as the soft time limits of task queues do, wherever the program is: nothing crashes or hangs."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis.connection
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.idle import Idle

needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such timers on Windows")

PUTS = """
    import faulthandler, random, signal, sys, threading, time
    sys.path.insert(0, sys.argv[3])
    from shapes import at, checkpoint, metadata
    from langgraph_redis_state import RedisSaver
    from langgraph_redis_state.errors import CheckpointerError, ServerUnavailableError

    faulthandler.dump_traceback_later(45, exit=True)  # it hangs

    class TooLong(BaseException):
        pass

    armed = False

    def raising(*_):
        if armed:
            raise TooLong

    signal.signal(signal.SIGALRM, raising)
    saver = RedisSaver(sys.argv[1], prefix=sys.argv[2], redis_options={"max_connections": 3, "timeout": 1, "socket_timeout": 5})
    saver.put(at("t"), checkpoint({"n": 0}), metadata(), {"n": 1})
    interrupted = 0
    until = time.monotonic() + float(sys.argv[4])
    while time.monotonic() < until or (interrupted <= 50 and time.monotonic() < until + 6):  # a busy machine gets more time
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.003), 0.05)  # again: Python drops it in __del__
            try:
                while True:
                    saver.put(at("t"), checkpoint({"n": interrupted}), metadata(), {"n": 1})
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except TooLong:
            interrupted += 1
        except CheckpointerError as error:
            assert isinstance(error, ServerUnavailableError), error
            if "No connection" in str(error):
                break

    def use():
        began = time.monotonic()
        try:
            saver.put(at("t"), checkpoint({"n": -1}), metadata(), {"n": 1})
            outcomes.append("works")
        except ServerUnavailableError as error:
            outcomes.append(str(error))
        assert time.monotonic() - began < 8

    outcomes = []
    use()
    thread = threading.Thread(target=use)  # a lock that this thread may take again would stop another one
    thread.start()
    thread.join(10)
    assert len(outcomes) == 2, outcomes
    assert interrupted > 50, interrupted
    print(interrupted, outcomes)
"""


@needs_timers
@pytest.mark.longer
def test_puts_that_a_signal_handler_interrupts_neither_crash_nor_hang_nor_block_later_ones(url: str, prefix: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PUTS), url, prefix, str(Path(__file__).parents[1]), str(times(1, 6, 6))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class TooLong(BaseException):
    """What the soft time limit of a task queue raises."""


def test_a_connection_that_was_interrupted_while_it_connected_is_usable(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py takes a connection with a socket for connected, though it has no parser yet."""

    def interrupted(*args: Any, **options: Any) -> None:
        raise TooLong

    with RedisSaver(url, prefix=prefix, redis_options={"max_connections": 1, "timeout": 1}) as saver:
        with monkeypatch.context() as patch:
            patch.setattr(redis.connection.DefaultParser, "on_connect", interrupted)
            with pytest.raises(TooLong):
                saver.ping()
        assert saver.ping()


LEAKS = """
    import faulthandler, signal, sys, time
    from langgraph_redis_state.client.connection import Connection
    faulthandler.dump_traceback_later(20, exit=True)  # it hangs

    class TooLong(BaseException):
        pass

    # the handler raises in the code that guards the queue of the pool, line by line
    waited = Connection(sys.argv[1], options={"timeout": 0.2, "max_connections": 2})
    pool = waited.client().connection_pool
    assert waited.client().ping()
    for line in range(1, 60):
        left = line

        def count(frame, event, _):
            global left
            if event != "opcode":
                frame.f_trace_opcodes = True
                return count
            left -= 1
            if left == 0:
                raise TooLong
            return count

        sys.settrace(lambda frame, event, arg: count(frame, event, arg) if frame.f_code.co_filename.endswith(
            ("queue.py", "threading.py", "idle.py")) else None)
        try:
            pool.release(pool.get_connection("PING"))
        except TooLong:
            pass
        finally:
            sys.settrace(None)
        began = time.monotonic()
        try:
            pool.release(pool.get_connection("PING"))
        except Exception as error:
            assert "No connection" in str(error), error
            pool.reset()
        assert time.monotonic() - began < 2
"""


def test_a_handler_that_raises_at_any_step_of_taking_a_connection_leaves_nothing_locked(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LEAKS), url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_idle_connections_come_back_last_in_first_out_and_are_bounded() -> None:
    idle = Idle(2)
    idle.put_nowait("a")
    idle.put_nowait("b")
    with pytest.raises(queue.Full):
        idle.put_nowait("c")
    assert [idle.get(), idle.get()] == ["b", "a"]
    with pytest.raises(queue.Empty):
        idle.get(block=False)


def test_waiting_for_an_idle_connection_ends_by_its_time_out() -> None:
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        Idle(1).get(timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 2


def test_all_that_wait_for_an_idle_connection_get_one_in_turn() -> None:
    idle = Idle(2)
    for name in ("a", "b"):
        idle.put_nowait(name)
    taken: list[str] = []

    def use() -> None:
        for _ in range(200):
            one = idle.get(timeout=10)
            taken.append(one)
            idle.put_nowait(one)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1600
    assert sorted(idle.queue) == ["a", "b"]
