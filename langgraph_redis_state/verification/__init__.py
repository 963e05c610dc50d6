"""Checking what is stored, and repairing it.

verify        reads threads in portions and emits findings or repairs
consistency   what is wrong with one reading of a thread, and what would mend it: pure functions
progress      how far a verification is

Imported by the surfaces. May import `operations` and the rooms below. Must not do I/O or know asyncio.
"""
