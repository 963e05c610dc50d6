"""Verbs of this package on the past of threads: look, name, compare, go back, expire, find. Operations, as in `operations`.

resolving   what a caller names a checkpoint by: id, tag, steps back
versions    history          tags      tag, untag, tags
diff        diff             rollback  fork and truncate
threads     list, find, stats, TTL                          heads     heads, writes

Imported by `state` and the surfaces. May import `operations` and the rooms below. Must not do I/O or know asyncio.
"""
