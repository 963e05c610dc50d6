"""Each recipe does what the page says of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PAGE, recipe

from langgraph_redis_state import EmbeddedServer, RedisSaver

Written = Callable[..., Path]


@contextlib.contextmanager
def running(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, with those that it starts, until the end of the block."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_fastapi_workers_share_threads_and_say_409_and_503(
    written: Written, tmp_path: Path, server: EmbeddedServer
) -> None:
    written("app.py")
    port = free_port()
    with running(tmp_path, "uvicorn", "app:app", "--workers", "3", "--port", str(port)) as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        await http.get("/openapi.json")
                        break
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.1)

            async def talk(thread: str) -> httpx.Response:
                # a connection of its own each time, since the kernel gives connections to workers
                return await http.post(f"/threads/{thread}", params={"text": "Hello"}, headers={"Connection": "close"})

            async def conversation(thread: str) -> set[int]:
                workers = set()
                for turn in range(6):
                    reply = await talk(thread)
                    assert reply.status_code == 200, reply.text
                    assert reply.json()["answer"] == f"That was message {2 * turn + 1}."
                    workers.add(reply.json()["worker"])
                return workers

            workers = set().union(*await asyncio.gather(*(conversation(f"thread-{n}") for n in range(20))))
            assert len(workers) == 3
            replies = [reply.status_code for reply in await asyncio.gather(*(talk("one") for _ in range(20)))]
            assert set(replies) == {200, 409}
            with RedisSaver(server.url, prefix="shop") as saver:
                parents = [
                    each.parent_config["configurable"]["checkpoint_id"]
                    for each in saver.list({"configurable": {"thread_id": "one"}})
                    if each.parent_config
                ]
            assert len(parents) == len(set(parents)), "no checkpoint was continued twice"
            server.close()
            assert (await talk("one")).status_code == 503


DYING = """
from pathlib import Path

saver.ping()  # so that there is a connection when Celery forks
put_writes = saver.put_writes


def dying_once(config, *arguments, **options):
    put_writes(config, *arguments, **options)
    if config["configurable"]["thread_id"] == "killed" and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), 9)


saver.put_writes = dying_once
"""


def test_celery_children_share_a_saver_and_a_repeated_task_changes_nothing(
    written: Written, tmp_path: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = server.url.replace("unix://", "redis+socket://")
    written("tasks.py", app=f"app = Celery('tasks', broker={broker!r}, backend={broker!r})")
    with (tmp_path / "tasks.py").open("a", encoding="utf-8") as recipe_file:
        recipe_file.write(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    import tasks  # type: ignore[import-not-found]

    with running(tmp_path, "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "3", "-l", "info"):
        workers = set()
        for turn in range(3):
            results = [tasks.talk.delay(f"thread-{n}", "Hello") for n in range(20)]
            for result in results:
                told = result.get(timeout=60)
                assert told["answer"] == f"That was message {2 * turn + 1}."
                workers.add(told["worker"])
        assert len(workers) == 3
        assert tasks.talk.delay("killed", "Hello").get(timeout=60)["answer"] == "That was message 1."
        assert (tmp_path / "died").exists()
    assert len(tasks.graph.get_state({"configurable": {"thread_id": "killed"}}).values["messages"]) == 2
    tasks.saver.close()


def test_a_notebook_runs_and_runs_again(written: Written, tmp_path: Path) -> None:
    cell = written("notebook").read_text("utf-8")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell), nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    (first,), (second,) = (each.outputs for each in notebook.cells)
    assert first.data["text/plain"].count("Version(") == 3
    assert second.data["text/plain"].count("Version(") == 6


SCRIPTED = """\
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage


class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools, **options):
        return self


def wants(name, **arguments):
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name}])


MODEL = Scripted(messages=iter([wants("write_file", file_path="/report.md", content="All is well."), AIMessage("Done.")]))
"""


def test_a_deep_agent_keeps_its_files(written: Written, tmp_path: Path, server: EmbeddedServer) -> None:
    path = written("deep.py", MODEL=SCRIPTED)
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['/report.md']"
    with RedisSaver(server.url, prefix="deep") as saver:
        found = saver.get_tuple({"configurable": {"thread_id": "report-7"}})
        assert found is not None
        assert list(saver.verify()) == []
        assert saver.stats("report-7").checkpoints > 3


def test_the_valkey_of_the_compose_file_keeps_threads_over_a_kill(tmp_path: Path) -> None:
    import yaml
    from testcontainers.core.docker_client import DockerClient

    try:
        engine = DockerClient().client
        engine.ping()
    except Exception:  # noqa: BLE001 - whatever it is, there is no engine
        pytest.skip("no Docker engine answers")
    compose = yaml.safe_load(recipe("compose.yaml"))
    service = compose["services"]["valkey"]
    volume = engine.volumes.create()
    container = engine.containers.run(
        service["image"],
        service["command"].split(),
        detach=True,
        ports={"6379/tcp": ("127.0.0.1", None)},
        volumes={volume.name: {"bind": service["volumes"][0].partition(":")[2], "mode": "rw"}},
    )
    assert service["volumes"][0].partition(":")[0] in compose["volumes"]

    def opened() -> RedisSaver:
        deadline = time.monotonic() + 30
        while container.exec_run(service["healthcheck"]["test"][1:]).exit_code != 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        container.reload()
        (binding,) = container.ports["6379/tcp"]
        return RedisSaver(f"redis://127.0.0.1:{binding['HostPort']}/0")

    try:
        from langgraph.graph import START, MessagesState, StateGraph

        def graph(saver: RedisSaver) -> Any:
            builder = StateGraph(MessagesState).add_node("n", lambda state: {"messages": [("ai", "yes")]}).add_edge(START, "n")
            return builder.compile(checkpointer=saver)

        thread: Any = {"configurable": {"thread_id": "t"}}
        with opened() as saver:
            graph(saver).invoke({"messages": [("user", "there?")]}, thread)
            policy = saver.client.config_get("maxmemory*")
            assert (policy["maxmemory"], policy["maxmemory-policy"]) == (str(2**30), "noeviction")
            time.sleep(1.5)  # appendfsync everysec
        container.kill("SIGKILL")
        container.start()
        with opened() as saver:
            assert [each.content for each in graph(saver).get_state(thread).values["messages"]] == ["there?", "yes"]
    finally:
        container.remove(force=True)
        volume.remove()


def test_every_recipe_of_the_page_is_here() -> None:
    names = re.findall(r"^```(?:python|yaml)\n# ([\w.]+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(names) == 6
    run_here = set(re.findall(r"\b(?:written|recipe)\(\"([\w.]+)\"", Path(__file__).read_text("utf-8")))
    assert set(names) - run_here == {"upgrading.py"}, "which tests/docs/test_recipes.py runs"
