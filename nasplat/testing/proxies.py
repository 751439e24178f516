"""The contract of a zero-cost proxy as tests."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nasplat.objective import Goal
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.seeding import torch_seed

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


class ProxySuite:
    """Tests of any zero-cost proxy on a small CNN, a small mixer and a small transformer.

    ::

        class TestMyProxy(ProxySuite):
            @pytest.fixture
            def proxy(self) -> ZeroCostProxy:
                return my_proxy

    A proxy that only makes sense for other networks overrides the fixtures ``network`` and ``batch`` too.
    """

    @pytest.fixture
    def proxy(self) -> ZeroCostProxy:
        """The subject."""
        raise NotImplementedError("override the fixture 'proxy' with your own")

    @pytest.fixture(params=["cnn", "mixer", "transformer"])
    def network(self, request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
        """A function that gives the same untrained network in training mode, new each time."""
        networks: dict[str, Callable[[], nn.Module]] = {
            "cnn": SmallCNN,
            "mixer": SmallMixer,
            "transformer": SmallTransformer,
        }
        return networks[request.param]

    @pytest.fixture
    def batch(self) -> Batch:
        """Normalized images ``(16, 3, 8, 8)`` of 4 classes."""
        generator = torch.Generator().manual_seed(1)
        return Batch(torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 4)

    def test_a_score_is_a_number(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch) -> None:
        """Finite, or infinite on the side that means worthless; never NaN."""
        score = self.score(proxy, network, batch)
        assert isinstance(score, float)
        assert math.isfinite(score) or score == (-math.inf if proxy.maximize else math.inf)

    def test_the_same_network_scores_the_same(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch
    ) -> None:
        """Whatever was scored before it."""
        first = self.score(proxy, network, batch)
        self.score(proxy, network, replace(batch, inputs=batch.inputs.flip(0) * 2.0))
        assert self.score(proxy, network, batch) == first

    def test_random_numbers_come_from_the_batch(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch
    ) -> None:
        """Neither taken from torch's own generators nor left in them."""
        first = self.score(proxy, network, batch)
        scored = network().train()
        with torch_seed(99):
            before = torch.get_rng_state()
            assert proxy.compute(scored, batch) == first
            assert torch.equal(torch.get_rng_state(), before)

    def test_images_may_lie_channels_last(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch
    ) -> None:
        """As the evaluator gives them; the score is the same but for rounding."""
        if batch.inputs.ndim != 4:
            pytest.skip("the batch holds no images")
        other = replace(batch, inputs=batch.inputs.contiguous(memory_format=torch.channels_last))
        assert self.score(proxy, network, other) == pytest.approx(self.score(proxy, network, batch), rel=1e-3)

    def test_the_batch_is_left_as_it_was(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch
    ) -> None:
        """It scores the next network too."""
        inputs, targets = batch.inputs.clone(), batch.targets.clone()
        self.score(proxy, network, batch)
        assert torch.equal(batch.inputs, inputs)
        assert torch.equal(batch.targets, targets)
        assert batch.inputs.grad is None
        assert not batch.inputs.requires_grad

    def test_no_hook_stays_behind(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch) -> None:
        """On any module of the network, or on all modules of the process."""
        scored = network()
        with torch_seed(0):
            proxy.compute(scored, batch)
        for name, module in scored.named_modules():
            assert not any(getattr(module, hooks) for hooks in _HOOKS), f"{name} still has a hook"
        assert not any(getattr(nn.modules.module, f"_global{hooks}") for hooks in _HOOKS[:4])

    def test_what_is_said_to_be_preserved_is(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch
    ) -> None:
        """Weights, buffers, gradients, what may have gradients, and modes; so another score of it is the same."""
        if not proxy.preserves:
            pytest.skip("each proxy after it is given a new network")
        scored, fresh = network().train(), network().train()
        next(scored.parameters()).requires_grad_(False)
        next(fresh.parameters()).requires_grad_(False)
        with torch_seed(0):
            first = proxy.compute(scored, batch)
        before, after = fresh.state_dict(), scored.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        for is_now, was in zip(scored.parameters(), fresh.parameters(), strict=True):
            assert is_now.grad is None
            assert is_now.requires_grad == was.requires_grad
        assert [m.training for m in scored.modules()] == [m.training for m in fresh.modules()]
        with torch_seed(0):
            assert proxy.compute(scored, batch) == first

    def test_settings_of_torch_stay(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch) -> None:
        """Gradients on, the default type, deterministic kernels or not."""
        before = _settings()
        self.score(proxy, network, batch)
        assert _settings() == before

    def test_the_name_can_be_a_goal(self, proxy: ZeroCostProxy) -> None:
        """``--objective NAME`` means the metric of that name."""
        assert Goal.parse(f"max {proxy.name}").metric == proxy.name
        assert proxy.version >= 1

    def score(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Batch) -> float:
        """The score of a new network, as the evaluator asks for it."""
        with torch_seed(0):
            return proxy.compute(network().train(), batch)


class SmallCNN(nn.Module):
    """Convolutions, batch normalization, ReLU, a skip, a head: ``(B, 3, H, W)`` to ``(B, 4)``, always the same."""

    def __init__(self) -> None:
        super().__init__()
        with torch_seed(7):
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        """One pass."""
        x = self.stem(x)
        out: Tensor = self.head(x + self.body(x))
        return out


class SmallMixer(nn.Module):
    """Patches mixed over places and over channels, GELU, 1e-4 LayerScale, dropout, a head of zeros; as ``SmallCNN``."""

    def __init__(self) -> None:
        super().__init__()
        with torch_seed(8):
            self.patches = nn.Conv2d(3, 12, 2, 2)
            self.blocks = nn.Sequential(_MixerBlock(12), _MixerBlock(12))
            self.norm = nn.LayerNorm(12)
            self.head = nn.Linear(12, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """One pass."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return out


class _MixerBlock(nn.Module):
    """``(B, 16, C)`` stays ``(B, 16, C)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_places, self.norm_channels = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.places = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Dropout(0.5), nn.Linear(24, 16))
        self.channels = nn.Sequential(nn.Linear(channels, 24), nn.GELU(), nn.Linear(24, channels))
        self.scale = nn.Parameter(torch.full((channels,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.places(self.norm_places(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.scale * self.channels(self.norm_channels(x))
        return out


class SmallTransformer(nn.Module):
    """Patches, a class token, two of torch's own encoder layers; as ``SmallCNN``."""

    def __init__(self) -> None:
        super().__init__()
        with torch_seed(9):
            self.patches = nn.Conv2d(3, 12, 2, 2)
            self.token = nn.Parameter(torch.randn(1, 1, 12))
            layer = nn.TransformerEncoderLayer(12, 2, 24, 0.1, "gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """One pass."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        out: Tensor = self.head(self.encoder(tokens)[:, 0])
        return out


def _settings() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
    )
