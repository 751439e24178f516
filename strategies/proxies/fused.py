"""The agreement of rectifier inputs by compiled passes over a traced network; ``fused.cpp`` says what a pass is.

Only what the rectifiers' inputs depend on is computed: no branch that feeds nothing, no head. Buffers are kept for the
next network, because fresh memory costs more than most passes.
"""

import ctypes
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from nasplat import native
from nasplat.strategies.proxies.tracing import Convolution, Node, Norm, Pool, Source, Sum, Value, Zero

_SOURCE = Path(__file__).with_name("fused.cpp")
_LINE = 64
"""Bytes of a cache line: buffers begin at one, and a row of signs fills up its last one."""
_KEPT_BYTES = 1 << 29
"""Most memory that is kept for the next network."""

Floats: TypeAlias = NDArray[np.float32]


def library() -> ctypes.CDLL | None:
    """The compiled passes, or None where they cannot be had."""
    loaded = native.library(_SOURCE)
    if loaded is not None:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    return loaded


def agreement(passes: ctypes.CDLL, inputs: Counter[Node], batch: int) -> NDArray[np.int64]:
    """In how many places the positive parts of two examples' maps agree.

    Args:
        passes: ``library()``.
        inputs: Maps and how often each counts.
        batch: Number of examples.

    Returns:
        ``(B, B)``, symmetric.
    """
    zeros = [node for node in inputs if isinstance(node.operation, Zero)]
    with _kept_buffers() as buffers:
        run = _Run(passes, Counter({n: times for n, times in inputs.items() if n not in zeros}), batch, buffers)
        run.execute()
    total: NDArray[np.int64] = run.kernel + np.triu(run.kernel, 1).T + sum(inputs[n] * n.places for n in zeros)
    return total


# What to compute ------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Term:
    """A written map with what is still to be done to it.

    Attributes:
        written: The node whose values were written.
        norm: Of these values.
        rectified: Afterwards.
    """

    written: Node
    norm: Node | None
    rectified: bool


@final
@dataclass
class _Step:
    """A pass over a node.

    Attributes:
        convolutions: What is computed from the node.
        pools: The same.
        measured: Whether something normalizes the node itself.
        kept: Whether the sum of its terms is written, for others to read.
    """

    convolutions: list[Node] = field(default_factory=list)
    pools: list[Node] = field(default_factory=list)
    measured: bool = False
    kept: bool = False


@final
class _Plan:
    """Which passes give the codes, and who reads what.

    Args:
        codes: The maps whose codes are wanted.

    Attributes:
        terms: What the pass over a node reads, in the order of the passes.
        steps: What it writes.
        readers: How many passes read what was written for a node.
        normalized: Convolutions whose outputs are measured.
    """

    def __init__(self, codes: Counter[Node]) -> None:
        self.steps: defaultdict[Node, _Step] = defaultdict(_Step)
        self.normalized: set[Node] = set()
        self._visited: dict[Node, None] = {}  # everything after what it needs
        for node in codes:
            self._visit(node)
            self.steps[node]
        self.terms = {node: tuple(self._summands(node)) for node in self._visited if node in self.steps}
        self.readers = Counter(written for terms in self.terms.values() for written in {t.written for t in terms})
        for node in self.readers:
            if isinstance(node.operation, Norm | Sum):
                self.steps[node].kept = True

    def _visit(self, node: Node) -> None:
        if node in self._visited:
            return
        operation = node.operation
        if isinstance(operation, Sum):
            for term in operation.terms:
                self._visit(term.node)
                if term.rectified and isinstance(term.node.operation, Sum):
                    self.steps[term.node]
        elif not isinstance(operation, Source | Zero):
            source = operation.of.node
            self._visit(source)
            if isinstance(operation, Convolution):
                self.steps[source].convolutions.append(node)
            elif isinstance(operation, Pool):
                self.steps[source].pools.append(node)
            elif isinstance(source.operation, Convolution):
                self.normalized.add(source)
            else:
                self.steps[source].measured = True
        self._visited[node] = None

    def _summands(self, node: Node) -> Iterator[_Term]:
        if not isinstance(node.operation, Sum):
            yield _term(Value(node))
            return
        for value in node.operation.terms:
            if isinstance(value.node.operation, Sum) and value.node not in self.steps:
                yield from self._summands(value.node)
            else:
                yield _term(value)


def _term(value: Value) -> _Term:
    operation = value.node.operation
    if isinstance(operation, Norm):
        return _Term(operation.of.node, value.node, value.rectified)
    return _Term(value.node, None, value.rectified)


# How to compute it ----------------------------------------------------------------------------------------------


class _TermStruct(ctypes.Structure):
    _fields_: ClassVar = [
        ("raw", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("rectified", ctypes.c_int64),
    ]  # fmt: skip


class _ConvolutionStruct(ctypes.Structure):
    _fields_: ClassVar = [
        ("weights", ctypes.c_void_p), ("out", ctypes.c_void_p), ("moments", ctypes.c_void_p),
        ("outputs", ctypes.c_int64), ("kernel", ctypes.c_int64), ("stride", ctypes.c_int64),
        ("rectified", ctypes.c_int64),
    ]  # fmt: skip


class _PoolStruct(ctypes.Structure):
    _fields_: ClassVar = [
        ("out", ctypes.c_void_p), ("height", ctypes.c_int64), ("width", ctypes.c_int64), ("kernel", ctypes.c_int64),
        ("stride", ctypes.c_int64), ("padding", ctypes.c_int64), ("rectified", ctypes.c_int64),
    ]  # fmt: skip


class _PassStruct(ctypes.Structure):
    _fields_: ClassVar = [
        ("height", ctypes.c_int64), ("width", ctypes.c_int64), ("channels", ctypes.c_int64),
        ("margin", ctypes.c_int64), ("terms_count", ctypes.c_int64), ("convolutions_count", ctypes.c_int64),
        ("pools_count", ctypes.c_int64), ("terms", ctypes.POINTER(_TermStruct)),
        ("convolutions", ctypes.POINTER(_ConvolutionStruct)), ("pools", ctypes.POINTER(_PoolStruct)),
        ("signs", ctypes.c_void_p), ("signs_bytes", ctypes.c_int64), ("sum", ctypes.c_void_p),
        ("moments", ctypes.c_void_p),
    ]  # fmt: skip


_INT, _POINTER = ctypes.c_int64, ctypes.c_void_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "run": (None, [ctypes.POINTER(_PassStruct), _INT, _INT, _POINTER]),
    "pack": (None, [_POINTER, ctypes.POINTER(_INT), _INT, _INT, _INT, _POINTER]),
    "normalize": (
        None, [_POINTER, _INT, _INT, _INT, ctypes.c_double, _POINTER, _POINTER, _POINTER, _POINTER]
    ),
    "agree": (None, [_POINTER, _INT, _INT, _INT, _INT, _POINTER]),
    "signs_bytes": (_INT, [_INT, _INT, _INT]),
}  # fmt: skip


@final
class _Run:
    """The passes that some codes need.

    Args:
        passes: ``library()``.
        codes: The maps whose codes are compared, none of them ``Zero``.
        batch: Number of examples.
        buffers: Where maps are put.

    Attributes:
        kernel: ``(B, B)``; only what is above and on the diagonal is filled.
    """

    def __init__(self, passes: ctypes.CDLL, codes: Counter[Node], batch: int, buffers: "_Buffers") -> None:
        self.kernel = np.zeros((batch, batch), dtype=np.int64)
        self._passes = passes
        self._codes = codes
        self._batch = batch
        self._buffers = buffers
        self._plan = _Plan(codes)
        self._threads = max(1, min(torch.get_num_threads(), batch))
        self._helpers = ThreadPoolExecutor(self._threads)  # starts no thread before it is given work
        self._maps: dict[Node, Floats] = {}
        self._moments: dict[Node, NDArray[np.float64]] = {}
        self._affine: dict[Node, tuple[Floats, Floats]] = {}

    def execute(self) -> None:
        """Make all passes."""
        left = self._plan.readers.copy()
        with self._helpers:
            for node, terms in self._plan.terms.items():
                self._make(node, terms)
                for written in {term.written for term in terms}:
                    left[written] -= 1
                    if not left[written]:
                        self._forget(written)

    def _make(self, node: Node, terms: Sequence[_Term]) -> None:
        step = self._plan.steps[node]
        channels, height, width = node.shape
        weights = [self._packed(convolution) for convolution in step.convolutions]
        convolutions = [self._convolution(c, w) for c, w in zip(step.convolutions, weights, strict=True)]
        pools = [self._pool(pool) for pool in step.pools]
        margin = max((convolution.kernel // 2 for convolution in convolutions), default=0)
        signs_bytes = -(-self._passes.signs_bytes(channels, height, width) // _LINE) * _LINE
        signs = self._buffers.take(self._batch * signs_bytes // 4) if node in self._codes else None
        if signs is not None and signs_bytes * 8 != node.places:
            signs.fill(0.0)  # there are bits that no pass sets
        if step.kept:
            self._maps[node] = self._buffers.take(self._batch * node.places)
        described = _PassStruct(
            height, width, channels, margin, len(terms), len(convolutions), len(pools),
            (_TermStruct * len(terms))(*[self._described(term) for term in terms]),
            (_ConvolutionStruct * len(convolutions))(*convolutions), (_PoolStruct * len(pools))(*pools),
            _address(signs), signs_bytes, _address(self._maps[node] if step.kept else None),
            self._measured(node) if step.measured else None,
        )  # fmt: skip
        self._run(described, 2 * (height + 2 * margin) * (width + 2 * margin) * channels)
        if signs is not None:
            times, words = self._codes[node], signs_bytes // 8
            self._passes.agree(_address(signs), self._batch, words, node.places, times, _address(self.kernel))
            self._buffers.give(signs)
        for packed in weights:
            self._buffers.give(packed)

    def _run(self, described: _PassStruct, scratch_floats: int) -> None:
        """One pass, its images shared among as many threads as torch would take."""
        scratches = [self._buffers.take(scratch_floats) for _ in range(self._threads)]

        def run(part: int) -> None:
            begin, end = (self._batch * p // self._threads for p in (part, part + 1))
            self._passes.run(ctypes.byref(described), begin, end, _address(scratches[part]))

        others = [self._helpers.submit(run, part) for part in range(1, self._threads)]
        run(0)
        for other in others:
            other.result()
        for scratch in scratches:
            self._buffers.give(scratch)

    def _convolution(self, node: Node, packed: Floats) -> _ConvolutionStruct:
        operation = node.operation
        assert isinstance(operation, Convolution)  # the plan says so
        self._maps[node] = self._buffers.take(self._batch * node.places)
        return _ConvolutionStruct(
            _address(packed), _address(self._maps[node]),
            self._measured(node) if node in self._plan.normalized else None,
            node.shape[0], operation.weight.shape[2], operation.stride, operation.of.rectified,
        )  # fmt: skip

    def _packed(self, node: Node) -> Floats:
        operation = node.operation
        assert isinstance(operation, Convolution)  # the plan says so
        weight = operation.weight.detach()
        packed = self._buffers.take(weight.numel())
        strides = (ctypes.c_int64 * 4)(*weight.stride())
        self._passes.pack(weight.data_ptr(), strides, *weight.shape[:3], _address(packed))
        return packed

    def _pool(self, node: Node) -> _PoolStruct:
        operation = node.operation
        assert isinstance(operation, Pool)  # the plan says so
        self._maps[node] = self._buffers.take(self._batch * node.places)
        window = operation.kernel, operation.stride, operation.padding
        return _PoolStruct(_address(self._maps[node]), *node.shape[1:], *window, operation.of.rectified)

    def _described(self, term: _Term) -> _TermStruct:
        node, operation = term.written, term.written.operation
        if isinstance(operation, Source):
            # A view of the inputs where they are channels last.
            self._maps.setdefault(node, operation.tensor.permute(0, 2, 3, 1).contiguous().numpy())
        scale: Floats | None = None
        shift: Floats | None = None
        if term.norm is not None:
            scale, shift = self._normalized(term.norm)
        elif isinstance(operation, Convolution) and operation.bias is not None:
            biases = operation.bias.detach().numpy().copy()
            scale, shift = self._affine.setdefault(node, (np.ones_like(biases), biases))
        return _TermStruct(_address(self._maps[node]), _address(scale), _address(shift), term.rectified)

    def _measured(self, node: Node) -> int | None:
        self._moments[node] = np.empty((self._batch, 2, node.shape[0]))
        return _address(self._moments[node])

    def _normalized(self, node: Node) -> tuple[Floats, Floats]:
        """Scale and shift of a normalization; a bias before it changes nothing."""
        if node not in self._affine:
            operation = node.operation
            assert isinstance(operation, Norm)  # the plan says so
            channels, height, width = node.shape
            scale, shift = np.empty(channels, np.float32), np.empty(channels, np.float32)
            given = [None if p is None else p.detach().contiguous() for p in (operation.weight, operation.bias)]
            self._passes.normalize(
                _address(self._moments[operation.of.node]), self._batch, height * width, channels, operation.epsilon,
                *[None if p is None else p.data_ptr() for p in given], _address(scale), _address(shift),
            )  # fmt: skip
            self._affine[node] = scale, shift
        return self._affine[node]

    def _forget(self, node: Node) -> None:
        values = self._maps.pop(node)
        if not isinstance(node.operation, Source):
            self._buffers.give(values)


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


@final
class _Buffers:
    """Arrays that were used before, by size."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Floats]] = defaultdict(list)
        self._bytes = 0

    def take(self, size: int) -> Floats:
        """Some array ``(size,)``; what is in it is left from others."""
        if self._free[size]:
            array = self._free[size].pop()
            self._bytes -= array.nbytes
            return array
        memory = np.empty(size + _LINE // 4, dtype=np.float32)
        begin = -memory.ctypes.data % _LINE // 4
        return memory[begin : begin + size]

    def give(self, array: Floats) -> None:
        """Take an array back."""
        if self._bytes + array.nbytes <= _KEPT_BYTES:
            self._bytes += array.nbytes
            self._free[array.size].append(array)


_KEPT: list[_Buffers] = []
_LOCK = threading.Lock()


@contextmanager
def _kept_buffers() -> Iterator[_Buffers]:
    """Buffers for one run, of which there may be several at a time."""
    with _LOCK:
        buffers = _KEPT.pop() if _KEPT else _Buffers()
    yield buffers
    with _LOCK:
        if not _KEPT:
            _KEPT.append(buffers)
