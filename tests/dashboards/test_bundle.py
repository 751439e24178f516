"""The bundle in the repository is what its sources give."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from nasplat.dashboards.assets import STATIC, assets

FRONTEND = STATIC.parent / "frontend"
FILES = ["index.html", "package-lock.json", "tsconfig.json", "vite.config.ts"]

if not FRONTEND.is_dir():
    pytest.skip("the front-end's sources are not here", allow_module_level=True)


def test_the_bundle_is_up_to_date() -> None:
    names = [
        *FILES,
        *(p.relative_to(FRONTEND).as_posix() for f in ("public", "src") for p in (FRONTEND / f).rglob("*")),
    ]
    digest = hashlib.sha256()
    for name in sorted(n for n in names if (FRONTEND / n).is_file()):
        digest.update(f"{name}\0".encode() + (FRONTEND / name).read_bytes() + b"\0")
    recorded = (STATIC / "sources.sha256").read_text().strip()
    assert recorded == digest.hexdigest(), "the front-end has changed since it was built: make frontend"


def test_a_fresh_build_gives_the_same_files(tmp_path: Path) -> None:
    if shutil.which("npx") is None or not (FRONTEND / "node_modules").is_dir():
        pytest.skip("needs the front-end's packages: make frontend")
    command = [
        "npx",
        "--no-install",
        "vite",
        "build",
        "--logLevel",
        "error",
        "--emptyOutDir",
        "--outDir",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {f"/{p.relative_to(tmp_path).as_posix()}": p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert built == {path: asset.content for path, asset in assets().items()}


def test_the_bundle_is_small_and_names_nobody() -> None:
    script = assets()["/app.js"].content
    assert len(script) < 150_000
    addresses = {
        part.split(b'"')[0].split(b"`")[0] for part in script.split(b"http")[1:] if part[:3] in (b"://", b"s:/")
    }
    assert all(a.startswith(b"://www.w3.org/") for a in addresses), addresses


def test_packages_are_pinned_and_come_from_no_host() -> None:
    lock = (FRONTEND / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 3
