"""Writes a file whole or not at all."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Leaves `text` at `path`; a reader sees the old file or the new one. Makes the folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
