"""The base of the saver and the two state APIs: owns a connection, and is a context manager, sync and async."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from .client.connection import Connection
from .client.driver import arun, run
from .operations.engine import Engine, ping

if TYPE_CHECKING:
    from .embedded import EmbeddedServer


class Connected:
    """Owns a connection and the operations that go over it."""

    _connection: Connection
    _engine: Engine
    _server: EmbeddedServer | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.where!r}, prefix={self._engine.settings.prefix!r})"

    def ping(self) -> bool:
        """True if the server answers. Raises the error that says why it does not."""
        return run(ping(self._engine), self._connection)

    async def aping(self) -> bool:
        """`ping`, awaited."""
        return await arun(ping(self._engine), self._connection)

    def close(self) -> None:
        """Closes the connections that were made here, and an embedded server. Later calls raise `SaverClosedError`."""
        self._connection.close()
        if self._server is not None:
            self._server.close()

    async def aclose(self) -> None:
        """`close`, awaited. Call it in the event loop whose connections are to be closed."""
        await self._connection.aclose()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
