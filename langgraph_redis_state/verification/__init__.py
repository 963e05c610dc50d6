"""Checking what is stored, and repairing it.

verify        reads threads in portions and emits findings or repairs
snapshot      a thread as it was at one moment, its fields verified
consistency   what is wrong with a snapshot, and what would mend it: pure functions
findings      what the caller gets

Imported by the surfaces. May import `operations` and the rooms below. Must not do I/O or know asyncio.
"""
