"""Puts the `uv` binary into a folder with nothing but the standard library: `python3 get_uv.py FOLDER`.

For machines whose Python has neither venv nor pip (Debian's, out of the box). Takes the newest wheel for this machine
from the Python package index (https://peps.python.org/pep-0503/), checks its SHA-256, and unpacks the binary.
"""

import hashlib
import io
import os
import platform
import re
import sys
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

INDEX = os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple").rstrip("/")
TIMEOUT_S = 60


LINK = re.compile(r'<a href="([^"#]+)#sha256=([0-9a-f]{64})"([^>]*)>uv-([0-9.]+)-([^<]+)</a>')


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - the index's own address
        return bytes(response.read())


def main(folder: Path) -> None:
    """Leaves an executable `uv` in `folder`. Exits with one line when it cannot."""
    wanted = f"py3-none-manylinux_2_17_{platform.machine()}.manylinux2014_{platform.machine()}.whl"
    try:
        links = LINK.findall(_get(f"{INDEX}/uv/").decode())
        fitting = [link for link in links if link[4] == wanted and "data-yanked" not in link[2]]
        url, digest, *_ = max(fitting, key=lambda link: [int(part) for part in link[3].split(".")])
        wheel = _get(urllib.parse.urljoin(f"{INDEX}/uv/", url))
    except (OSError, ValueError) as error:
        sys.exit(f"error: no uv for {platform.machine()} from {INDEX} ({type(error).__name__}); install uv by hand")
    if hashlib.sha256(wheel).hexdigest() != digest:
        sys.exit(f"error: {url} is not what {INDEX} says it is")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        (folder / "uv").write_bytes(archive.read(name))
    (folder / "uv").chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
