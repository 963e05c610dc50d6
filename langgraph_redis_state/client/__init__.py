"""The wire: the only room that opens connections, waits, and knows redis-py and asyncio.

connection    one sync client, one async client for each event loop
url, options, clients, injected, closing    building them and letting them go
driver        performs effects, blocking or awaiting                     batching   calls of many tasks in one packet
translation   the client library's errors as ours

Imported by the surfaces only. May import `effects`, `durability`, `validation`, `errors`. Must not know what a checkpoint is.
"""
