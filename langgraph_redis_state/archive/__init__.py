"""Threads in a file: export, backup, import, and reading them without a server (docs/archive.md).

exporting  threads of a server into a file     importing  back, and verifying a file
offline    a file as a checkpointer            crossing   fields between a server's settings and the file's
frames     the bytes of a file                 writing, reading   the file

`export_threads`, `backup`, `import_threads`, `verify_archive` and `ArchiveSaver` are the door. Imported by `cli`. May import
all rooms but the tools. Must not import what stored bytes name, nor print.
"""

from .exporting import abackup, aexport_threads, backup, export_threads
from .importing import aimport_threads, import_threads, verify_archive
from .offline import ArchiveSaver
from .report import Progress, Report

__all__ = [
    "ArchiveSaver",
    "Progress",
    "Report",
    "abackup",
    "aexport_threads",
    "aimport_threads",
    "backup",
    "export_threads",
    "import_threads",
    "verify_archive",
]
