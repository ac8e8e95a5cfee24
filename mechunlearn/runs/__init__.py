"""Run folders: what a long job leaves behind, whole or not at all, so that it can be interrupted at any moment.

    run.json        kind, settings, versions, and when it is done: what was found ("about"), and digests of its files
    units/*         the finished pieces of the job, a table each and beside it what it was made of; never computed twice
    *.parquet       the finished frames

A file appears under its name only when it is complete: written beside it, flushed to disk, renamed.
"""  # fmt: skip

from .files import read_frame, renamed_when_whole, write_atomically, write_frame, write_json
from .folder import RunFolder, begun, check_run
from .makers import versions
from .record import check_files, read_finished, read_run

__all__ = [
    "RunFolder", "begun", "check_files", "check_run", "read_finished", "read_frame", "read_run", "renamed_when_whole",
    "versions", "write_atomically", "write_frame", "write_json",
]  # fmt: skip
