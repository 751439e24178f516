"""Build the dashboard's pages from their lock file and compare them with those of the repository.

Run as a script by ``make check-frontend``; not a part of the test suite, because it downloads packages.
"""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES, BUILT = ROOT / "dashboards" / "frontend", ROOT / "dashboards" / "static"
NODE = 20
AWAY = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
    "E403",
)
"""What npm says where there is no registry, or none that it may use."""


def say(text: str) -> None:
    """A line for whoever reads the log."""
    sys.stdout.write(f"{text}\n")


def node_version() -> int:
    """The major version of node, 0 where it or npm is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return 0
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.strip().lstrip("v").partition(".")[0])


def build(folder: Path) -> bool:
    """Build a copy of the sources, and say whether the packages could be had."""
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
    options = ["--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
    install = subprocess.run(["npm", "ci", *options], cwd=folder, capture_output=True, text=True, check=False)
    if install.returncode != 0:
        if any(f"code {code}" in install.stderr for code in AWAY):
            return False
        sys.exit(install.stderr)
    done = subprocess.run(["npm", "run", "build"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return True


def files(folder: Path) -> set[str]:
    """The files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """The check."""
    if node_version() < NODE:
        say(f"the pages are not built anew: this needs node {NODE} or later, and npm")
        return
    with tempfile.TemporaryDirectory() as place:
        if not build(Path(place) / "frontend"):
            say("the pages are not built anew: the registry of npm cannot be reached")
            return
        fresh = Path(place) / "static"
        names = files(fresh) | files(BUILT)
        _, different, missing = filecmp.cmpfiles(fresh, BUILT, names, shallow=False)
    if different or missing:
        sys.exit(
            f"the pages in the repository are not those of their sources: {different + missing}; run make frontend"
        )
    say(f"a fresh build gives the {len(names)} files of the repository")


if __name__ == "__main__":
    main()
