"""Runs LangGraph's own store tests, from its source distributions, against `RedisStore`.

`python -m integration_tests.store.suite` downloads the distributions with pip, and leaves the test files as they are:
`standing_in.py` gives them a `RedisStore` under the names that they import. What is left out is listed in `LEFT_OUT`, each with
its reason. Prints one line a file. With `--url` it runs against that server, else against an embedded one; with `--semantic`
also the tests of semantic search, which need Redis 8.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from langgraph_redis_state import EmbeddedServer

HERE = Path(__file__).parent

FILES = {
    "langgraph-checkpoint": ("4.3.2", ["test_store.py"]),
    "langgraph-checkpoint-sqlite": ("3.1.2", ["test_store.py", "test_async_store.py", "test_ttl.py"]),
    "langgraph-checkpoint-postgres": ("3.2.0", ["test_store.py", "test_async_store.py"]),
}

LEFT_OUT = {
    "escape_glob or escape_like or namespace_match_pattern or nonnull_migrations or indexable_condition": "functions and SQL "
    "inside of the other package",
    "single_pool_checkout": "counts connections of psycopg's pool",
    "sql_injection_vulnerability": "expects that a filter key with quotes is refused; here it is a key like any other",
    "keys_with_hyphens_and_digits": "SqliteStore's own dotted paths in filter keys; InMemoryStore has none either",
    "omit_expired_disabled": "expects that expired items are returned until a sweep removes them; here they never are",
    "omit_expired_refresh": "reads a moment of expiry after 0 s, and a TTL is refreshed when less than 90 % is left",
    "ttl_override_default": "expects that reads refresh only with refresh_on_read; BaseStore documents it as the default",
    "(scores and l2)": "expects pgvector's L2 distance as score; here a score is the cosine, as in InMemoryStore",
    "omit_expired_search_pagination": "sets times of update by SQL",
}
LEFT_OUT_OF = {
    ("langgraph-checkpoint-sqlite", "test_store.py"): {"vector_store_initialization": "looks for tables of SQLite"},
}
SEMANTIC = "vector or embed_with_path or scores or non_ascii or search_sorting"

CONFTEST = """
import sys
sys.path.insert(0, {here!r})
import standing_in
standing_in.install()
import pytest
{imports}
DEFAULT_URI = "postgres://nowhere/nothing"
VECTOR_TYPES = ["vector"]

@pytest.fixture
def fake_embeddings():
    return CharacterEmbeddings(dims=500)
"""

IMPORTS = {"langgraph-checkpoint-sqlite": "CharacterEmbeddings = None"}


def fetched(package: str, version: str, into: Path) -> Path:
    """The tests of a source distribution."""
    asked = ["--no-deps", "--no-binary", ":all:", f"{package}=={version}", "-d", str(into)]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *asked], check=True)
    (archive,) = into.glob(f"{package.replace('-', '_')}-{version}.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(into, filter="data")
    return into / f"{package.replace('-', '_')}-{version}" / "tests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--semantic", action="store_true")
    parser.add_argument("--tests", type=Path, help="a folder with the unpacked distributions")
    given = parser.parse_args()
    always = [*LEFT_OUT, *([] if given.semantic else [SEMANTIC])]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder, "tools")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--target",
                str(tools),
                "--no-deps",
                "pytest-mock",
                "pytest-retry",
            ],
            check=True,
        )
        server = None if given.url else EmbeddedServer.start()
        try:
            for package, (version, files) in FILES.items():
                tests = given.tests and given.tests / f"{package.replace('-', '_')}-{version}" / "tests"
                room = Path(folder, package, "tests")
                room.mkdir(parents=True)
                source = tests or fetched(package, version, Path(folder))
                for name in (*files, "embed_test_utils.py"):
                    if (source / name).exists():
                        (room / name).write_text((source / name).read_text())
                (room / "__init__.py").touch()
                imports = IMPORTS.get(package, "from tests.embed_test_utils import CharacterEmbeddings")
                (room / "conftest.py").write_text(CONFTEST.format(here=str(HERE), imports=imports))
                for name in files:
                    left_out = " or ".join([*always, *LEFT_OUT_OF.get((package, name), {})])
                    command = [
                        sys.executable,
                        "-m",
                        "pytest",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "-o",
                        "asyncio_mode=auto",
                        f"tests/{name}",
                    ]
                    paths = os.pathsep.join([str(tools), str(HERE.parents[1])])
                    environment = {
                        **os.environ,
                        "PYTHONPATH": paths,
                        "LGRS_STORE_URL": given.url or (server.url if server else ""),
                        "LGRS_STORE_SEMANTIC": "1" if given.semantic else "",
                    }
                    command += ["-k", f"not ({left_out})", "-W", "ignore", "-p", "pytest_mock"]
                    done = subprocess.run(
                        command, cwd=room.parent, env=environment, capture_output=True, text=True, check=False
                    )
                    failed |= done.returncode
                    if done.returncode:
                        print(done.stdout, done.stderr)
                    figure = (re.findall(r".*(?:passed|failed).*", done.stdout) or [done.stderr])[-1].strip("= ")
                    print(f"{package} {version} {name}: {figure}", flush=True)
        finally:
            if server is not None:
                server.close()
    print("\nleft out:")
    reasons = dict(LEFT_OUT)
    for some in LEFT_OUT_OF.values():
        reasons |= some
    if not given.semantic:
        reasons[SEMANTIC] = "semantic search"
    for names, reason in reasons.items():
        print(f"  {names}: {reason}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
