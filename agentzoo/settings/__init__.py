"""Tuned settings: for each algorithm a YAML file with a row per environment, and presets.

`docs/how-to/tuned.md` describes the files.
"""

from agentzoo.settings.finding import file_of, find_row, presets_of, read
from agentzoo.settings.reading import Row, Settings, read_file
from agentzoo.settings.writing import write_row

__all__ = [
    "Row",
    "Settings",
    "file_of",
    "find_row",
    "presets_of",
    "read",
    "read_file",
    "write_row",
]
