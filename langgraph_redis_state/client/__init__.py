"""The wire: the only room that opens connections, waits, and knows redis-py and asyncio.

connection     one sync client, one async client for each event loop         contact   the first look at a server
url, options   what the caller says                                          clients   building them and letting them go
driver         performs operations, blocking or awaiting, in steps           batching  calls of many tasks in one packet
exchange       one call, or one read, in steps                               confirming  one durable write, in steps
translation    the client library's errors as ours                           library, workarounds, idle   redis-py itself

Imported by the surfaces only. May import `effects`, `durability`, `validation`, `errors`. Must not know what a checkpoint is.
"""
