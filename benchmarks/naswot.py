"""NASWOT on NAS-Bench-201: speed beside the authors' procedure, and rank correlation with trained accuracy.

    python benchmarks/naswot.py --task image-folder:CIFAR10 --table nasbench201.csv.gz

The authors' procedure (Mellor et al. 2021) is written out here step by step: a network with one output, a
forward and a backward pass that mark the modules a gradient reaches, a second forward pass in which each
marked module adds two floating point products to a kernel in numpy. Beside it stand nasplat's two ways: pure
PyTorch, and compiled passes where there is a C++ compiler. All build the same weights from the same seed and see
the same batch; they take turns on each cell, on one thread, and CPU time is counted, building included.

The floor is what no exact program goes below on this machine: the multiplications of the convolutions that a score
depends on, at the best rate that torch's own convolution reaches here while everything stays in the cache, and
every map whose normalization needs the whole batch written once and read once, at the rate of a copy.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.counting import count
from nasplat.evaluators.zero_cost import ZeroCostEvaluator
from nasplat.fidelity import Fidelity
from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.search_spaces.nasbench201 import EDGES, CellModule, NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies import fused
from nasplat.strategies.proxies.naswot import agreement_kernel, log_determinant, naswot
from nasplat.strategies.proxies.scratch import borrowed
from nasplat.strategies.proxies.tracing import Convolution, Node, Source, Sum, Zero, rectifier_inputs
from nasplat.task import Task
from nasplat.trial import Proposal

Score: TypeAlias = Callable[[Architecture], float]
TRUTHS = ("cifar10_test_200ep", "cifar100_test_200ep", "imagenet16_120_test_200ep")


class PublishedZero(nn.Module):
    """The published ``none``: a product with zero, which a gradient passes."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return x.mul(0.0)


class PublishedCell(nn.Module):
    """A cell in the published form: all six edges are computed, the absent ones as zeros.

    Args:
        cell: Whose operations, with their weights, are taken over.
    """

    def __init__(self, cell: CellModule) -> None:
        super().__init__()
        names = [f"edge_{source}_{target}" for source, target in EDGES]
        self.edges = nn.ModuleList(cell.edges[name] if name in cell.edges else PublishedZero() for name in names)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the last node's incoming edges."""
        nodes, edges = [x], iter(self.edges)
        for target in range(1, 4):
            terms = [next(edges)(nodes[source]) for source in range(target)]
            nodes.append(sum(terms[1:], terms[0]))
        return nodes[-1]


def authors_score(space: NasBench201, architecture: Architecture, inputs: Tensor, seed: int) -> float:
    """The score by the authors' procedure; ``inputs`` are ``(B, C, H, W)``, contiguous."""
    task = Task("one output", input_shape=tuple(inputs.shape[1:]), outputs=1)
    with torch_seed(seed):
        network = space.build(architecture, task)
    layers = [PublishedCell(layer) if isinstance(layer, CellModule) else layer for layer in network.children()]
    network = nn.Sequential(*layers).train()
    kernel = np.zeros((len(inputs), len(inputs)))
    reached: set[nn.Module] = set()

    def mark(module: nn.Module, _grad_input: object, _grad_output: object) -> None:
        reached.add(module)

    def add(module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        if module not in reached:
            return
        x = (arguments[0].view(len(arguments[0]), -1) > 0).float()
        both_on = x @ x.t()
        both_off = (1.0 - x) @ (1.0 - x.t())
        kernel[...] = kernel + both_on.numpy() + both_off.numpy()

    for module in network.modules():
        if "ReLU" in type(module).__name__:
            module.register_forward_hook(add)
            module.register_backward_hook(mark)
    again = inputs.clone()
    inputs = inputs.clone().requires_grad_(True)
    outputs = network(inputs)
    outputs.backward(torch.ones_like(outputs))
    network(again)
    return float(np.linalg.slogdet(kernel)[1])


@dataclass
class Timed:
    """What one way gave and what it cost.

    Attributes:
        scores: One a cell.
        seconds: CPU seconds, one a cell.
    """

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def call(self, score: Score, cell: Architecture) -> None:
        """Score one more cell."""
        start = time.process_time()
        value = score(cell)
        self.seconds.append(time.process_time() - start)
        self.scores.append(value)


def take_turns(cells: Sequence[Architecture], ways: Mapping[str, Score], timed: int) -> dict[str, Timed]:
    """Score the first ``timed`` cells all ways and the others the last way, printing those cell by cell."""
    for score in ways.values():
        score(cells[0])  # the first call pays for loading kernels, and for compiling
    results = {name: Timed() for name in ways}
    print(
        "\nscore, and milliseconds of CPU time\n" + f"{'cell':98}" + "".join(f" {name:>12} {'ms':>6}" for name in ways)
    )
    for position, cell in enumerate(cells):
        line = f"{cell!s:98}"
        for name in ways if position < timed else list(ways)[-1:]:
            results[name].call(ways[name], cell)
            line += f" {results[name].scores[-1]:12.5f} {1e3 * results[name].seconds[-1]:6.0f}"
        if position < timed:
            print(line)
    return results


def print_comparison(results: Mapping[str, Timed], floors: Sequence["Floor"]) -> None:
    """Print mean CPU times on the cells that all scored, beside the floor, and how far the scores differ."""
    first = results["authors"]
    timed = len(first.scores)
    mean = float(np.mean(first.seconds))
    print(f"\n{timed} cells:  ms a cell   times as fast   quartiles cell by cell   max |score - authors'|   same -inf")
    for name, result in results.items():
        seconds = np.array(result.seconds[:timed])
        quartiles = " ".join(f"{q:5.1f}" for q in np.quantile(np.array(first.seconds) / seconds, (0.25, 0.5, 0.75)))
        pairs = np.array([result.scores[:timed], first.scores])
        finite = np.isfinite(pairs).all(axis=0)
        alike = bool((np.isfinite(pairs[0]) == np.isfinite(pairs[1])).all())
        worst = float(np.abs(np.diff(pairs[:, finite], axis=0)).max(initial=0.0))
        print(
            f"{name:12} {1e3 * float(seconds.mean()):8.1f} {mean / float(seconds.mean()):15.2f} {quartiles:>24}"
            f" {worst:24.1e} {f'{int((~finite).sum())}, {alike}':>11}"
        )
    compute, traffic = (float(np.mean([getattr(floor, part) for floor in floors])) for part in ("compute", "traffic"))
    for name, seconds_ in (("compute", compute), ("traffic", traffic), ("both", compute + traffic)):
        print(f"floor, {name:8} {1e3 * seconds_:5.1f} {mean / seconds_:15.2f}")


@dataclass(frozen=True)
class Floor:
    """What a score cannot do without, in seconds on this machine.

    Attributes:
        compute: For multiplying.
        traffic: For writing and reading maps.
    """

    compute: float
    traffic: float


@dataclass(frozen=True)
class Rates:
    """What this machine reaches on one thread.

    Attributes:
        operations: Floating point operations a second, in convolutions within the cache.
        bytes_: Read or written a second, in a copy.
    """

    operations: float
    bytes_: float

    @classmethod
    def measured(cls) -> "Rates":
        """The best of several tries."""
        x = torch.randn(16, 64, 8, 8).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
        source = np.ones(1 << 25, dtype=np.float32)
        target = np.zeros_like(source)
        with torch.no_grad():
            convolved = min(_seconds(lambda: torch.conv2d(x, weight, padding=1)) for _ in range(300))
        copied = min(_seconds(lambda: np.copyto(target, source)) for _ in range(10))
        return cls(2 * x.numel() * 64 * 9 / convolved, 2 * source.nbytes / copied)


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def floor_of(network: nn.Module, inputs: Tensor, rates: Rates) -> Floor:
    """The floor of one network's score."""
    rectifiers = [m for m in network.modules() if "ReLU" in type(m).__name__]
    waiting = list(rectifier_inputs(network, inputs, rectifiers))
    needed: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            operation = node.operation
            if isinstance(operation, Sum):
                waiting += [value.node for value in operation.terms]
            elif not isinstance(operation, Source | Zero):
                waiting.append(operation.of.node)
    products = maps = 0
    for node in needed:
        if isinstance(node.operation, Convolution):
            products += len(inputs) * node.places * node.operation.weight[0].numel()
            maps += len(inputs) * node.places
    return Floor(2 * products / rates.operations, 2 * 4 * maps / rates.bytes_)


def scored_batch(space: NasBench201, task: Task, batch_size: int, seed: int) -> Tensor:
    """The inputs ``(B, C, H, W)`` that an evaluator with these settings scores on, in the default layout."""
    seen: list[Tensor] = []

    def look(_network: nn.Module, batch: Batch) -> float:
        seen.append(batch.inputs)
        return 0.0

    evaluator = ZeroCostEvaluator(space, task, [ZeroCostProxy("look", look)], batch_size=batch_size)
    evaluator.measure(Proposal(space.at(0), Fidelity(0), seed))
    return seen[0].contiguous()


def correlate(predictors: dict[str, NDArray[np.float64]], truths: pd.DataFrame) -> None:
    """Print Kendall's τ with its bootstrapped standard error, and Spearman's ρ.

    Args:
        predictors: Numbers ``(N,)`` by name.
        truths: Columns of ``N`` accuracies.
    """
    print(f"\n{'':8}" + "".join(f"{truth:>28}" for truth in truths) + "   (Kendall τ ± standard error, Spearman ρ)")
    samples = np.random.default_rng(0).integers(len(truths), size=(200, len(truths)))
    for name, values in predictors.items():
        ranks = stats.rankdata(values)  # minus infinity is the worst rank
        line = f"{name:8}"
        for truth in truths:
            accuracy = truths[truth].to_numpy()
            tau = stats.kendalltau(ranks, accuracy).statistic
            error = np.std([stats.kendalltau(ranks[i], accuracy[i]).statistic for i in samples], ddof=1)
            rho = stats.spearmanr(ranks, accuracy).statistic
            line += f"{f'{tau:.3f} ± {error:.3f}, {rho:.3f}':>28}"
        print(line)


def main() -> None:
    """Run both parts."""
    options = parse_options()
    torch.set_num_threads(1)
    # The authors' hooks are of a kind that torch has since deprecated.
    warnings.filterwarnings("ignore", message=".*non-full backward hook.*")
    space = NasBench201(channels=options.channels, cells=options.stage_cells)
    task: Task = registry.create("task", options.task)
    truths = pd.read_csv(options.table).set_index("arch")[list(TRUTHS)]
    order = np.random.default_rng(options.seed).permutation(space.size)
    cells = [space.at(int(index)) for index in order[: options.cells]]
    inputs = scored_batch(space, task, options.batch_size, options.seed)
    print(f"{space.key}, {task.name}, batch {len(inputs)}, seed {options.seed}")
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread")

    def ours(proxy: ZeroCostProxy) -> Score:
        evaluator = ZeroCostEvaluator(space, task, [proxy], batch_size=options.batch_size)
        return lambda cell: evaluator.measure(Proposal(cell, Fidelity(0), options.seed))["naswot"]

    ways: dict[str, Score] = {
        "authors": lambda cell: authors_score(space, cell, inputs, options.seed),
        "pure": ours(ZeroCostProxy("naswot", pure_score, preserves=True)),
    }
    if fused.library() is not None:
        ways["compiled"] = ours(naswot)
    results = take_turns(cells, ways, min(options.timed_cells, len(cells)))
    rates = Rates.measured()
    print(f"\nthis machine: {rates.operations / 1e9:.0f} GFLOP/s, {rates.bytes_ / 1e9:.1f} GB/s")
    timed = cells[: options.timed_cells]
    print_comparison(results, [floor_of(space.build(cell, task).train(), inputs, rates) for cell in timed])
    counts = [count(space, cell, task) for cell in cells]
    last = list(ways)[-1]
    predictors = {
        "naswot": np.array(results[last].scores),
        "params": np.array([c.params for c in counts], dtype=np.float64),
        "flops": np.array([c.flops for c in counts], dtype=np.float64),
    }
    if len(timed) == len(cells):
        predictors["authors"] = np.array(results["authors"].scores)
    print(f"\n{len(cells)} cells, {last}: {1e3 * float(np.mean(results[last].seconds)):.0f} ms of CPU time a cell")
    correlate(predictors, truths.loc[[cell.text for cell in cells]])


def pure_score(network: nn.Module, batch: Batch) -> float:
    """``naswot`` without compiled passes."""
    with borrowed(network):
        return log_determinant(agreement_kernel(network, batch.inputs, compiled=False))


def parse_options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description="NASWOT: speed and rank correlation on NAS-Bench-201")
    parser.add_argument("--task", required=True, help="where the images come from, such as image-folder:PATH")
    parser.add_argument("--table", required=True, help="CSV with the columns arch and " + ", ".join(TRUTHS))
    parser.add_argument("--cells", type=int, default=300, help="random cells for the correlations")
    parser.add_argument("--timed-cells", type=int, default=12, help="how many of them are scored all ways, 1 or more")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=16, help="width of the first stage")
    parser.add_argument("--stage-cells", type=int, default=5, help="cells a stage")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the batch and the weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
