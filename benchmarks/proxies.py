"""What each zero-cost proxy costs: CPU time of one thread, the same networks for all, in turns.

    python benchmarks/proxies.py --task image-folder:CIFAR10
    python benchmarks/proxies.py --task image-folder:CIFAR10 --space conv-kernels --architectures 10

A score's cost is that of the score alone: the network is built before, and the batch is there. Beside the milliseconds
stands the multiple of one forward pass without gradients over the same batch, measured in the same turns. What the
scores are worth, ``nasplat audit`` says.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np
import torch
from torch import nn

from nasplat import registry
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Part, Task
from nasplat.training.trainer import Normalization

FORWARD = "one forward pass"


def forward(network: nn.Module, batch: Batch) -> float:
    """The unit of the last column."""
    with torch.no_grad():
        return float(network(batch.inputs).sum())


def contenders() -> dict[str, Callable[[nn.Module, Batch], float]]:
    """Every registered score that is no combination of others, by name."""
    found = {entry.name: registry.load("proxy", entry.name)[0] for entry in entry_points(group="nasplat.proxies")}
    scores = {name: proxy.compute for name, proxy in sorted(found.items()) if isinstance(proxy, ZeroCostProxy)}
    return {FORWARD: forward, **scores}


def first_batch(task: Task, size: int) -> Batch:
    """The first examples of the training part, normalized."""
    train = task.data(Part.TRAIN)
    data = train.take(torch.arange(size))
    inputs = Normalization.of(train.inputs).apply(data.inputs).contiguous(memory_format=torch.channels_last)
    return Batch(inputs, data.targets, lambda outputs, targets: task.loss(outputs, targets, 0.0))


def costs(space: SearchSpace, task: Task, count: int, batch: Batch) -> dict[str, list[float]]:
    """CPU seconds of every score of every sampled architecture; the first architecture only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in contenders()}
    rng = np.random.default_rng(0)
    for number in range(count + 1):
        architecture = space.sample(rng)
        for name, compute in contenders().items():
            with torch_seed(0):
                network = space.build(architecture, task).to(memory_format=torch.channels_last).train()
            start = time.process_time()
            compute(network, batch)
            if number > 0:
                spent[name].append(time.process_time() - start)
    return spent


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description="CPU time of every zero-cost proxy")
    parser.add_argument("--task", required=True, help="where the images come from, such as image-folder:PATH")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--architectures", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space: SearchSpace = registry.create("search_space", options.space)
    task: Task = registry.create("task", options.task)
    spent = costs(space, task, options.architectures, first_batch(task, options.batch_size))
    unit = statistics.fmean(spent[FORWARD])
    print(f"{options.space}, {options.architectures} architectures, batch of {options.batch_size}, one thread")
    print(f"{'':20}{'CPU ms':>9}{'forward passes':>16}")
    for name, seconds in sorted(spent.items(), key=lambda item: statistics.fmean(item[1])):
        mean = statistics.fmean(seconds)
        print(f"{name:20}{1000 * mean:>9.1f}{mean / unit:>16.1f}")


if __name__ == "__main__":
    main()
