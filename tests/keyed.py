"""Tests on savers that encrypt, for `make keyed`: with `KEYED=encrypt` in the environment each saver gets a key that it was not
given, with `KEYED=encrypt,names` also a name key, and with `KEYED=encrypt,fresh` freshness."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.names import HiddenNames

ENCRYPTION_KEY = bytes(range(32))
NAME_KEY = bytes(range(32, 64))

PROCESSES = "it starts processes whose savers get no key"
UNSIGNED = "it is about savers that do not encrypt, beside others that sign"
FIGURES = "it compares with figures of threads that are not encrypted"
ONE_BY_ONE = "with statements each write compares, and none follows"
FIELDS = "it says which fields a thread has, and a statement is one more"
PLAIN_NAMES = "it looks for names in indexes as they are given, or writes them there"

LEFT_OUT = {
    "test_equal_sets_are_equal_though_two_processes_store_different_bytes": PROCESSES,
    "test_processes_that_save_one_state_lose_none": PROCESSES,
    "test_a_checksum_is_that_of_another_process": PROCESSES,
    "test_signed_states": UNSIGNED,
    "test_with_a_key_a_tag_that_somebody_else_wrote_is_refused": UNSIGNED,
    "test_with_a_key_a_record_of_somebody_without_it_is_refused_before_it_is_deserialized": UNSIGNED,
    "test_a_key_that_was_rotated_still_verifies_and_chunks_are_shared": UNSIGNED,
    "test_unkeyed_data_is_read_with_a_key_only_where_that_is_allowed": UNSIGNED,
    "test_what_is_not_signed_with_the_key_is_a_finding": UNSIGNED,
    "test_a_missing_or_wrong_key_is_told_with_the_variable_to_set": UNSIGNED,
    "test_a_body_that_claims_to_be_huge_is_refused_even_if_it_is_signed": "it makes a record without the key",
    "test_a_pipe_that_closes_early_is_no_error": PROCESSES,
    "test_output_that_is_ascii_holds_every_value": PROCESSES,
    "test_100_versions_of_50_keys_cost_what_the_guide_says": FIGURES,
    "test_the_counts_are_true_after_any_sequence_of_verbs": "a copy encrypts chunks anew, so those of another compression have "
    "another size than in its source",
}
"""Tests that cannot hold with a key, and why."""

LEFT_OUT_WITH_NAMES = {
    "test_forked_processes_that_know_the_same_last_write": PROCESSES,
    "test_a_thread_and_its_run_that_are_uuids_take_one_small_list": PLAIN_NAMES,
    "test_a_saver_that_writes_forgets_what_expired_in_buckets_that_nobody_writes_to": PLAIN_NAMES,
    "test_a_sweep_is_bounded_and_goes_on_where_it_stopped": PLAIN_NAMES,
    "test_a_sweep_that_fails_does_not_fail_the_put": PLAIN_NAMES,
    "test_a_limit_gives_the_first_of_all_wherever_they_are": PLAIN_NAMES,
    "test_what_is_no_id_in_an_index_is_an_error_that_names_it": PLAIN_NAMES,
    "test_without_versioning_one_is_kept": PLAIN_NAMES,
    "test_the_tag_index_does_not_grow_with_saves": PLAIN_NAMES,
    "test_export_import_and_export_again_give_equal_files": "an archive has the metadata that the exporting saver indexes, and "
    "the two savers index different ones",
}
"""Those that cannot hold with a name key."""


LEFT_OUT_FRESH = {
    "test_following": ONE_BY_ONE,
    "test_a_write_that_is_sent_again_changes_no_count": "each write makes a statement, which is a change",
    "test_what_overtook_a_checkpoint_goes_when_that_is_refused": FIELDS,
    "test_what_may_be_on_its_way_stays": FIELDS,
    "test_stats_count_a_thread_and_all": FIELDS,
    "test_only_the_last_state_is_kept_and_nothing_of_the_others": FIELDS,
    "test_without_versioning_one_is_kept": FIELDS,
    "test_the_bytes_that_are_replicated_are_at_most_three_times_those_that_are_stored": FIGURES,
    "test_a_command_repeated_after_a_lost_reply_makes_no_second_version": "the reply to every call of it is lost while another "
    "saver writes, and with a statement such a call begins anew each time",
    "test_a_save_by_who_does_not_know_the_newest_version_looks_first": "it counts round trips, and a write to a thread that "
    "this process does not know takes one more",
}
"""Those that cannot hold with freshness; also whole files."""


def give_keys(names: bool, fresh: bool) -> None:
    """From now on each saver of this process encrypts. `names`: and hides them, and tests find its keys all the same; `fresh`:
    and makes statements."""
    made, built = RedisSaver.__init__, ThreadKeys.__init__
    keys: dict[str, Any] = {"encryption_key": ENCRYPTION_KEY, **({"name_key": NAME_KEY} if names else {}), "freshness": fresh}

    def keyed(self: RedisSaver, *url: Any, **options: Any) -> None:
        given = {name: value for name, value in options.items() if name not in keys or value is not None}
        made(self, *url, **{**keys, **given})

    def found(self: ThreadKeys, prefix: str, thread: bytes, under: Any = None) -> None:
        built(self, prefix, thread, under or HiddenNames(NAME_KEY, prefix))

    RedisSaver.__init__ = keyed  # type: ignore[method-assign]
    if names:
        ThreadKeys.__init__ = found  # type: ignore[method-assign]


def leave_out(items: Sequence[pytest.Item]) -> None:
    """Skips the tests of the lists above, with their reasons."""
    reasons = dict(LEFT_OUT)
    for mode, more in (("names", LEFT_OUT_WITH_NAMES), ("fresh", LEFT_OUT_FRESH)):
        reasons |= more if mode in os.environ["KEYED"] else {}
    for item in items:
        reason = reasons.get(getattr(item, "originalname", item.name)) or reasons.get(item.path.stem)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
