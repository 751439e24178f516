"""What a building block needs of a task and what it promises, and why one does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from nasplat.task import Task


@final
@dataclass(frozen=True, slots=True)
class Traits:
    """What every block declares as ``traits``.

    Attributes:
        causal: It can hide the future: built with ``causal=True``, no output depends on a later input.
        static_length: Weights belong to positions, so that every input needs the length it was built for.
        padding_invariant: Given a mask, outputs at real positions do not depend on padded ones, nor on how many.
        stateful: It keeps something from one call to the next.
    """

    causal: bool = False
    static_length: bool = False
    padding_invariant: bool = True
    stateful: bool = False


def misfits(blocks: Mapping[str, Traits], task: Task, *, masked: bool = True) -> dict[str, str]:
    """Why some blocks must not be proposed for a task.

    Args:
        blocks: What would be proposed, by the name that a user knows.
        task: For which.
        masked: Whether padding is hidden from the blocks; without, every input counts as full length.

    Returns:
        A reason for each block that does not fit.
    """
    reasons: dict[str, str] = {}
    for name, traits in blocks.items():
        if task.causal and not traits.causal:
            reasons[name] = "sees later positions, and the task is causal"
        elif masked and task.padding is not None and traits.static_length:
            reasons[name] = "has weights for positions, and the inputs are of different lengths"
    return reasons
