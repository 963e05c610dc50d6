"""Several processes that import once: a fresh Python imports, then forks. Each child knows its `number`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

FORK = """
import os, sys
sys.path.insert(0, {tests!r})
{imports}

children = []
for number in range({count}):
    children.append(os.fork())
    if children[-1] == 0:
        break
else:
    sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children))
"""


def forked(count: int, imports: str, body: str, *arguments: str) -> list[str]:
    """The command that runs `body` in so many processes, with these in `sys.argv`. It fails if one of them does."""
    fork = FORK.format(tests=str(Path(__file__).parent), count=count, imports=textwrap.dedent(imports))
    return [sys.executable, "-c", fork + textwrap.dedent(body), *arguments]
