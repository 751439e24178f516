"""Seeded blocks: torch's own numbers, and nothing outside of them changes."""

import pytest
import torch

from nasplat import seeding
from nasplat.seeding import proposal_rng, torch_seed


@pytest.fixture(params=["as this machine is", "as with an accelerator"])
def _machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, the second of which goes through torch.manual_seed."""
    if request.param == "as with an accelerator":
        monkeypatch.setattr(seeding, "_has_accelerator", lambda: True)


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("seed", [0, 1, 2**40, -3])
def test_the_numbers_are_those_of_manual_seed(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.rand(5), torch.randn(7), torch.randperm(9)
    with torch_seed(seed):
        drawn = torch.rand(5), torch.randn(7), torch.randperm(9)
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


@pytest.mark.usefixtures("_machine")
def test_outside_everything_is_as_it_was() -> None:
    with torch_seed(5):
        expected = torch.rand(4)
    with torch_seed(5):
        first = torch.rand(2)
        with pytest.raises(RuntimeError, match="must match"), torch_seed(6):
            torch.rand(3) + torch.rand(4)
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_the_numbers_of_a_proposal_depend_on_study_and_number_alone() -> None:
    drawn = {(seed, number): proposal_rng(seed, number).random() for seed in (0, 1) for number in (0, 1, 2)}
    assert len(set(drawn.values())) == 6
    assert proposal_rng(1, 2).random() == drawn[1, 2]
