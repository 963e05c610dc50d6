"""`python -m benchmarks.store [--postgres URL]`: times and sizes of `RedisStore` beside other stores. Prints two tables.

All are measured in one run, in turn, round by round: medians in ms, and behind them how many times the median of SqliteStore
that is. The items are memories of 200 users, some hundred bytes of text each. Redis, over TCP, keeps what it stores in memory.
SQLite has a file. Of a PostgreSQL that is given, only a database is used that is made for the run and dropped with it. Sizes:
by how much the server's `used_memory` grew; the file after a checkpoint; the table with its indexes.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langgraph.store.base import BaseStore, PutOp

from langgraph_redis_state import RedisStore

from .servers import Server, find_program

USERS = 200
WORDS = Path(__file__, "../../demo/texts/letter.txt").resolve().read_text().split()


def memory(rng: random.Random) -> dict[str, Any]:
    return {
        "text": " ".join(rng.choices(WORDS, k=rng.randint(20, 100))),
        "kind": rng.choice(["fact", "preference", "episode"]),
        "importance": rng.random(),
        "source": {"thread": str(uuid.UUID(int=rng.getrandbits(128))), "turn": rng.randrange(50)},
    }


def user(rng: random.Random) -> tuple[str, ...]:
    return ("memories", f"user-{rng.randrange(USERS):04}")


@contextlib.contextmanager
def redis_store() -> Iterator[tuple[BaseStore, Callable[[], int]]]:
    with Server.private(find_program()) as server, RedisStore(server.url) as store:
        store.setup()
        empty = server.client.info("memory")["used_memory"]
        yield store, lambda: server.client.info("memory")["used_memory"] - empty


@contextlib.contextmanager
def sqlite_store() -> Iterator[tuple[BaseStore, Callable[[], int]]]:
    from langgraph.store.sqlite import SqliteStore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.sqlite")

        def size() -> int:
            store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return path.stat().st_size

        with SqliteStore.from_conn_string(str(path)) as store:
            store.setup()
            yield store, size


@contextlib.contextmanager
def postgres_store(url: str) -> Iterator[tuple[BaseStore, Callable[[], int]]]:
    import psycopg
    from langgraph.store.postgres import PostgresStore

    name = f"lgrs_bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            where = f"{url.rpartition('/')[0]}/{name}"
            with PostgresStore.from_conn_string(where) as store, psycopg.connect(where, autocommit=True) as looking:
                store.setup()
                size = "SELECT pg_total_relation_size('store')"
                yield store, lambda: looking.execute(size).fetchone()[0]  # type: ignore[index]
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def place(n: int) -> tuple[tuple[str, ...], str]:
    """Where the nth item is."""
    return ("memories", f"user-{n % USERS:04}"), f"{n}"


def fill(store: BaseStore, count: int) -> None:
    rng = random.Random(1)
    for begin in range(0, count, 100):
        store.batch([PutOp(*place(n), memory(rng)) for n in range(begin, begin + 100)])


WORK: dict[str, Callable[[BaseStore, random.Random, int], object]] = {
    "put, a new item": lambda store, rng, n: store.put(user(rng), f"new-{n}", memory(rng)),
    "put, replacing": lambda store, rng, n: store.put(*place(n), memory(rng)),
    "get": lambda store, rng, n: store.get(*place(n)),
    "search of a user, 10 items": lambda store, rng, n: store.search(user(rng)),
    "search of a user, filtered": lambda store, rng, n: store.search(user(rng), filter={"kind": "fact"}),
    "search of a user, a filter that selects none": lambda store, rng, n: store.search(user(rng), filter={"kind": "none"}),
    "search of all users, 10 items": lambda store, rng, n: store.search(("memories",)),
    "list_namespaces of all users": lambda store, rng, n: store.list_namespaces(prefix=("memories",)),
    "batch of 100 puts": lambda store, rng, n: store.batch([PutOp(user(rng), f"{n}-{k}", memory(rng)) for k in range(100)]),
    "delete": lambda store, rng, n: store.delete(*place(n)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", help="postgresql://user:password@host:port/database, of a user who may make databases")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        stores = {"RedisStore": stack.enter_context(redis_store()), "SqliteStore": stack.enter_context(sqlite_store())}
        if given.postgres:
            stores["PostgresStore"] = stack.enter_context(postgres_store(given.postgres))
        for store, _ in stores.values():
            fill(store, given.items)
        sizes = {name: size() for name, (_, size) in stores.items()}
        plain = sum(len(str(memory(rng))) for rng in [random.Random(1)] for _ in range(1000)) / 1000
        print(f"{given.items:,} items of {plain:,.0f} bytes as text on average, {USERS} namespaces\n")
        print("| store | bytes | bytes an item |\n| --- | --- | --- |")
        for name, size in sizes.items():
            print(f"| {name} | {size:,} | {size / given.items:,.0f} |")
        times: dict[str, dict[str, list[float]]] = {what: {name: [] for name in stores} for what in WORK}
        for at in range(given.rounds):
            for what, work in WORK.items():
                for name in sorted(stores, key=lambda name: hash((name, at))):
                    rng = random.Random(at)
                    began = time.perf_counter()
                    work(stores[name][0], rng, at)
                    times[what][name].append(time.perf_counter() - began)
        print("\n| " + " | ".join(["ms (times SqliteStore)", *stores]) + " |\n|" + " --- |" * (len(stores) + 1))
        for what, found in times.items():
            medians = {name: statistics.median(each) * 1000 for name, each in found.items()}
            cells = [f"{each:.2f} ({each / medians['SqliteStore']:.2g})" for each in medians.values()]
            print("| " + " | ".join([what, *cells]) + " |")


if __name__ == "__main__":
    main()
