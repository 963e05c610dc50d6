"""Verbs beyond LangGraph's contract: history, tags, diff, rollback, TTL, finding threads. Operations, as in `operations`.

resolving   finds the checkpoint that an id, a tag, or steps back mean
versions    history          tags      tag, untag, tags
diff        diff             rollback  fork and truncate
threads     list, find, stats, TTL                          heads     heads, writes

Imported by `state` and the surfaces. May import `operations` and the rooms below. Must not do I/O or know asyncio.
"""
