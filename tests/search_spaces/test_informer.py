"""Informer: published sizes, what each part of the series is used for, and which tasks it takes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasplat.counting import count
from nasplat.errors import InvalidInputError
from nasplat.search_spaces.blocks.resampling import DistillingConvolution
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.informer.network import InformerConfig, InformerNetwork, Series
from nasplat.search_spaces.informer.space import Informer, config_of, series_of
from nasplat.seeding import torch_seed
from nasplat.task import Task

SPACE = Informer()
SMALL = {"dim": 32, "heads": 2, "ratio": 2, "dropout": 0.0}


def forecast(variables: int = 7, lookback: int = 96, horizon: int = 24, calendar: int = 4) -> Task:
    steps = lookback + horizon if calendar else lookback
    shape = (variables, horizon)
    return Task(
        "series",
        input_shape=(variables + calendar, steps),
        output_shape=shape,
        target_shape=shape,
        real=True,
        calendar=calendar,
    )


def built(task: Task, **changes: object) -> InformerNetwork:
    values = {**SPACE.references["etth1-24"], **SMALL, **changes}
    with torch_seed(0):
        network = SPACE.build(SPACE.architecture(values), task).eval()  # type: ignore[arg-type]
    assert isinstance(network, InformerNetwork)
    return network


NORMALIZED = {calendar: built(forecast(3, 60, 12, calendar), instance_norm="yes") for calendar in (0, 4)}


def inputs(task: Task, batch: int = 2) -> Tensor:
    """As the task gives them: of the future only the calendar is known."""
    x = torch.randn(batch, *task.input_shape, generator=torch.Generator().manual_seed(0))
    if task.calendar:
        x[:, : -task.calendar, -task.output_shape[1] :] = 0
    return x


@pytest.mark.parametrize(
    ("data", "horizons", "variables", "params", "undistilled"),
    [
        ("etth1", (24, 48, 168, 336, 720), 7, 11_330_055, 10_542_087),
        ("etth1-s", (24, 48, 168, 336, 720), 1, 11_308_545, 10_520_577),
        ("etth2", (24, 48), 7, 11_330_055, 10_542_087),
        ("etth2", (168, 336, 720), 7, 19_474_439, 17_898_503),
        ("etth2-s", (24, 48, 168), 1, 11_308_545, 10_520_577),
        ("ettm1", (24, 48, 96, 288, 672), 7, 11_330_055, 10_542_087),
        ("ettm1-s", (24, 48, 96, 288, 672), 1, 11_308_545, 10_520_577),
        ("stack", (), 7, 29_721_607, None),
    ],
)
def test_published_sizes(
    data: str, horizons: tuple[int, ...], variables: int, params: int, undistilled: int | None
) -> None:
    """The same for all horizons, as nothing but the two embeddings and the head depends on the series."""
    for horizon in horizons or (24,):
        architecture = SPACE.parse(f"{data}-{horizon}" if horizons else data)
        task = forecast(variables, horizon=horizon)
        assert count(SPACE, architecture, task).params == params
        if undistilled is not None and horizon == (horizons or (24,))[0]:
            plain = {n: "no" if n.startswith("distil") else v for n, v in architecture.values}
            assert count(SPACE, SPACE.architecture(plain), task).params == undistilled


@pytest.mark.parametrize("features", [4, 5])
def test_sizes_of_calendar_embeddings(features: int) -> None:
    """Encoder and decoder have one each: a linear layer, 24 + 7 + 32 + 13 (+ 4) vectors, or nothing learned."""
    task, values = forecast(calendar=features), SPACE.references["etth1-24"]
    counted = {
        embed: count(SPACE, SPACE.architecture({**values, "embed": embed}), task).params
        for embed in ("timeF", "fixed", "learned")
    }
    plain = 11_330_055 - 2 * (4 * 512 + 512)
    rows = 76 if features == 4 else 80
    assert counted == {"timeF": plain + 2 * (features + 1) * 512, "fixed": plain, "learned": plain + 2 * rows * 512}
    if features == 4:
        assert (counted["fixed"], counted["learned"]) == (11_324_935, 11_402_759)


def test_the_usual_embedding_is_not_said() -> None:
    """Strings and fingerprints are those from before there was a choice."""
    reference = SPACE.parse("etth1-24")
    assert "embed" not in reference.text
    assert reference.fingerprint == "bb5727098c9cb2263e20de61b6f845c3"
    assert SPACE.parse("stack").fingerprint == "8a352fe6e4de79db81cb93d0e1bba708"
    assert SPACE.parse(reference.text) == reference
    learned = SPACE.parse(f"{reference.text},embed=learned")
    assert learned.fingerprint != reference.fingerprint
    assert SPACE.parse(learned.text) == learned
    assert Informer(embeddings=["timeF"]).parse(reference.text) == reference


def test_normalized_windows_are_another_architecture() -> None:
    """No reference is of that kind; where it is not said, everything is as before there was a choice."""
    reference = SPACE.parse("etth1-24")
    assert reference["instance_norm"] == "no"
    assert "instance_norm" not in reference.text
    normalized = SPACE.parse(f"{reference.text},instance_norm=yes")
    assert normalized.fingerprint != reference.fingerprint
    assert SPACE.parse(normalized.text) == normalized
    assert Informer(instance_norm=["no"]).parse(reference.text) == reference
    assert not Informer(instance_norm=["yes"]).references
    for variables in (1, 7):
        task = forecast(variables)
        assert count(SPACE, normalized, task).params == count(SPACE, reference, task).params + 2 * variables
    with pytest.raises(InvalidInputError, match="instance_norm of informer must be one or more of no, yes, got"):
        Informer(instance_norm=["maybe"])


@settings(max_examples=20)
@given(st.floats(-20, 20), st.floats(0.5, 50), st.sampled_from([0, 4]))
def test_a_normalized_forecast_moves_with_its_window(level: float, scale: float, calendar: int) -> None:
    """Each variable for itself, as long as its weight and bias are the first ones; without, it does not."""
    task = forecast(3, 60, 12, calendar)
    factors, levels = torch.tensor([[1.0], [scale], [scale]]), torch.tensor([[level], [0.0], [level]])
    x = inputs(task)
    moved = x.clone()
    moved[:, :3, :60] = levels + factors * x[:, :3, :60]
    with torch.no_grad():
        network = NORMALIZED[calendar]
        expected = levels + factors * network(x)
        torch.testing.assert_close(network(moved), expected, rtol=1e-3, atol=1e-3 * (1 + abs(level) + scale))


def test_a_forecast_without_normalization_does_not_move() -> None:
    task = forecast(3, 60, 12)
    network, x = built(task), inputs(task)
    moved = x.clone()
    moved[:, :3, :60] += 20.0
    assert (network(moved) - network(x)).mean() < 10


def test_windows_are_those_that_the_encoder_sees() -> None:
    """Earlier steps change neither level nor scale; the decoder's are normalized too."""
    task = forecast(3, 60, 12)
    network, x = built(task, lookback=24, start=48, instance_norm="yes"), inputs(task)
    for step, seen in ((11, False), (12, True), (59, True)):
        other = x.clone()
        other[:, :3, step] += 3.0
        assert bool((network(other) != network(x)).any()) == seen


def test_forecasts_of_some_variables_have_their_level() -> None:
    task = Task("last", input_shape=(3, 60), output_shape=(1, 12), target_shape=(1, 12), real=True)
    network, x = built(task, instance_norm="yes"), inputs(task)
    moved = x.clone()
    moved[:, -1] += 50.0
    torch.testing.assert_close(network(moved), network(x) + 50.0, rtol=1e-4, atol=1e-3)


def test_variables_without_a_past_are_refused_at_the_start() -> None:
    task = Task("more", input_shape=(2, 60), output_shape=(3, 12), target_shape=(3, 12), real=True)
    message = r"task 'more' forecasts 3 variables from 2: leave it out with the space's option instance_norm="
    with pytest.raises(InvalidInputError, match=message):
        SPACE.check(task)
    with pytest.raises(InvalidInputError, match=message):
        built(task, instance_norm="yes")
    Informer(instance_norm=["no"]).check(task)
    assert built(task)(torch.zeros(1, 2, 60)).shape == (1, 3, 12)


def test_weights_of_attention_to_the_encoder_are_dropped_out() -> None:
    """As in the published code: there where it is full, not where it is sparse."""
    network = built(forecast(3, 60, 12), dropout=0.3, attention2="full")
    dropped = [module.dropout for module in network.modules() if isinstance(module, Attention)]
    assert dropped == [0.3, 0.3]


def test_calendars_that_cannot_be_looked_up_are_refused_at_the_start() -> None:
    task = forecast(calendar=2)
    message = r"the calendar of task 'series' has 2 features: leave fixed out with the space's option embeddings="
    with pytest.raises(InvalidInputError, match=message):
        SPACE.check(task)
    Informer(embeddings=["timeF"]).check(task)
    SPACE.check(forecast(calendar=0))
    with pytest.raises(InvalidInputError, match="informer looks up embed=learned by hour, weekday"):
        built(task, embed="learned")
    with pytest.raises(InvalidInputError, match="embeddings of informer must be one or more of timeF, fixed, learned"):
        Informer(embeddings=["month"])


def test_references_are_those_of_the_scripts() -> None:
    found = {name: config_of(SPACE.parse(name).chosen) for name in SPACE.references}
    assert (found["etth1-24"].lookback, found["etth1-24"].start, found["etth1-24"].factor) == (48, 48, 3)
    assert (found["etth1-720"].lookback, found["etth1-720"].start, found["etth1-720"].factor) == (336, 336, 5)
    assert (found["etth2-720"].lookback, found["etth2-720"].decoder_layers) == (720, 2)
    assert (found["ettm1-24"].lookback, found["ettm1-24"].start) == (672, 96)
    assert (found["etth1-s-24"].lookback, found["etth1-s-24"].start) == (720, 168)
    assert len(found) == 31


@pytest.mark.parametrize("calendar", [0, 4])
@pytest.mark.parametrize("lookback", [33, 96])
def test_series_become_forecasts(calendar: int, lookback: int) -> None:
    task = forecast(3, lookback, 20, calendar)
    network = built(task)
    assert (network.lookback, network.start) == (min(48, lookback), min(48, lookback))
    assert network(inputs(task)).shape == (2, 3, 20)


def test_the_future_is_its_calendar() -> None:
    task = forecast(3, 60, 12)
    network, x = built(task), inputs(task)
    leaked = x.clone()
    leaked[:, :3, 60:] = 5.0  # whatever stands there is not read
    assert torch.equal(network(leaked), network(x))
    other = x.clone()
    other[:, 3:, 60:] += 1.0
    assert (network(other) - network(x)).abs().max() > 1e-4


def test_only_the_last_steps_are_seen() -> None:
    task = forecast(3, 60, 12)
    network, x = built(task, lookback=24, start=48), inputs(task)
    for step, seen in ((11, False), (12, True), (59, True)):  # the decoder starts 48 steps back
        other = x.clone()
        other[:, :, step] += 3.0
        assert bool((network(other) != network(x)).any()) == seen


def test_distilling_halves_what_the_decoder_attends_to() -> None:
    config = InformerConfig(
        dim=16, heads=2, hidden=32, encoder=("prob", "full", "prob"), distilled=(True, True), lookback=97, start=24
    )
    for stacks, length in ((1, 25), (2, 25 + 24), (3, 25 + 24 + 24)):  # 97 → 49 → 25, 48 → 24, 24
        with torch_seed(0):
            network = InformerNetwork(replace(config, stacks=stacks), Series(2, 0, 97, 2, 6)).eval()
        tokens = torch.zeros(1, 97, 16)
        seen = [encoder(tokens[:, -(97 >> number) :]).shape[1] for number, encoder in enumerate(network.encoders)]
        assert sum(seen) == length
        with torch.no_grad():
            assert network(torch.zeros(1, 2, 97)).shape == (1, 2, 6)


def test_only_chosen_gaps_are_distilled() -> None:
    task = forecast(3, 60, 12)
    values = {"encoder_layers": 3, "attention2": "full", "attention3": "prob", "distil1": "no", "distil2": "yes"}
    network = built(task, **values)
    gaps = [type(gap) for gap in network.get_submodule("encoders.0.distilling").children()]
    assert gaps == [nn.Identity, DistillingConvolution]


def test_a_factor_without_sparse_attention_is_no_choice() -> None:
    full = {"attention1": "full", "attention2": "full", "decoder_attention": "full"}
    one, other = (
        SPACE.architecture({**SPACE.references["etth1-24"], **full, "factor": factor}).fingerprint for factor in (3, 5)
    )
    assert one == other
    sparse = (SPACE.architecture({**SPACE.references["etth1-24"], "factor": factor}).fingerprint for factor in (3, 5))
    assert len(set(sparse)) == 2


def test_evaluation_is_repeatable_although_keys_are_drawn() -> None:
    task = forecast(3, 60, 12)
    network, x = built(task, factor=1), inputs(task)
    assert torch.equal(network(x), network(x))


def test_only_forecasts_are_taken() -> None:
    assert series_of(forecast(7, 96, 24)) == Series(7, 4, 96, 7, 24)
    assert series_of(forecast(7, 96, 24, calendar=0)) == Series(7, 0, 96, 7, 24)
    with pytest.raises(InvalidInputError, match=r"informer takes series .* outputs \(3,\) of classes"):
        SPACE.check(Task("crops", input_shape=(1, 46), outputs=3))
    with pytest.raises(InvalidInputError, match=r"informer takes series .* inputs \(3, 8, 8\)"):
        SPACE.build(SPACE.parse("etth1-24"), Task("images", input_shape=(3, 8, 8), outputs=2))


def test_sizes_can_be_limited() -> None:
    space = Informer(max_dim=64)
    assert space.choices[0].options == (32, 64)
    assert not space.references
    with pytest.raises(InvalidInputError, match="max_dim of informer must be 32 or more, got 31"):
        Informer(max_dim=31)
