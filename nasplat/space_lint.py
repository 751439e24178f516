"""What is wrong with a search space, or worth knowing, before anyone spends a GPU on it.

A finding is an *error* where the space breaks its contract or networks cannot be trained, a *warning* where searches
would waste their time, and a *note* otherwise. What is said of all architectures was looked at one by one where the
space is small, and otherwise on random ones, so that the absence of a finding proves nothing there.
"""

import enum
import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from nasplat.architecture import Architecture
from nasplat.boundary import catching
from nasplat.choices import Value
from nasplat.counting import Counts, count
from nasplat.errors import InvalidArchitectureError
from nasplat.first_step import FirstStep, first_batch, kept_bytes
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task

_WALKS = 40
"""Mutations for each option of the space, in the walk that looks for those that are never reached."""
_CONTEXTS = 3
"""Architectures in which two options must have been the same before that is said of them."""
_REMEMBERED = 50
"""Architectures of which it is looked at what a backward pass needs: that takes ten times as long as counting."""
_NAMED = 3
"""Examples that a message names."""


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """Something to mend or to know.

    Attributes:
        check: What was looked at.
        severity: How bad it is.
        message: What was found, and what to do.
    """

    check: str
    severity: Severity
    message: str


@final
@dataclass(frozen=True, slots=True)
class Effort:
    """How closely to look.

    Attributes:
        samples: Random architectures on which cheap properties are looked at.
        builds: Networks that are trained for a step, and most in which two options are compared.
        exact: Largest space of which all architectures are looked at.
        linked: Largest space of which all mutations are.
        seed: Of everything random.
    """

    samples: int = 300
    builds: int = 12
    exact: int = 20_000
    linked: int = 3_000
    seed: int = 0


@final
@dataclass(slots=True)
class Lint:
    """What was found.

    Attributes:
        figures: Numbers about the space by name, as plain data.
        findings: In the order of the checks.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether anything is an error."""
        return any(f.severity is Severity.ERROR for f in self.findings)


def lint(space: SearchSpace, task: Task, effort: Effort | None = None) -> Lint:
    """Look at a space; whatever it raises becomes a finding.

    Args:
        space: Which.
        task: What networks are built for, and trained for a step.
        effort: How closely to look.

    Raises:
        InvalidInputError: If the space takes no such task.
    """
    space.check(task)
    linter = _Linter(space, task, effort or Effort())
    for name, check in linter.checks.items():
        with catching(partial(linter.stopped, name)):
            check()
    return linter.result


_Pair: TypeAlias = tuple[str, frozenset[Value]]
"""Two options of a choice."""


@dataclass(slots=True)
class _Compared:
    """In how many architectures two options were compared, and whether they ever differed."""

    contexts: int = 0
    differ: bool = False

    def note(self, differ: bool) -> None:
        self.contexts += 1
        self.differ |= differ

    @property
    def same(self) -> bool:
        return not self.differ and self.contexts >= _CONTEXTS


@final
class _Linter:
    def __init__(self, space: SearchSpace, task: Task, effort: Effort) -> None:
        self.result = Lint()
        self.checks: Mapping[str, Callable[[], None]] = {
            "strings": self._strings,
            "duplicates": self._duplicates,
            "mutation": self._mutation,
            "links": self._links,
            "sizes": self._sizes,
            "options": self._options,
            "networks": self._networks,
        }
        self._space, self._task, self._effort = space, task, effort
        self._batch = first_batch(task, effort.seed)  # networks are built for a task whose data has been read
        self._small = space.size <= effort.exact
        self.result.figures |= {"space": space.key, "task": task.name, "size": space.size, "exact": self._small}

    def add(self, check: str, severity: Severity, message: str) -> None:
        """Note a finding."""
        self.result.findings.append(Finding(check, severity, message))

    def stopped(self, check: str, error: Exception) -> None:
        """Note that a check could not be ended: the space is broken, whatever the error is."""
        self.add(check, Severity.ERROR, f"the check ended with {type(error).__name__}: {error}")

    def _drawn(self, number: int, stream: int) -> Iterator[Architecture]:
        rng = np.random.default_rng((self._effort.seed, stream))
        return (self._space.sample(rng) for _ in range(number))

    def _all(self) -> Iterator[Architecture]:
        """Every architecture of a small space, else random ones."""
        if self._small:
            return filter(self._space.accepts, map(self._space.at, range(self._space.size)))
        return self._drawn(self._effort.samples, 0)

    # Architectures as values ---------------------------------------------------------------------------------

    def _strings(self) -> None:
        """``parse`` is the inverse of ``str``, and indices of architectures."""
        wrong: list[str] = []
        misplaced: list[str] = []
        for architecture in self._drawn(self._effort.samples, 1):
            try:
                parsed = self._space.parse(architecture.text)
                same = parsed == architecture and parsed.fingerprint == architecture.fingerprint
            except InvalidArchitectureError:
                same = False
            if not same:
                wrong.append(architecture.text)
            if self._space.at(self._space.index(architecture)) != architecture:
                misplaced.append(architecture.text)
        if wrong:
            self.add("strings", Severity.ERROR, f"parse does not give back {_some(wrong)}: mend format or parse_values")
        if misplaced:
            self.add("strings", Severity.ERROR, f"at(index(…)) does not give back {_some(misplaced)}")

    def _duplicates(self) -> None:
        """How many architectures are the same network as another one, and whether strings tell them apart."""
        seen: dict[Architecture, str] = {a: a.fingerprint for a in self._all()}
        share = 1 - len(set(seen.values())) / len(seen)
        self.result.figures["duplicates"] = share
        if self._small:
            self.result.figures["classes"] = len(set(seen.values()))
        texts = Counter(a.text for a in seen)
        if shared := [text for text, times in texts.items() if times > 1]:
            self.add("duplicates", Severity.ERROR, f"different architectures have the same string {_some(shared)}")
        of = "" if self._small else f" of {len(seen):,} random ones"
        if share:
            self.add("duplicates", Severity.NOTE, f"{share:.1%} of the architectures{of} repeat another one's network")

    # Mutation ------------------------------------------------------------------------------------------------

    def _mutation(self) -> None:
        """Children differ from their parents, and every option is reached."""
        space, rng = self._space, np.random.default_rng((self._effort.seed, 2))
        options = {(c.name, o) for c in space.choices for o in c.options}
        steps = _WALKS * len(options)
        parent = space.sample(rng)
        reached = set(parent.values)
        neutral, unchanged, invalid = 0, 0, []
        for _ in range(steps):
            child = space.mutate(parent, rng)
            unchanged += child == parent
            neutral += child.fingerprint == parent.fingerprint
            if space.architecture(child.chosen) != child:
                invalid.append(child.text)
            reached.update(child.values)
            parent = child
        self.result.figures["neutral_mutations"] = neutral / steps
        if unchanged:
            self.add("mutation", Severity.ERROR, f"{unchanged} of {steps:,} mutations changed nothing at all")
        if invalid:
            self.add("mutation", Severity.ERROR, f"mutations gave what is no architecture: {_some(invalid)}")
        if missing := sorted(f"{name}={option}" for name, option in options - reached):
            self.add("mutation", Severity.ERROR, f"{steps:,} mutations in a row never reached {_some(missing)}")
        if neutral - unchanged:
            severity = Severity.WARNING if neutral > steps / 2 else Severity.NOTE
            self.add("mutation", severity, f"{neutral / steps:.1%} of the mutations left the network as it was")

    def _links(self) -> None:
        """A small space hangs together: mutations lead from every architecture to every other one."""
        if self._space.size > self._effort.linked:
            return
        leader = {a: a for a in self._all()}

        def find(a: Architecture) -> Architecture:
            while leader[a] != a:
                leader[a] = a = leader[leader[a]]
            return a

        for architecture in leader:
            for neighbor in self._space.neighbors(architecture):
                leader[find(neighbor)] = find(architecture)
        parts = sum(find(a) == a for a in leader)
        self.result.figures["parts"] = parts
        if parts > 1:
            self.add("links", Severity.ERROR, f"no mutation leads between {parts} separate parts of the space")

    # Networks ------------------------------------------------------------------------------------------------

    def _sizes(self) -> None:
        """How many can be built, how far they spread, and whether equal ones are equally large."""
        counts: dict[Architecture, Counts] = {}
        kept: dict[Architecture, int] = {}
        invalid: list[str] = []
        drawn = list(dict.fromkeys(self._drawn(self._effort.samples, 3)))
        for architecture in drawn:
            try:
                counts[architecture] = count(self._space, architecture, self._task)
                if len(kept) < _REMEMBERED:
                    kept[architecture] = kept_bytes(self._space, architecture, self._task)
            except InvalidArchitectureError as error:
                invalid.append(f"{architecture} ({error})")
        self.result.figures["invalid"] = len(invalid) / len(drawn)
        if invalid:
            severity = Severity.WARNING if counts else Severity.ERROR
            share = f"{len(invalid) / len(drawn):.1%} of {len(drawn)}"
            message = f"{share} architectures cannot be built for task {self._task.name}: {_some(invalid)}"
            self.add("sizes", severity, message)
        if not counts:
            return
        self.result.figures |= {
            "params": _spread([c.params for c in counts.values()]),
            "flops": _spread([c.flops for c in counts.values()]),
            "memory_bytes": _spread(list(kept.values())),
        }
        for name in ("params", "flops"):
            if len({getattr(c, name) for c in counts.values()}) == 1 < len(counts):
                self.add("sizes", Severity.NOTE, f"all networks have the same {name}: counting cannot rank them")
        unlike = self._unlike_duplicates(counts)
        if unlike:
            message = f"architectures of one canonical form differ in params or FLOPs: {_some(unlike, 1)}"
            self.add("sizes", Severity.NOTE, f"{message}; a store keeps the counts of the first one that is measured")

    def _unlike_duplicates(self, counts: Mapping[Architecture, Counts]) -> list[str]:
        unlike = []
        for architecture in itertools.islice(counts, self._effort.builds):
            for neighbor in self._space.neighbors(architecture):
                if neighbor.fingerprint == architecture.fingerprint:
                    other = count(self._space, neighbor, self._task)
                    if other != counts[architecture]:
                        unlike.append(f"{architecture} and {neighbor}")
        return unlike

    def _options(self) -> None:
        """Options of a choice that never make a difference: to the canonical form, or to the network."""
        forms, networks = defaultdict[_Pair, _Compared](_Compared), defaultdict[_Pair, _Compared](_Compared)
        for architecture in self._drawn(self._effort.samples, 4):
            outputs: Tensor | None = None
            for pair, neighbor in self._changes(architecture):
                differ = neighbor.fingerprint != architecture.fingerprint
                forms[pair].note(differ)
                # A network is built only for pairs of which no difference has been seen.
                if differ and not networks[pair].differ and networks[pair].contexts < self._effort.builds:
                    outputs = self._outputs(architecture) if outputs is None else outputs
                    networks[pair].note(not _close(outputs, self._outputs(neighbor)))
        same_form, same_network = ([_spelled(p) for p, seen in d.items() if seen.same] for d in (forms, networks))
        if same_form:
            message = f"these options were one architecture wherever they were looked at: {_some(same_form, 10)}"
            self.add("options", Severity.WARNING, f"{message}; keep one of each")
        if same_network:
            message = f"for task {self._task.name} these options were one network wherever they were looked at"
            advice = "keep one of each, or let canonical say so"
            self.add("options", Severity.WARNING, f"{message}: {_some(same_network, 10)}; {advice}")

    def _changes(self, architecture: Architecture) -> Iterator[tuple[_Pair, Architecture]]:
        for neighbor in self._space.neighbors(architecture):
            for name, value in architecture.values:
                if neighbor.chosen.get(name, value) != value:
                    yield (name, frozenset((value, neighbor[name]))), neighbor

    def _outputs(self, architecture: Architecture) -> Tensor:
        """What a network with weights of a seed gives, so that equal networks give equal numbers; empty if none."""
        try:
            with torch_seed(self._effort.seed):
                network = self._space.build(architecture, self._task)
        except InvalidArchitectureError:
            return torch.empty(0)
        generator = torch.Generator().manual_seed(self._effort.seed)
        with torch.no_grad():
            # Whatever is zero or one at first might hide a difference.
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            with torch_seed(self._effort.seed):
                outputs: Tensor = network(self._batch[0])
        return outputs

    def _networks(self) -> None:
        """A step of training: shapes, finite numbers, gradients for every parameter."""
        idle, wrong = list[str](), list[str]()
        references = [self._space.parse(name) for name in self._space.references]
        built, blind = 0, 0
        for architecture in [*self._drawn(self._effort.builds, 5), *references]:
            try:
                with torch_seed(self._effort.seed):
                    network = self._space.build(architecture, self._task)
            except InvalidArchitectureError:
                continue  # counted among the sizes
            built += 1
            step = FirstStep(network, self._task, self._effort.seed)
            step.run(*self._batch)
            if step.trouble:
                wrong.append(f"{architecture} ({step.trouble})")
            elif step.idle:
                idle.append(architecture.text)
            blind += step.blind
        self.result.figures["trained"] = built
        if wrong:
            self.add("networks", Severity.ERROR, f"{len(wrong)} of {built} networks cannot be trained: {_some(wrong)}")
        if idle:
            message = f"in {len(idle)} of {built} networks some parameters get no gradient: {_some(idle)}"
            self.add("networks", Severity.WARNING, f"{message}; they are counted and never trained")
        if blind:
            message = f"{blind} of {built} networks give the same output whatever the input"
            self.add("networks", Severity.WARNING, message)


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether outputs are equal but for the order of sums."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _spread(values: list[int]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _spelled(pair: _Pair) -> str:
    name, values = pair
    return f"{name} = {' and '.join(sorted(map(str, values)))}"


def _some(names: list[str], most: int = _NAMED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more
