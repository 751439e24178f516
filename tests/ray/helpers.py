"""What the tests have run on workers."""

from nasplat.measurement import Measurement
from nasplat.testing import calls


def give_or_die(value: float) -> Measurement:
    """The value, but 0 kills."""
    return calls.give(value) if value else calls.die()
