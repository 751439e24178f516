"""``nasplat score``: networks of one's own, and the cheap setting of a space by name."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nasplat
from nasplat import api, scoring
from nasplat.proxy import Batch
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies.naswot import agreement, log_determinant
from nasplat.strategies.proxies.synflow import synflow
from tests import networks
from tests.cli_runner import Run, runner

NAMES = ("tests.networks:Plain", "tests.networks:wide", "tests.networks:Smooth", "tests.networks:Squashed")
RNG = np.random.default_rng(3)
X = RNG.normal(size=(24, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in a folder of its own, with batches with and without classes."""
    monkeypatch.chdir(tmp_path)
    np.savez("batch.npz", x=X, y=np.arange(24) % 3)
    np.savez("bare.npz", x=X)
    return runner(monkeypatch, capsys)


def scores(run: Run, *arguments: object) -> dict[str, dict[str, Any]]:
    """Metrics by architecture."""
    result = run("score", *arguments, "--json")
    assert result.code == 0, result.err
    return {best["architecture"]: best["metrics"] for best in json.loads(result.out)["best"]}


def by_hand(network: networks.Plain) -> float:
    """NASWOT of the signs of what goes into both activations, on the whole batch as it is."""
    with torch.no_grad():
        first = network.first(torch.from_numpy(X))
        second = network.second(network.activation(first))
    # The batch in the order that the seed draws; the score does not depend on it but for rounding.
    return log_determinant(agreement(first) + agreement(second))


@pytest.mark.parametrize("name", ["Plain", "Smooth", "Squashed"])
def test_a_network_is_scored_on_the_batch_whatever_its_activation(run: Run, name: str) -> None:
    with torch_seed(0):
        expected = by_hand(getattr(networks, name)())
    found = scores(run, f"tests.networks:{name}", "--data", "bare.npz")[f"tests.networks:{name}"]
    assert math.isfinite(expected)
    assert found["naswot"] == pytest.approx(expected, rel=1e-4)
    assert found["params"] == sum(p.numel() for p in networks.Plain().parameters())


def test_networks_are_ranked_against_each_other(run: Run) -> None:
    found = scores(run, *NAMES, "--data", "batch.npz", "--proxy", "naswot+synflow+snip", "--store", "own.db")
    assert set(found) == set(NAMES)
    ranks = (
        np.array([[m[p] for m in found.values()] for p in ("naswot", "synflow", "snip")]).argsort(1).argsort(1).sum(0)
    )
    assert ranks.tolist() == sorted(ranks, reverse=True)
    with torch_seed(0):
        wide = networks.wide()
        expected = synflow.compute(wide, Batch(torch.from_numpy(X), torch.arange(24) % 3))
    assert found[NAMES[1]]["synflow"] == pytest.approx(expected, rel=1e-6)
    again = run("score", *NAMES[1:3], "--data", "batch.npz", "--proxy", "naswot+synflow+snip", "--store", "own.db")
    assert "study networks-2: 2 trials, 0 failed, 2 saved by earlier measurements" in again.out


def test_a_task_gives_the_batch_too(run: Run) -> None:
    found = scores(run, "tests.networks:flat", "--task", "tests.plugins:blobs", "--proxy", "near")
    assert found["tests.networks:flat"]["params"] == 16 * 8 + 8 + 8 * 2 + 2
    assert found["tests.networks:flat"]["near"] > 0.0


def test_token_ids_go_into_an_embedding(run: Run) -> None:
    np.savez("ids.npz", x=RNG.integers(0, 20, (16, 5)))
    assert math.isfinite(scores(run, "tests.networks:words", "--data", "ids.npz")["tests.networks:words"]["naswot"])


def test_fewer_examples_are_drawn_from_the_batch(run: Run) -> None:
    some, whole = (
        scores(run, NAMES[0], "--data", "bare.npz", *arguments)[NAMES[0]]["naswot"]
        for arguments in (("--batch-size", 8), ())
    )
    assert some < whole  # a determinant of fewer rows


@pytest.mark.parametrize("proxy", ["snip", "grasp", "fisher", "grad-norm", "plain", "zico", "epe-nas"])
def test_proxies_that_need_classes_say_so(run: Run, proxy: str) -> None:
    refused = run("score", NAMES[0], "--data", "bare.npz", "--proxy", proxy)
    assert refused.code == 1
    expected = "epe-nas needs a class for each example" if proxy == "epe-nas" else "the batch has no targets: add y"
    assert expected in refused.err
    assert run("score", NAMES[0], "--data", "batch.npz", "--proxy", proxy).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to score, and on what: --space SPACE --task TASK"),
        (("--space", "nasbench201"), "say what to score, and on what"),
        (
            ("tests.networks:wide",),
            "on a batch in a .npz file or on a task, got neither: give one of the two",
        ),
        (("tests.networks:wide", "--data", "bare.npz", "--task", "digits"), "got both: give one of the two"),
        (
            ("tests.networks:wide", "--data", "bare.npz", "--space", "nasbench201"),
            "expected a space or networks",
        ),
        (("--data", "bare.npz"), "bare.npz is a batch for networks of your own: name them as module:function"),
        (("tests.networks:wide", "--data", "bare.npz", "--all"), "leave out --samples, --all, --architecture"),
        (("tests.networks:wide", "--data", "none.npz"), "batch none.npz: there is no such file"),
        (("tests.networks:words", "--data", "bare.npz"), "network tests.networks:words cannot take the inputs of task"),
        (("nowhere:build", "--data", "bare.npz"), "there is no module 'nowhere': expected a file nowhere.py in this"),
        (("tests.networks:text", "--data", "bare.npz"), "tests.networks:text() gave str, expected an nn.Module"),
        (
            ("--space", "nasbench201", "--task", "digits", "--preset", "chaep"),
            "'chaep': did you mean 'cheap'",
        ),
        (
            ("--space", "conv-kernels", "--task", "digits", "--preset", "cheap"),
            "conv-kernels has no cheap setting",
        ),
        (("--space", "nasbench201", "--task", "digits", "--samples", "0"), "--samples must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    refused = run("score", *arguments)
    assert refused.code == 2
    assert message in refused.err
    assert not Path("nasplat.db").exists() or not json.loads(run("list", "--json").out)


@pytest.mark.parametrize("name", ["Linear", "recurrent"])
def test_a_network_in_which_no_activation_is_seen_is_refused(run: Run, name: str) -> None:
    data = "bare.npz" if name == "Linear" else "series.npz"
    np.savez("series.npz", x=X)
    refused = run("score", f"tests.networks:{name}", "--data", data)
    assert refused.code == 1
    assert "reads the signs of what goes into activation functions (ReLU, GELU, SiLU, …), and this" in refused.err
    assert "nn.LSTM" in refused.err


def test_a_module_of_the_current_folder_in_other_processes(run: Run) -> None:
    """The installed command is started from a folder that Python would not look into."""
    Path("mine.py").write_text("import tests.networks\n\nbuild = tests.networks.Plain\n")
    script = [sys.executable, "-c", "import sys; sys.path.remove(''); from nasplat.cli import main; main()"]
    root = str(Path(nasplat.__file__).parents[1])
    command = [*script, "score", "mine:build", "tests.networks:wide", "--data", "bare.npz", "--workers", "2", "--json"]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert {best["architecture"] for best in json.loads(done.stdout)["best"]} == {"mine:build", "tests.networks:wide"}


# The cheap setting ----------------------------------------------------------------------------------------------


def test_the_cheap_setting_is_what_the_space_says(tmp_path: Path) -> None:
    cells = ["resnet", "#7"]
    study = api.score(
        "nasbench201", "digits", preset="cheap", proxy="params", architectures=cells, store=tmp_path / "s.db"
    )
    assert study.config.space_options == NasBench201.cheap == {"cells": 1}
    assert study.config.score_batch_size == scoring.CHEAP_BATCH_SIZE == 32
    assert study.space.key == NasBench201(cells=1).key


def test_what_is_given_goes_before_the_cheap_setting() -> None:
    given = {"space_options": {"cells": 2, "channels": 4}, "score_batch_size": 64}
    assert scoring.preset_settings("cheap", "nasbench201", given) == given
    other = {"space_options": {"channels": 4}}
    assert scoring.preset_settings("cheap", "nasbench201", other) == {
        "space_options": {"cells": 1, "channels": 4},
        "score_batch_size": 32,
    }


def test_a_whole_space_is_a_budget_so_that_it_is_known_how_much_is_left(tmp_path: Path) -> None:
    toy = "nasplat.testing.toy:ToySpace"
    study = api.score(toy, "tests.plugins:blobs", proxy="params", samples=None, store=tmp_path / "s.db")
    assert len(study.trials) == study.config.budget.trials == study.space.size == 50
    halved = api.score(
        toy, "tests.plugins:blobs", proxy="params", samples=None, constraints=["params <= 60"], store=tmp_path / "s.db"
    )
    assert 0 < len(halved.trials) < 50
