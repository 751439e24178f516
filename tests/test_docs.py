"""The documentation is run: every Python block, the commands of the page on extending, links, and names."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nasplat import registry
from nasplat.cli import app as app_module
from tests.cli_runner import runner

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    (nasplat .*(?:\\\n.*)*)$", re.MULTILINE)


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = next(b for b in BLOCK.findall((ROOT / "README.md").read_text()) if "nasplat.search(" in b)
    (tmp_path / "example.py").write_text(block)
    runpy.run_path("example.py")
    assert "architecture" in capsys.readouterr().out


def test_the_task_of_the_readme_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    block = next(b for b in BLOCK.findall((ROOT / "README.md").read_text()) if "# flowers.py" in b)
    assert len(block.strip().splitlines()) <= 10
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.integers(0, 255, (1000, 3, 8, 8), dtype=np.uint8))
    np.save("y.npy", np.arange(1000) % 4)
    (tmp_path / "flowers.py").write_text(block)
    task = runpy.run_path("flowers.py")["flowers"]()
    assert (task.input_shape, task.outputs, task.has_test) == ((3, 8, 8), 4, True)


def test_the_page_on_extending_works_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (ROOT / "docs" / "extending.md").read_text()
    for block in BLOCK.findall(text):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None, "each block is a file that is named in its first line"
        (tmp_path / name[1]).write_text(block)
    run = runner(monkeypatch, capsys)
    commands = [c for c in COMMAND.findall(text) if c.startswith(("nasplat search", "nasplat score"))]
    assert len(commands) == 3
    for command in commands:
        result = run(*command.split()[1:])
        assert result.code == 0, f"{command}\n{result.err}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mlps.py"]
    suite = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert suite.returncode == 0, suite.stdout
    assert " passed" in suite.stdout


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("kind", ["search_space", "strategy", "proxy", "task", "table", "executor"])
def test_everything_registered_is_documented(kind: registry.Kind) -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in registry.names(kind):
        assert f"`{name}" in text, f"no page names the {kind} {name!r}"


def test_commands_of_the_pages_exist() -> None:
    app_module._add_commands()
    commands = {c.name or getattr(c.callback, "__name__", "") for c in app_module.app.registered_commands}
    known = commands | {str(g.name) for g in app_module.app.registered_groups}
    for page in PAGES:
        for command in COMMAND.findall(page.read_text()):
            assert command.split()[1] in known, f"{page.name}: {command}"


def test_the_settings_file_of_the_page_is_valid() -> None:
    from nasplat.config import StudyConfig

    text = (ROOT / "docs" / "searching.md").read_text()
    block = re.search(r"((?:^    .*\n)+)", text[text.index("--config study.toml") :], re.MULTILINE)
    assert block is not None
    config = StudyConfig.from_json(tomllib.loads(re.sub("^    ", "", block[1], flags=re.MULTILINE)))
    assert config.strategy_options == {"population": 16}
