"""Folders that share their files: made at once, and whole when the first of them is removed."""

import os
import shutil
from pathlib import Path


def link_folder(folder: Path, to: Path) -> None:
    """Make `to` with all files of a folder, as hard links; as copies where the file system has no links.

    For files that nobody writes to again: they are one.
    """
    shutil.copytree(folder, to, copy_function=link_file, dirs_exist_ok=True)


def link_file(file: str | Path, to: str | Path) -> str:
    """Make `to` another name of a file, or a copy of it."""
    try:
        os.link(file, to)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, to)
    return str(to)
