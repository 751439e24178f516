"""The contract of a zero-cost proxy as tests."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nasplat.objective import Goal
from nasplat.proxy import ZeroCostProxy
from nasplat.seeding import torch_seed
from nasplat.task import Data

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


class ProxySuite:
    """Tests of any zero-cost proxy on a small CNN with batch normalization and a skip.

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

    @pytest.fixture
    def network(self) -> Callable[[], nn.Module]:
        """A function that gives the same untrained network in training mode, new each time."""
        return SmallCNN

    @pytest.fixture
    def batch(self) -> Data:
        """Normalized images ``(16, 3, 8, 8)`` of 4 classes."""
        generator = torch.Generator().manual_seed(1)
        return Data(torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 4)

    def test_a_score_is_a_number(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data) -> None:
        """Finite, or infinite on the side that means worthless; never NaN."""
        score = self.score(proxy, network, batch)
        assert isinstance(score, float)
        assert math.isfinite(score) or score == (-math.inf if proxy.maximize else math.inf)

    def test_the_same_network_scores_the_same(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data
    ) -> None:
        """Whatever was scored before it."""
        first = self.score(proxy, network, batch)
        self.score(proxy, network, Data(batch.inputs.flip(0) * 2.0, batch.targets))
        assert self.score(proxy, network, batch) == first

    def test_images_may_lie_channels_last(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data
    ) -> None:
        """As the evaluator gives them; the score is the same but for rounding."""
        if batch.inputs.ndim != 4:
            pytest.skip("the batch holds no images")
        other = Data(batch.inputs.contiguous(memory_format=torch.channels_last), batch.targets)
        assert self.score(proxy, network, other) == pytest.approx(self.score(proxy, network, batch), rel=1e-3)

    def test_the_batch_is_left_as_it_was(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data
    ) -> None:
        """It scores the next network too."""
        before = Data(batch.inputs.clone(), batch.targets.clone())
        self.score(proxy, network, batch)
        assert torch.equal(batch.inputs, before.inputs)
        assert torch.equal(batch.targets, before.targets)
        assert batch.inputs.grad is None
        assert not batch.inputs.requires_grad

    def test_no_hook_stays_behind(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data) -> None:
        """On any module of the network, or on all modules of the process."""
        scored = network()
        with torch_seed(0):
            proxy.compute(scored, batch)
        for name, module in scored.named_modules():
            assert not any(getattr(module, hooks) for hooks in _HOOKS), f"{name} still has a hook"
        assert not any(getattr(nn.modules.module, f"_global{hooks}") for hooks in _HOOKS[:4])

    def test_what_is_said_to_be_preserved_is(
        self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data
    ) -> None:
        """Weights and buffers, where the next proxy is given the same network."""
        if not proxy.preserves:
            pytest.skip("each proxy after it is given a new network")
        scored, fresh = network().train(), network().train()
        with torch_seed(0):
            proxy.compute(scored, batch)
        before, after = fresh.state_dict(), scored.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_settings_of_torch_stay(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data) -> None:
        """Gradients on, the default type, deterministic kernels or not."""
        before = _settings()
        self.score(proxy, network, batch)
        assert _settings() == before

    def test_the_name_can_be_a_goal(self, proxy: ZeroCostProxy) -> None:
        """``--objective NAME`` means the metric of that name."""
        assert Goal.parse(f"max {proxy.name}").metric == proxy.name
        assert proxy.version >= 1

    def score(self, proxy: ZeroCostProxy, network: Callable[[], nn.Module], batch: Data) -> float:
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One pass."""
        x = self.stem(x)
        out: torch.Tensor = self.head(x + self.body(x))
        return out


def _settings() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
    )
