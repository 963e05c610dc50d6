"""LangGraph's `BaseStore` on plain Redis: items by namespace and key, beside the threads of `RedisSaver`.

surface      `RedisStore`, `AsyncRedisStore`: one line a method      operations   batch, search, listing, sweep, repair
items        names and bytes: buckets, fields, records               walk         several buckets in one order, page by page
matching     filters and conditions, compared here                   vectors      semantic search: texts, and their vectors

Design: docs/store.md. The scripts are `scripts/store_*.lua`, over `scripts/lib/store.lua`.

Imported by the package's `__init__` and `drop_in`. May import everything; only `surface` may touch a connection.
"""
