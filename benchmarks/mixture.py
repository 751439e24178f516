"""The mixture of convolutions against the authors' formulation, the definition, and the plain convolution.

    OMP_NUM_THREADS=1 python -m benchmarks.mixture            # everything, about 10 minutes
    OMP_NUM_THREADS=1 python -m benchmarks.mixture --quick    # without the authors' slowest rows, about 2 minutes

Four parts: whole supernet steps (forward, backward, both optimizers), the two sweeps of the paper's figure (drawn to
``docs/images/mixture-sweep.png``), single layers, and how far the planner's choices are from the best. One thread,
the process's CPU time, contenders in turns, medians; before anything is timed, all are compared with the definition.
A contender whose step takes longer than ``--cutoff`` seconds is measured by that one step (marked *).
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.mixture_contenders import Authors, Layer, Ours, Shape, plain
from nasplat.search_spaces.blocks.mixture import operations
from nasplat.search_spaces.blocks.mixture_planner import FORMULATIONS, candidates, plan
from nasplat.search_spaces.blocks.mixture_problem import Mixture, problem

FOUR, FIVE = (3, 5, 7, 9), (3, 7, 11, 15, 19)
WIDE = (1, 3, 7, 15)
SWEEP_KERNELS, SWEEP_DILATIONS = (3, 5, 7, 9, 11, 13, 15), (1, 3, 7, 15, 31, 63, 127)
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "mixture-sweep.png"

LAYERS = [
    (64, (16, 16), (128,), FOUR),
    (64, (64, 64), (128,), FOUR),
    (64, (16, 16), (1000,), FOUR),
    (64, (64, 64), (1000,), FOUR),
    (256, (64, 64), (46,), FIVE),
    (64, (64, 64), (2048,), FOUR),
    (64, (16, 16), (32, 32), FOUR),
    (64, (32, 32), (16, 16), FOUR),
    (64, (64, 64), (8, 8), FOUR),
    (10, (16, 16), (85, 85), FOUR),
]
"""Batch, channels, size, kernels; each dense and depthwise, dilations 1, 3, 7, 15."""
SUPERNETS = [
    Shape("Satellite: ResNet1D(64), B 256, L 46", (1, 46), 256, 64, 24, FIVE, WIDE),
    Shape("ECG: ResNet1D(4), B 64, L 1000", (1, 1000), 64, 4, 4, FIVE, WIDE),
    Shape("DeepSEA: ResNet1D(64), B 16, L 1000", (4, 1000), 16, 64, 36, FIVE, WIDE),
    Shape("CIFAR: WRN-16-1, B 32, 32×32", (3, 32, 32), 32, 1, 100, FOUR, WIDE),
    Shape("NinaPro: WRN-16-1, B 64, 16×52", (1, 16, 52), 64, 1, 18, (3, 5, 7), (1, 3, 7)),
]


@dataclass
class Timer:
    """Contenders in turns.

    Attributes:
        rounds: Steps of each after one that is not counted.
        cutoff: Seconds of a step from which that one step is all.
        summary: Of the steps' seconds.
    """

    rounds: int
    cutoff: float
    summary: Callable[[Sequence[float]], float] = median

    def run(self, steps: Mapping[str, Callable[[], object]]) -> dict[str, tuple[float, bool]]:
        """CPU seconds of a step of each, and whether several were made."""
        seen: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(self.rounds + 1):
            for name, step in steps.items():
                if turn and seen[name][0] > self.cutoff:
                    continue
                begin = time.process_time()
                step()
                seen[name].append(time.process_time() - begin)
        return {name: (self.summary(own[1:] or own), len(own) > 1) for name, own in seen.items()}


def compare(layer: Layer, size: tuple[int, ...]) -> None:
    """Raises where the authors' formulation or ours is not the definition."""
    ours, authors = Ours(layer, "results").double(), Authors(layer).double()
    authors.copy_from(ours)
    x = torch.randn(2, layer.channels[0], *size, dtype=torch.double)
    coefficients = torch.softmax(torch.randn(len(authors.pairs), dtype=torch.double), 0)
    truth = ours.conv(x, coefficients)
    ours.conv.formulation = "auto"
    for name, made in (("authors", authors.mixed(x, coefficients)), ("ours", ours.conv(x, coefficients))):
        error = float(((made - truth).norm() / truth.norm()).detach())
        if error > 1e-10:
            raise RuntimeError(f"{name} differs from the definition by {error:.1e} on {layer} at {size}")


def layer_steps(layer: Layer, batch: int, size: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """Forward and backward, with gradients of input, weights and coefficients."""
    x = torch.randn(batch, layer.channels[0], *size, requires_grad=True)
    modules = {
        "authors": Authors(layer),
        "results": Ours(layer, "results"),
        "merged": Ours(layer, "merged"),
        "ours": Ours(layer, "auto"),
        "plain": plain(layer, 3),
    }

    def step(module: nn.Module) -> None:
        y: Tensor = module(x)
        torch.autograd.grad(y, [x, *module.parameters()], torch.ones_like(y))

    modules["ours"](x)  # the planner's own steps
    return {name: lambda own=module: step(own) for name, module in modules.items()}


def network_steps(shape: Shape, contenders: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Whole search steps: cross-entropy, backward, one optimizer each for weights and coefficients."""
    x = torch.randn(shape.batch, *shape.input_shape)
    y = torch.randint(shape.classes, (shape.batch,))

    def stepper(network: nn.Module) -> Callable[[], object]:
        named = dict(network.named_parameters())
        groups = [[p for n, p in named.items() if n.endswith("alpha") == mine] for mine in (False, True)]
        optimizers = [
            torch.optim.SGD(own, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
            for own, lr in zip(groups, (0.01, 0.005), strict=True)
            if own
        ]

        def step() -> None:
            network.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()

        return step

    steps = {}
    for name in contenders:
        network = shape.network("auto" if name == "ours" else name)
        if name == "ours":
            network(x).sum().backward()  # the planner's own steps
        steps[name] = stepper(network)
    return steps


def cell(seconds: tuple[float, bool]) -> str:
    """Milliseconds."""
    return f"{1e3 * seconds[0]:,.1f}{'' if seconds[1] else '*'}"


def row(label: str, took: Mapping[str, tuple[float, bool]]) -> str:
    """Times, and ours as a multiple."""
    ours = took["ours"][0]
    ratios = [f"{took[name][0] / ours:.1f}×" for name in ("authors", "results") if name in took]
    return (
        f"| {label} | {' | '.join(map(cell, took.values()))} | {' | '.join(ratios)} | {ours / took['plain'][0]:.2f} |"
    )


def layers(timer: Timer, quick: bool) -> None:
    """The table of single layers."""
    print("\n| layer (B, C, size), operations | authors | results | merged | ours | plain 3 | authors/ours", end=" ")
    print("| results/ours | ours/plain | chosen |\n|" + "---|" * 10)
    for depthwise in (False, True):
        for batch, channels, size, kernels in LAYERS:
            layer = Layer(channels, channels[0] if depthwise else 1, len(size), kernels, WIDE)
            if quick and not depthwise and len(size) == 2 and prod(channels) * prod(size) >= 1 << 18:
                continue
            took = timer.run(layer_steps(layer, batch, size))
            mixture = Mixture(
                operations(kernels, WIDE, len(size)), *channels, (1,) * len(size), layer.groups, causal=False
            )
            x = torch.empty(batch, channels[0], *size, requires_grad=True)
            label = f"{'depthwise' if depthwise else 'dense'} {batch}, {channels[0]}, {'×'.join(map(str, size))}"
            print(
                row(f"{label}, {len(mixture.operations)}", took) + f" {plan(problem(mixture, size), x)} |", flush=True
            )


def supernets(timer: Timer, quick: bool) -> None:
    """The table of whole steps."""
    print("\n| supernet | plain | authors | results | merged | ours | authors/ours | results/ours | ours/plain |")
    print("|" + "---|" * 9)
    for shape in SUPERNETS:
        names = ["plain", "authors", "results", "merged", "ours"]
        took = timer.run(network_steps(shape, names))
        print(row(f"{shape.name}, {shape.operations} operations", took), flush=True)


def regrets(timer: Timer, quick: bool) -> None:
    """How much slower the planner's choice is than the best candidate, measured anew."""
    print("\n| layer | chosen | best of a second measurement | regret |\n|---|---|---|---|")
    timer = Timer(timer.rounds + 3, 0.1, min)  # differences of a few percent: what disturbs only adds
    worst = 0.0
    for depthwise in (False, True):
        for batch, channels, size, kernels in LAYERS:
            groups = channels[0] if depthwise else 1
            own = problem(
                Mixture(operations(kernels, WIDE, len(size)), *channels, (1,) * len(size), groups, causal=False), size
            )
            x = torch.randn(batch, channels[0], *size, requires_grad=True)
            chosen = plan(own, x)
            weight = torch.randn(sum(o.taps for o in own.mixture.operations), channels[1], channels[0] // groups)
            inputs = (x, weight.requires_grad_(), torch.randn(len(own.mixture.operations), requires_grad=True))

            def step(name: str, inputs: tuple[Tensor, Tensor, Tensor] = inputs, own: object = own) -> None:
                y = FORMULATIONS[name].apply(*inputs, own)
                torch.autograd.grad(y, inputs, torch.ones_like(y))

            names = candidates(own, torch.device("cpu"))
            took = timer.run({n: (lambda n=n, step=step: step(n)) for n in names})
            best = min(took, key=lambda n: took[n][0])
            regret = took[chosen][0] / took[best][0] - 1
            worst = max(worst, regret)
            kind = "depthwise" if depthwise else "dense"
            print(f"| {kind} {batch}, {channels[0]}, {'×'.join(map(str, size))} | {chosen} | {best} | {regret:.1%} |")
    print(f"\nlargest regret {worst:.1%}", flush=True)


def sweeps(timer: Timer, quick: bool) -> None:
    """Operations 1 … 49 at length 1000, and lengths 32 … 2048 with 25 operations: ResNet1D(16), batch 32."""
    counts = (1, 3, 5, 7) if quick else (1, 2, 3, 4, 5, 6, 7)
    lengths = [2**p for p in ((5, 7, 9, 11) if quick else range(5, 12))]
    names = ["plain", "authors", "results", "ours"]
    panels: list[tuple[str, list[int], list[dict[str, tuple[float, bool]]]]] = []
    for title, points in (
        ("operations, length 1000", [(n * n, 1000, n) for n in counts]),
        ("length, 25 operations", [(length, length, 5) for length in lengths]),
    ):
        print(f"\n| {title} | plain | authors | results | ours | authors/ours | results/ours | ours/plain |")
        print("|" + "---|" * 8)
        took = []
        for label, length, count in points:
            shape = Shape("", (1, length), 32, 16, 10, SWEEP_KERNELS[:count], SWEEP_DILATIONS[:count])
            took.append(timer.run(network_steps(shape, names)))
            print(row(str(label), took[-1]), flush=True)
        panels.append((title, [p[0] for p in points], took))
    draw(panels)


def draw(panels: Sequence[tuple[str, list[int], list[dict[str, tuple[float, bool]]]]]) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {
        "authors": "DASH, authors' formulation",
        "results": "mixed results",
        "ours": "nasplat",
        "plain": "backbone",
    }
    styles = {"authors": ("C1", "o-"), "results": ("C3", "s-"), "ours": ("C0", "D-"), "plain": ("0.4", "--")}
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (title, at, took) in zip(axes, panels, strict=True):
        for name, label in labels.items():
            color, style = styles[name]
            axis.plot(at, [1e3 * t[name][0] for t in took], style, color=color, label=label, markersize=4)
        name, setting = title.split(", ")
        axis.set(xlabel=name, title=setting, yscale="log")
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[1].set_xscale("log", base=2)
    axes[0].set_ylabel("search step, CPU ms, one thread")
    axes[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=150)
    print(f"\ndrawn: {PICTURE}")


def main() -> None:
    """The chosen parts."""
    parts = {"supernets": supernets, "sweep": sweeps, "layers": layers, "regret": regrets}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rows and points")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--cutoff", type=float, default=3.0, help="seconds of a step that is not repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for size in ((20,), (7, 9)):
        for groups in (1, 4):
            for stride in (1, 2):
                compare(Layer((4, 4), groups, len(size), FOUR, (1, 3, 7), stride), size)
    timer = Timer(3 if options.quick else 5, options.cutoff)
    for name in options.parts:
        parts[name](timer, options.quick)


if __name__ == "__main__":
    main()
