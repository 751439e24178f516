"""Build sdist and wheel, install the wheel into a clean environment, and search from another directory.

Run as a script by ``make wheel``; not a part of the test suite, because it installs packages.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = (
    "nasplat/study.py",
    "nasplat/search_spaces/conv_kernels.py",
    "nasplat/strategies/random.py",
    "nasplat/storage/migrations/versions/0001_the_first_schema.py",
    "nasplat/dashboards/plots.py",
    "nasplat/dashboards/static/app.js",
)
SMOKE = """
import nasplat, pathlib
assert "site-packages" in nasplat.__file__, nasplat.__file__
study = nasplat.search("conv-kernels", "digits", budget=2, epochs=1, store="smoke.db")
assert len(study.completed()) == 2
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command and stop at its failure."""
    subprocess.run([str(c) for c in command], cwd=cwd, check=True)


def main() -> None:
    """The check."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place, ROOT, cwd=place)
        (wheel,) = place.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        missing = [name for name in EXPECTED if names.count(name) != 1]
        stray = sorted({n.split("/")[0] for n in names if not n.startswith(("nasplat/", "nasplat-"))})
        if missing or stray:
            sys.exit(f"the wheel lacks, or holds twice: {missing}; it holds beside nasplat: {stray}")
        # A clean environment that sees this one's third-party packages: only nasplat itself comes from the wheel.
        venv.create(place / "clean", with_pip=False)
        python = place / "clean" / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=place)
        packages = next((place / "clean" / "lib").glob("python*/site-packages"))
        mine = Path(next(p for p in sys.path if p.endswith("site-packages")))
        (packages / "dependencies.pth").write_text("\n".join(map(str, _without_nasplat(mine, place))) + "\n")
        run(python, "-c", SMOKE, cwd=place)
        run(place / "clean" / "bin" / "nasplat", "list", "--store", "smoke.db", cwd=place)
    sys.stdout.write("the wheel is complete and runs from another directory\n")


def _without_nasplat(packages: Path, place: Path) -> list[Path]:
    """A folder of links to everything in site-packages but nasplat's own editable installation."""
    links = place / "dependencies"
    links.mkdir()
    for entry in packages.iterdir():
        if "nasplat" not in entry.name:
            (links / entry.name).symlink_to(entry)
    return [links]


if __name__ == "__main__":
    main()
