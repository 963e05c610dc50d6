"""Copies threads from any LangGraph saver to any other, and compares both sides.

`migrate` and `amigrate` are the door; `lgrs migrate` is the same for a shell. `copying` decides what is read and stored,
`sources` and its siblings know where each saver keeps what `CheckpointTuple` does not tell, `flow` performs, `specs` opens
sources by name.

Imported by `cli`. May import the package's public surface and `errors`; savers of other packages are recognized by the names
of their classes and never imported, except by `specs`.
"""

from .copying import amigrate, migrate
from .report import Difference, Progress, Report

__all__ = ["Difference", "Progress", "Report", "amigrate", "migrate"]
