"""SqliteSaver, PostgresSaver and their async twins: threads, places and task paths from the columns of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from .flow import Flow, Step
from .sources import Place, Row, Source

Rows = list[Sequence[Any]]


class SqlSource(Source):
    notes = ()
    mark = "?"
    table = "writes"
    path_column = "task_path"

    def query(self, sql: str, *arguments: str) -> Step:
        """A step that gives the rows of a query as tuples."""
        raise NotImplementedError

    def threads(self) -> Flow[list[str]]:
        rows: Rows = yield self.query("SELECT DISTINCT thread_id FROM checkpoints")
        return [thread for (thread,) in rows]

    def places(self, thread: str) -> Flow[list[Place]]:
        columns = "checkpoint_id, checkpoint_ns"
        rows: Rows = yield self.query(f"SELECT {columns} FROM checkpoints WHERE thread_id = {self.mark}", thread)
        return sorted(Place(checkpoint, ns) for checkpoint, ns in rows)

    def rows(self, thread: str, place: Place) -> Flow[list[Row] | None]:
        where = " AND ".join(f"{name} = {self.mark}" for name in ("thread_id", "checkpoint_ns", "checkpoint_id"))
        columns = f"task_id, {self.path_column}, idx, channel"
        rows: Rows = yield self.query(f"SELECT {columns} FROM {self.table} WHERE {where}", thread, place.ns, place.checkpoint)
        return [Row(*row) for row in rows]


class SqliteSource(SqlSource):
    def query(self, sql: str, *arguments: str) -> Step:
        if not getattr(self.saver, "_has_task_path", True):  # a read-only database from before that column
            sql = sql.replace(self.path_column, "''")
        return partial(self._aquery if self.awaited else self._query, sql, arguments)

    def _query(self, sql: str, arguments: Sequence[str]) -> Rows:
        with self.saver.cursor(transaction=False) as cursor:
            rows: Rows = cursor.execute(sql, arguments).fetchall()
            return rows

    async def _aquery(self, sql: str, arguments: Sequence[str]) -> Rows:
        await self.saver.setup()
        async with self.saver.lock, self.saver.conn.execute(sql, arguments) as cursor:
            return list(await cursor.fetchall())


class PostgresSource(SqlSource):
    mark = "%s"
    table = "checkpoint_writes"

    def query(self, sql: str, *arguments: str) -> Step:
        return partial(self._aquery if self.awaited else self._query, sql, arguments)

    def _query(self, sql: str, arguments: Sequence[str]) -> Rows:
        with self.saver._cursor() as cursor:
            cursor.execute(sql, arguments)
            return [tuple(row.values()) for row in cursor.fetchall()]

    async def _aquery(self, sql: str, arguments: Sequence[str]) -> Rows:
        async with self.saver._cursor() as cursor:
            await cursor.execute(sql, arguments)
            return [tuple(row.values()) for row in await cursor.fetchall()]
