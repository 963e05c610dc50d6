"""The keys of threads: those used lately, else derived from the secret, or asked for. No I/O but that of a key provider.

A key provider may take as long as a network does, so it is called in a worker thread where an event loop runs. Calls that need
the keys of one thread at once share one question and its answer, or its error. How long it may take is its own concern: a
question that hangs holds up those who wait for this thread, and one worker thread for each of them, and nobody else.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Final

from ..address import Address
from ..caching.bounded import BoundedCache, Locked
from ..effects import Operation, compute
from ..errors import KeyProviderError
from ..storage.seals import Keyring, Seal

KEY_SECONDS: Final = 300.0
"""A key provider is asked again for a thread after so many seconds."""

ASKING: Final = 1 << 40
"""Stands for bytes of work, so that an event loop does not wait for a key provider."""


class Asking(Future[Seal]):
    """A question that a thread of this process asks."""

    def __init__(self) -> None:
        super().__init__()
        self.by = threading.get_ident()


class Seals(Locked):
    """The seals of threads, each with the moment since which it is known."""

    def __init__(self, keyring: Keyring) -> None:
        super().__init__()
        self._keyring = keyring
        self._known: BoundedCache[bytes, tuple[Seal, float]] = BoundedCache(4 << 20, lambda thread, _: len(thread) + 2000)
        self._asking: dict[tuple[int, bytes], Asking] = {}
        """By process too: in a forked child nobody answers what its parent asked."""

    def unlock(self, target: Address) -> Operation[None]:
        """Takes the keys of a thread, before any of it is read or written."""
        keyring = self._keyring
        if keyring.shared is not None:
            target.seal = keyring.shared
        if target.unlocked:
            return
        seal = self._at_hand(target)
        if seal is None:
            seal = keyring.seal(target.prefix, target.thread.encode())
            if seal is None:
                seal = yield from compute(partial(self._asked, target), ASKING)
            else:
                self._known.put(target.keys.name, (seal, 0.0))
        target.seal = seal

    def _at_hand(self, target: Address) -> Seal | None:
        known = self._known.get(target.keys.name)
        if known is None or (self._keyring.asks and time.monotonic() - known[1] > KEY_SECONDS):
            return None
        return known[0]

    def _asked(self, target: Address) -> Seal:
        about, name = target.about("asking for its key"), target.keys.name
        place = os.getpid(), name
        while True:
            with self.lock:
                if (seal := self._at_hand(target)) is not None:
                    return seal
                other = self._asking.get(place)
                if other is None:
                    mine = self._asking[place] = Asking()
                    break
            if other.by == threading.get_ident():
                raise KeyProviderError(f"{about}: the key provider itself reads or writes the thread whose key it is asked for")
            try:
                return other.result()
            except CancelledError:
                continue  # whoever asked was interrupted
            except KeyProviderError as error:
                raise KeyProviderError(f"{error}") from error
        try:
            seal = self._keyring.asked(target.prefix, target.thread.encode(), about)
            self._known.put(name, (seal, time.monotonic()))
            mine.set_result(seal)
        except KeyProviderError as error:
            mine.set_exception(error)
            raise
        finally:
            mine.cancel()  # does nothing if there is an answer
            with self.lock:
                del self._asking[place]
        return seal
