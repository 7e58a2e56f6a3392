"""The log of a run: scalars and texts in TensorBoard and CSV files, and its folder."""

from agentzoo.logging.logger import Logger, LogMark, make_folder, versions

__all__ = ["LogMark", "Logger", "make_folder", "versions"]
