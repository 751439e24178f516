"""Doors of a space to Optuna and Ray Tune: everything comes out that the space contains, and nothing else."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from nasplat import registry
from nasplat.choices import Choice
from nasplat.errors import InvalidArchitectureError
from nasplat.space import SearchSpace
from nasplat.testing import ToySpace
from tests.test_docs import BLOCK, ROOT
from tests.test_space import Declared, spaces

TOY = ToySpace()


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=registry.names("search_space"))
def registered(request: pytest.FixtureRequest) -> SearchSpace:
    space: Any = registry.create("search_space", request.param)
    return space  # type: ignore[no-any-return]


def _check_optuna(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = space.sample(rng)
    assert space.to_optuna(FixedTrial(wanted.chosen)) == wanted  # whatever the space contains can come out
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        trial = study.ask()
        try:
            architecture = space.to_optuna(trial)
        except optuna.TrialPruned:
            continue  # the choices of some spaces spell what is none of their architectures
        assert space.architecture(architecture.chosen) == architecture
        assert space.parse(architecture.text) == architecture
        assert trial.params == architecture.chosen
        assert space.from_config(trial.params) == architecture


def _check_tune(space: SearchSpace, seed: int) -> None:
    wanted = space.sample(np.random.default_rng(seed))
    domains = space.to_tune()
    assert list(domains) == [c.name for c in space.choices]
    assert all(domains[name].is_valid(value) for name, value in wanted.values)
    config = {name: domain.sample(random_state=seed) for name, domain in domains.items()}
    architecture = space.from_config(config)
    assert space.architecture(architecture.chosen) == architecture
    assert space.parse(architecture.text) == architecture
    assert architecture.chosen.items() <= config.items()
    through_json = json.loads(json.dumps({**config, **wanted.chosen, "the user's own": [1]}))
    assert space.from_config(through_json) == wanted


@settings(max_examples=40)
@given(spaces(), st.integers(0, 2**31))
def test_optuna_suggests_what_a_space_declares(space: Declared, seed: int) -> None:
    _check_optuna(space, seed)


@settings(max_examples=40)
@given(spaces(), st.integers(0, 2**31))
def test_tune_draws_what_a_space_declares(space: Declared, seed: int) -> None:
    _check_tune(space, seed)


@pytest.mark.parametrize("seed", range(5))
def test_every_registered_space_has_both_doors(registered: SearchSpace, seed: int) -> None:
    _check_optuna(registered, seed)
    _check_tune(registered, seed)


def test_everything_comes_out() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    suggested = {TOY.to_optuna(study.ask()) for _ in range(1_000)}
    assert len(suggested) == TOY.size


def test_the_options_of_an_ordered_choice_are_drawn_uniformly() -> None:
    space = Declared([Choice("kernel", (3, 5, 7), ordered=True), Choice("width", (8, 16, 64), ordered=True)])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.to_optuna(study.ask()) for _ in range(1_500)]
    for name, options in (("kernel", (3, 5, 7)), ("width", (8, 16, 64))):
        counts = [sum(a[name] == option for a in drawn) for option in options]
        assert all(abs(count - 500) < 4 * np.sqrt(1_500 * 2 / 9) for count in counts)


def test_whole_numbers_at_equal_distances_are_numbers_to_optuna() -> None:
    space = Declared(
        [
            Choice("kernel", (3, 5, 7), ordered=True),
            Choice("width", (8, 16, 64), ordered=True),
            Choice("down", (3, 2, 1), ordered=True),
            Choice("one", (4,), ordered=True),
            Choice("operation", (1, 2, 3)),
            Choice("rate", (0.1, 0.2, 0.3), ordered=True),
        ]
    )
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    space.to_optuna(trial)
    numbers = [n for n, d in trial.distributions.items() if isinstance(d, optuna.distributions.IntDistribution)]
    assert numbers == ["kernel"]


def test_tpe_finds_a_conditional_optimum() -> None:
    def objective(trial: optuna.Trial) -> float:
        architecture = TOY.to_optuna(trial)
        return float(architecture.chosen.get("width1", 0)) + (architecture["norm"] == "yes")

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=60)
    assert study.best_value == 9
    assert TOY.from_config(study.best_params)["depth"] == 2


def test_a_restricted_space_prunes_what_it_does_not_accept() -> None:
    space = TOY.restricted(lambda a: a["depth"] == 1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: float(space.to_optuna(trial)["width0"]), n_trials=60)
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    pruned = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    assert len(complete) + len(pruned) == 60
    assert complete
    assert pruned
    assert {t.params["depth"] for t in complete} == {1}
    assert {t.params["depth"] for t in pruned} == {0, 2}


def test_a_configuration_without_an_active_choice_is_refused() -> None:
    with pytest.raises(InvalidArchitectureError, match="lacks a value for 'width0'"):
        TOY.from_config({"depth": 1, "activation0": "relu", "norm": "no"})
    with pytest.raises(InvalidArchitectureError, match="takes one of 0, 1, 2, got 7"):
        TOY.from_config({"depth": 7, "norm": "no"})


def test_a_tune_user_gets_plain_domains() -> None:
    assert TOY.to_tune()["norm"].categories == ["no", "yes"]


def test_the_door_of_the_page_on_tuning_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = next(b for b in BLOCK.findall((ROOT / "docs" / "tuning.md").read_text()) if "# with_optuna.py" in b)
    (tmp_path / "with_optuna.py").write_text(block)
    runpy.run_path(str(tmp_path / "with_optuna.py"))
    off, architecture = capsys.readouterr().out.split()
    assert float(off) < 25_000
    assert registry.create("search_space", "conv-kernels").parse(architecture).text == architecture


def test_neither_library_is_imported_before_its_door_is_opened() -> None:
    code = "import nasplat, nasplat.testing, sys; sys.exit(bool({'optuna', 'ray'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
