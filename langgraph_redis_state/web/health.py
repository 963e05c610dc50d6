"""verify in the background, with its progress: it reads every byte, so no request waits for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .. import CheckpointerError, Finding, Progress, RedisSaver

FINDINGS_MOST = 500


@dataclass
class Verification:
    """One run at a time; what it found stays until the next."""

    saver: RedisSaver
    running: bool = False
    total: int = 0
    seen: Progress = field(default_factory=Progress)
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    problem: str = ""
    finished: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> bool:
        """Begins a run; False if one is under way."""
        with self._lock:
            if self.running:
                return False
            self.running, self.finished, self.problem, self.more = True, False, "", 0
            self.findings, self.seen = [], Progress()
        threading.Thread(target=self._run, daemon=True, name="lgrs verify").start()
        return True

    def _run(self) -> None:
        try:
            self.total = sum(1 for _ in self.saver.list_threads())
            for finding in self.saver.verify(progress=self._count):
                if len(self.findings) < FINDINGS_MOST:
                    self.findings.append(finding)
                else:
                    self.more += 1
        except CheckpointerError as error:
            self.problem = str(error)
        finally:
            self.finished, self.running = True, False

    def _count(self, seen: Progress) -> None:
        self.seen = seen
