"""Streams of torch's default generators: one sequence in pieces, and nothing outside of it changes."""

import pytest
import torch

from nasplat.seeding import torch_seed
from nasplat.training.random_stream import RandomStream

CPU = torch.device("cpu")


def test_pieces_of_a_stream_are_one_seeded_sequence() -> None:
    with torch_seed(3):
        whole = torch.rand(6)
    stream, pieces = RandomStream(3, CPU), []
    for _ in range(3):
        with stream:
            pieces.append(torch.rand(2))
        torch.rand(5)
    assert torch.equal(torch.cat(pieces), whole)


def test_outside_everything_is_as_it_was() -> None:
    with torch_seed(0):
        whole = torch.rand(4)
    with torch_seed(0):
        first, stream = torch.rand(2), RandomStream(1, CPU)
        with pytest.raises(RuntimeError, match="must match"), stream:
            torch.rand(3) + torch.rand(4)
        assert torch.equal(torch.cat([first, torch.rand(2)]), whole)


def test_a_stream_goes_on_where_another_was() -> None:
    one, other = RandomStream(1, CPU), RandomStream(2, CPU)
    with one:
        torch.rand(3)
    other.restore(one.state())
    with one:
        expected = torch.rand(3)
    with other:
        assert torch.equal(torch.rand(3), expected)


def test_states_of_other_generators_are_refused() -> None:
    stream = RandomStream(1, CPU)
    with pytest.raises(ValueError, match="expected the states of 1 generators, got 2"):
        stream.restore([*stream.state(), *stream.state()])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_stream_has_the_generator_of_its_gpu() -> None:
    cuda = torch.device("cuda")
    with torch_seed(3):
        whole = torch.rand(6, device=cuda)
    stream, pieces = RandomStream(3, cuda), []
    for _ in range(3):
        with stream:
            pieces.append(torch.rand(2, device=cuda))
        torch.rand(5, device=cuda)
    assert torch.equal(torch.cat(pieces), whole)
