"""Zero-cost proxies: scores of untrained networks."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from nasplat.errors import NonFiniteError
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.provenance import provenance
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Part, Task
from nasplat.training.trainer import Normalization
from nasplat.trial import Proposal


@final
class ZeroCostEvaluator(Evaluator):
    """Scores an untrained network on one batch of the training part.

    The batch and the weights are drawn from the proposal's seed, so all architectures of a seed see the same batch
    and start from the same random stream, as in the published NASWOT experiments.

    Args:
        space: Builds the networks.
        task: Gives the batch.
        proxies: What is computed; ``params`` and ``flops`` belong to them.
        batch_size: Examples in the batch.
        device: Where.
    """

    VERSION = 1

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        proxies: Sequence[ZeroCostProxy],
        *,
        batch_size: int = 128,
        device: str = "cpu",
    ) -> None:
        self._space = space
        self._task = task
        self._proxies = tuple(sorted(proxies, key=lambda p: not p.preserves))
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._batches: dict[int, Batch] = {}
        self._fingerprint: str | None = None

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """Data fingerprint, proxies with their versions, batch size; what sets the task apart from classification."""
        if self._fingerprint is None:
            self._fingerprint = self._task.fingerprint(Part.TRAIN)
        return {
            "evaluator": "zero-cost",
            "version": self.VERSION,
            "data": self._fingerprint,
            "proxies": {p.name: p.version for p in self._proxies},
            "batch_size": self._batch_size,
            **({"task": self._task.particulars} if self._task.particulars else {}),
        }

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """The proxies' names."""
        return {p.name: p.role for p in self._proxies}

    def measure(self, proposal: Proposal) -> Measurement:
        """Score each proxy on the same untrained network, built anew where a proxy has changed it."""
        batch = self._batch(proposal.seed)
        start = time.perf_counter()
        metrics = {}
        network: nn.Module | None = None
        for proxy in self._proxies:
            if network is None:
                with torch_seed(proposal.seed):
                    network = self._build(proposal, batch)
            # Whatever was computed before, a network that draws numbers of its own draws the same.
            with torch_seed(proposal.seed):
                score = proxy.compute(network, batch)
            network = network if proxy.preserves else None
            if math.isnan(score):
                raise NonFiniteError(f"proxy {proxy.name!r} gives NaN")
            metrics[proxy.name] = Metric(score, proxy.role)
        seconds = time.perf_counter() - start
        gpu_seconds = seconds if self._device.type == "cuda" else 0.0
        return Measurement(metrics, Cost(seconds, gpu_seconds), provenance(str(self._device)))

    def _build(self, proposal: Proposal, batch: Batch) -> nn.Module:
        network = self._space.build(proposal.architecture, self._task).train()
        layout = torch.channels_last if batch.inputs.ndim == 4 else torch.contiguous_format
        return network.to(self._device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def _batch(self, seed: int) -> Batch:
        if seed not in self._batches:
            train = self._task.data(Part.TRAIN)
            index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: self._batch_size]
            data = train.take(index)
            inputs = Normalization.of(train.inputs, scaled=self._task.scaled).apply(data.inputs).to(self._device)
            if inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            self._batches[seed] = Batch(inputs, data.targets.to(self._device), self._loss, seed)
        return self._batches[seed]

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._task.loss(outputs, targets, 0.0)
