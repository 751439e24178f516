"""NASWOT on NAS-Bench-201: speed beside the authors' procedure, and rank correlation with trained accuracy.

    python benchmarks/naswot.py --task image-folder:CIFAR10 --table nasbench201.csv.gz

The authors' procedure (Mellor et al. 2021) is written out here step by step: a network with one output, a
forward and a backward pass that mark the modules a gradient reaches, a second forward pass in which each
marked module adds two floating point products to a kernel in numpy. Both sides build the same weights from
the same seed and see the same batch; they take turns on each cell, on one thread, and CPU time is counted,
building included.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from nasplat.strategies.proxies.naswot import naswot
from nasplat.task import Task
from nasplat.trial import Proposal

Score: TypeAlias = Callable[[Architecture], float]
TRUTHS = ("cifar10_test_200ep", "cifar100_test_200ep", "imagenet16_120_test_200ep")


class Zero(nn.Module):
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
        self.edges = nn.ModuleList(cell.edges[name] if name in cell.edges else Zero() for name in names)

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
    """What one side gave and what it cost.

    Attributes:
        scores: One a cell.
        seconds: CPU seconds, one a cell.
    """

    scores: list[float]
    seconds: list[float]

    def call(self, score: Score, cell: Architecture) -> None:
        """Score one more cell."""
        start = time.process_time()
        value = score(cell)
        self.seconds.append(time.process_time() - start)
        self.scores.append(value)


def take_turns(cells: Sequence[Architecture], ours: Score, authors: Score, timed: int) -> tuple[Timed, Timed]:
    """Score all cells our way and the first ``timed`` ones the authors' way too, printing those cell by cell."""
    ours(cells[0]), authors(cells[0])  # the first call pays for loading kernels
    left, right = Timed([], []), Timed([], [])
    print(f"\n{'cell':98} {'nasplat':>12} {'authors':>12} {'ms':>7} {'ms':>7} {'ratio':>6}")
    for position, cell in enumerate(cells):
        left.call(ours, cell)
        if position < timed:
            right.call(authors, cell)
            a, b = left.seconds[-1], right.seconds[-1]
            scores = f"{left.scores[-1]:12.5f} {right.scores[-1]:12.5f}"
            print(f"{cell!s:98} {scores} {1e3 * a:7.0f} {1e3 * b:7.0f} {b / a:6.1f}")
    return left, right


def print_comparison(left: Timed, right: Timed) -> None:
    """Print mean CPU times on the cells that both sides scored, their ratio, and how far the scores differ."""
    timed = len(right.scores)
    a, b = float(np.mean(left.seconds[:timed])), float(np.mean(right.seconds))
    pairs = list(zip(left.scores[:timed], right.scores, strict=True))
    finite = [abs(x - y) for x, y in pairs if np.isfinite(x) or np.isfinite(y)]
    print(f"{timed} cells, CPU time a cell: nasplat {1e3 * a:.0f} ms, authors {1e3 * b:.0f} ms, ratio {b / a:.2f}")
    print(f"scores: max |difference| {max(finite, default=0.0):.1e}; {timed - len(finite)} of both are -inf")


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
    evaluator = ZeroCostEvaluator(space, task, [naswot], batch_size=options.batch_size)
    truths = pd.read_csv(options.table).set_index("arch")[list(TRUTHS)]
    order = np.random.default_rng(options.seed).permutation(space.size)
    cells = [space.at(int(index)) for index in order[: options.cells]]
    inputs = scored_batch(space, task, options.batch_size, options.seed)
    print(f"{space.key}, {task.name}, batch {len(inputs)}, seed {options.seed}")
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread")

    def ours(cell: Architecture) -> float:
        return evaluator.measure(Proposal(cell, Fidelity(0), options.seed))["naswot"]

    def authors(cell: Architecture) -> float:
        return authors_score(space, cell, inputs, options.seed)

    left, right = take_turns(cells, ours, authors, options.timed_cells)
    print_comparison(left, right)
    counts = [count(space, cell, task) for cell in cells]
    predictors = {
        "naswot": np.array(left.scores),
        "params": np.array([c.params for c in counts], dtype=np.float64),
        "flops": np.array([c.flops for c in counts], dtype=np.float64),
    }
    if len(right.scores) == len(cells):
        predictors["authors"] = np.array(right.scores)
    print(f"\n{len(cells)} cells, {1e3 * float(np.mean(left.seconds)):.0f} ms of CPU time a cell")
    correlate(predictors, truths.loc[[cell.text for cell in cells]])


def parse_options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description="NASWOT: speed and rank correlation on NAS-Bench-201")
    parser.add_argument("--task", required=True, help="where the images come from, such as image-folder:PATH")
    parser.add_argument("--table", required=True, help="CSV with the columns arch and " + ", ".join(TRUTHS))
    parser.add_argument("--cells", type=int, default=300, help="random cells for the correlations")
    parser.add_argument("--timed-cells", type=int, default=12, help="how many of them both sides score, 1 or more")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=16, help="width of the first stage")
    parser.add_argument("--stage-cells", type=int, default=5, help="cells a stage")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the batch and the weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
