"""The same random history, shaped as LangGraph writes it, on four savers: every tuple they give back must be equal.

- `Reference`: LangGraph's InMemorySaver, with the verbs it lacks, and values kept per record (two branches may give a
  channel the same version; InMemorySaver keeps one value for both, so it is itself compared on threads whose versions
  are its own, which are random and never meet);
- a RedisSaver through its sync methods;
- a second RedisSaver on the same prefix, always with cold caches: it reads what the first wrote, and sometimes writes in
  its place, as another process would;
- a RedisSaver through its async methods, on a prefix of its own.

`make soak-long` runs it for long, and makes a failure that was found small.
"""

from __future__ import annotations

import pytest
from histories import PROFILE, Histories
from hypothesis.stateful import run_state_machine_as_test


@pytest.mark.longer
def test_random_histories_are_equal_on_every_saver(url: str) -> None:
    run_state_machine_as_test(type("Histories", (Histories,), {"url": url}), settings=PROFILE)
