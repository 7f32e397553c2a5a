"""Writes a file whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, text: str, private: bool = False) -> None:
    """Leaves `text` at `path`; a reader sees the old file or the new one. Makes the folder.

    `private` is for this user only. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666), "wb") as file:
        file.write(text.encode())
    partial.replace(path)
