"""The command line on real work: what it prints, what it writes, and what it says to mistakes."""

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nasplat.cli.app import app
from tests.cli_runner import Run, runner

SEARCH = ("search", "--space", "tests.plugins:Faulty", "--task", "tests.plugins:blobs", "--epochs", "1")


@pytest.fixture
def nasplat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


@pytest.fixture
def searched(nasplat: Run) -> Run:
    """A folder in which study ``s`` has run."""
    arguments = ("--strategy", "assisted-evolution", "--set", "pool=6", "--set", "population=3", "--proxy", "params")
    goals = ("--objective", "val_loss", "--objective", "min params")
    assert nasplat(*SEARCH, *arguments, *goals, "--budget", "8", "--name", "s").code == 0
    return nasplat


def test_from_search_to_a_bundle_that_runs_alone(searched: Run, tmp_path: Path) -> None:
    listed = searched("list", "--json")
    (study,) = json.loads(listed.out)
    assert (study["study"], study["state"], study["failed"]) == ("s", "completed", 0)
    assert study["task"] == "blobs"
    again = json.loads(searched("resume", "s", "--json").out)
    assert again["trials"] == study["trials"]

    retrained = searched("retrain", "s", "--top", "2", "--seeds", "2", "--epochs", "3")
    assert retrained.code == 0
    assert retrained.out.count("test accuracy ") == 2
    assert retrained.out.count("/nasplat-results/") == 4

    pictures = searched("plot", "s", "-o", "pictures", "--format", "svg").out.split()
    names = ("best-so-far", "pareto", "proxy-flops", "proxy-params")
    assert pictures == [f"pictures/s/{name}.svg" for name in names]
    assert all("<svg" in Path(p).read_text() for p in pictures)

    exported = searched("export", "s", "-o", "bundle")
    assert exported.code == 0, exported.err
    alone = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import sys; sys.modules['nasplat'] = None; import runpy; "
            "runpy.run_path('bundle/model.py', run_name='__main__')",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert alone.returncode == 0, alone.stderr
    card = json.loads((tmp_path / "bundle" / "card.json").read_text())
    assert card["space"] == "faulty@1"
    assert card["test_accuracy"]["seeds"] == 2
    again = searched("export", "s", "-o", "bundle")
    assert again.code == 2
    assert "cannot export to bundle: expected a new or an empty folder" in again.err


def test_query_in_every_format(searched: Run, tmp_path: Path) -> None:
    everything = json.loads(searched("query", "s", "--json").out)
    trained = [r for r in everything if r["epochs"] == 1]
    assert len(trained) >= 8
    smallest = min(r["val_loss"] for r in trained)
    (best,) = json.loads(searched("query", "s", "--top", "1", "--json").out)
    assert best["val_loss"] == smallest
    small = json.loads(searched("query", "--where", "params < 100 and epochs == 1", "--json").out)
    assert {r["number"] for r in small} == {r["number"] for r in trained if r["params"] < 100}
    front = json.loads(searched("query", "s", "--pareto", "--json").out)
    assert [r["val_loss"] for r in front] == sorted(r["val_loss"] for r in front)
    assert [r["params"] for r in front] == sorted((r["params"] for r in front), reverse=True)
    rows = list(csv.DictReader(searched("query", "s", "--format", "csv").out.splitlines()))
    assert [int(r["number"]) for r in rows] == [r["number"] for r in everything]
    assert searched("query", "s", "--format", "parquet", "-o", "t.parquet").code == 0
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == len(everything)
    sql = json.loads(searched("query", "--sql", "SELECT study, trials FROM v_cost", "--json").out)
    assert sql == [{"study": "s", "trials": len(everything)}]
    page = json.loads(searched("query", "s", "--after", "9", "--limit", "2", "--json").out)
    assert [r["number"] for r in page] == [10, 11]
    table = searched("query", "s", "--top", "2")
    assert table.out.splitlines()[0].split()[-1] == "architecture"
    assert len(table.out.splitlines()) == 3


def test_show_and_why(searched: Run) -> None:
    shown = searched("show", "s")
    assert "fingerprint " in shown.out
    assert "parameters " in shown.out
    assert "val_loss" in shown.out
    facts = json.loads(searched("show", "fault=none,width=4,act=relu", "--space", "tests.plugins:Faulty", "--json").out)
    assert facts["choices"] == {"fault": "none", "width": 4, "act": "relu"}
    cell = searched("show", "resnet", "--space", "nasbench201", "--task", "digits", "--draw", "cell.png")
    assert Path("cell.png").read_bytes()[:4] == b"\x89PNG"
    assert "output = skip_connect(input)" in cell.out
    measured = ("--space", "tests.plugins:Faulty", "--architecture", "fault=none,width=4,act=relu", "--proxy", "params")
    for task in ("digits", "tests.plugins:blobs"):
        assert searched("score", *measured, "--task", task, "--name", f"of {task}").code == 0
    told = searched("show", "of digits").out
    assert "\nfor task digits:\nepochs " in told
    assert "\nfor task blobs:\nepochs " in told
    assert searched("why", "s").out == "no trial of s failed\n"
    failing = ("--space-set", "faults=raises", "--strategy", "random", "--name", "f", "--budget", "1")
    failed = searched(*SEARCH, *failing)
    assert failed.code == 1
    assert "no trial completed; see why: nasplat why f" in failed.out
    why = searched("why", "f", "0")
    assert why.out.startswith("trial 0: error: this architecture raises\n")
    assert 'raise RuntimeError("this architecture raises")' in why.out
    assert "this architecture raises" in searched("why", "f").out


def test_score_and_benchmark_import(nasplat: Run, tmp_path: Path) -> None:
    scored = nasplat("score", "--space", "conv-kernels", "--task", "digits", "--samples", "5", "--json")
    assert scored.code == 0
    best = json.loads(scored.out)["best"]
    assert len(best) == 5
    assert [b["metrics"]["naswot"] for b in best] == sorted((b["metrics"]["naswot"] for b in best), reverse=True)
    table = tmp_path / "table.csv"
    lines = ["arch,toy_valid_5ep,toy_test_5ep"]
    for width in range(2, 10):
        for act in ("relu", "tanh", "gelu", "silu"):
            lines.append(f'"fault=none,width={width},act={act}",{50 + width},{40 + width}')
    table.write_text("\n".join(lines) + "\n")
    space = ("--space", "tests.plugins:Faulty")
    imported = nasplat("benchmark", "import", f"csv:{table}#toy", *space, "--epochs", "5", "--json")
    assert imported.code == 0, imported.err
    assert json.loads(imported.out)["trials"] == 32
    lookup = ("search", *space, "--benchmark", f"csv:{table}#toy", "--epochs", "5", "--strategy", "local-search")
    found = json.loads(nasplat(*lookup, "--budget", "12", "--json").out)
    assert found["saved"] == found["trials"]
    assert found["best"][0]["metrics"]["val_accuracy"] >= 0.57


def test_settings_from_a_file(nasplat: Run, tmp_path: Path) -> None:
    settings = tmp_path / "study.toml"
    settings.write_text(
        'space = "tests.plugins:Faulty"\ntask = "tests.plugins:blobs"\nstrategy = "random"\nepochs = 1\n'
        'name = "from-file"\nobjective = "val_loss"\nbudget = 5\nproxy = "params"\n[recipe]\nlr = 0.01\n'
    )
    result = json.loads(nasplat("search", "--config", settings, "--budget", "3", "--json").out)
    assert result["study"] == "from-file"
    assert len(result["best"]) == 3
    settings.write_text('space = "tests.plugins:Faulty"\nepoch = 3\n')
    assert "unknown study setting 'epoch': did you mean 'epochs'?" in nasplat("search", "--config", settings).err
    settings.write_text("space = \n")
    assert "cannot read the settings" in nasplat("search", "--config", settings).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--space", "conv-kernel"), "unknown search space 'conv-kernel': did you mean 'conv-kernels'?"),
        (("--task", "digit"), "unknown task 'digit': did you mean 'digits'?"),
        (
            ("--strategy", "regularised-evolution"),
            "unknown strategy 'regularised-evolution': did you mean 'regularized-evolution'?",
        ),
        (("--budget", "0"), "--budget must be 1 or more, got 0"),
        (("--constraint", "parms <= 1e5"), "unknown metric 'parms': did you mean 'params'?"),
        (("--constraint", "params ~ 3"), "a constraint is 'METRIC <= NUMBER' (or >=, <, >), got 'params ~ 3'"),
        (("--objective", "best of all"), "an objective is 'METRIC', 'max METRIC' or 'min METRIC', got 'best of all'"),
        (("--set", "populaton=5"), "'populaton': did you mean 'population'?"),
        (("--set", "population"), "--set takes KEY=VALUE, got 'population'"),
        (("--recipe", "lr=fast"), "recipe: lr is of type float, got 'fast'"),
        (("--device", "cuda:9"), "device 'cuda:9' cannot be used"),
        (("--executor", "serial", "--workers", "2"), "the serial executor has 1 worker, got 2"),
        (("--task", "image-folder:nowhere"), "nowhere"),
        (("--task", "arrays:nothing.npz"), "nothing.npz"),
        (("--store", "no/such/folder/a.db"), "cannot be made: there is no folder no/such/folder"),
        (("--store", "mysterydb://x"), "not a database URL"),
        (("--epochs", "-1"), "epochs must be 0 or more, got -1"),
        (("--space", "tests.plugins:blobs"), "'tests.plugins:blobs' gives Task, expected a nasplat.SearchSpace"),
        (("--task", "tests.test_cli:SEARCH"), "expected a task: a class or a function"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(nasplat: Run, arguments: tuple[str, ...], message: str) -> None:
    base = {"--space": "conv-kernels", "--task": "digits"}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        base[option] = value
    result = nasplat("search", *(part for pair in base.items() for part in pair))
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert not Path("nasplat.db").exists() or not nasplat("list").out.strip().splitlines()[1:]


def test_mistakes_with_data(nasplat: Run, tmp_path: Path) -> None:
    def search(task: str) -> str:
        result = nasplat("search", "--space", "conv-kernels", "--task", task)
        assert result.code == 2
        return result.err

    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
    image.save(tmp_path / "pets" / "train" / "cat" / "1.png")
    assert "dog" in search("image-folder:pets")
    (tmp_path / "pets" / "train" / "dog" / "2.png").write_bytes(b"no image at all")
    assert "2.png" in search("image-folder:pets")
    (tmp_path / "pets" / "train" / "dog" / "2.png").unlink()
    (tmp_path / "pets" / "train" / "dog").rmdir()
    assert "expected two classes or more, got only 'cat'" in search("image-folder:pets")
    x = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    x[3, 0, 2, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(20) % 2)
    assert "1 values are NaN or infinite" in search("arrays:nan.npz")


def test_mistakes_with_files(searched: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ("query", "s", "--format", "csv", "-o", "none/t.csv"),
        ("query", "s", "--format", "parquet", "-o", "none/t.parquet"),
        ("plot", "s", "-o", "file"),
        ("quickstart", "file/here"),
    ):
        result = searched(*arguments)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
        assert arguments[-1] in result.err
        assert "; give another path" in result.err
    retrained = searched("retrain", "s", "--weights", "file/weights")
    assert (retrained.code, json.loads(searched("list", "--json").out)[-1]["study"]) == (2, "s")
    assert "no weights can be kept in file/weights (Not a directory)" in retrained.err


def test_scores_alone_are_not_retrained(nasplat: Run) -> None:
    assert nasplat("score", *SEARCH[1:5], "--samples", "2", "--name", "scores").code == 0
    refused = nasplat("retrain", "scores")
    assert "study 'scores' has scored untrained networks; say how long: --epochs 50" in refused.err


def test_what_is_said_to_be_next_can_be_typed(nasplat: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--strategy", "random", "--budget", "1", "--name", "my study")
    assert "next: nasplat retrain 'my study' --top 1 --seeds 3\n" in nasplat(*SEARCH, *small).out
    other = nasplat(*SEARCH, *small, "--store", "other.db").out
    assert "(nasplat query 'my study' --store other.db, nasplat plot 'my study' --store other.db)" in other
    assert "next: nasplat retrain 'my study' --top 1 --seeds 3 --store other.db\n" in other
    monkeypatch.setenv("NASPLAT_STORE", "third.db")
    assert "next: nasplat retrain 'my study' --top 1 --seeds 3\n" in nasplat(*SEARCH, *small).out
    assert "(mean over 1 seed, " in nasplat("retrain", "my study", "--seeds", "1").out


def test_mistakes_with_stores(searched: Run, tmp_path: Path) -> None:
    other = searched(*SEARCH, "--name", "s", "--strategy", "random")
    assert other.code == 2
    assert "study 's' exists with other settings" in other.err
    space = searched("search", "--space", "conv-kernels", "--task", "digits", "--name", "s")
    assert "space is 'tests.plugins:Faulty', got 'conv-kernels'" in space.err
    with sqlite3.connect(tmp_path / "nasplat.db") as connection:
        connection.execute("UPDATE nasplat_alembic_version SET version_num = '9999'")
    newer = searched("list")
    assert newer.code == 2
    assert "newer than this nasplat's" in newer.err
    assert "there is no store at none.db" in searched("list", "--store", "none.db").err
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be looked at" * 20)
    assert "not a database" in searched("list", "--store", "text.db").err


def test_every_command_has_help_with_an_example() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
        if command.callback.__name__ not in ("list_", "quickstart"):
            assert "[bold]Examples[/]" in command.callback.__doc__, command.callback.__name__
