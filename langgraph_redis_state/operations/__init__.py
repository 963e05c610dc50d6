"""Verbs: what LangGraph's contract asks of a saver, each once, as generators of effects.

engine           settings and memory of one saver, and the layout check
writing          put, put_writes              reading         get_tuple, list
uploading        new chunks, staging          delta_channels  the history that rebuilds them
removing         delete, prune, retention     surveying, thread_headers   all headers of a thread
retention        which checkpoints stay       removal_plan    so what goes
copying          copy_thread                  buckets         indexes over all threads

Imported by `history`, `verification`, `state` and the surfaces. May import the rooms below. Must not do I/O or know asyncio.
"""
