"""A network found by architecture search, as plain PyTorch."""

import sys

from safetensors.torch import load_file

from nasplat.export.parts.arrays import example
from nasplat.export.parts.base import FOLDER, TOLERANCE
from nasplat.export.parts.classes import report
from nasplat.export.parts.numbers import predict, read


def check() -> tuple[float, float]:
    """The largest difference of the outputs to those of the original network, and the largest allowed."""
    expected = load_file(FOLDER / "check.safetensors")["output"]
    allowed = TOLERANCE * max(1.0, expected.abs().max().item())
    return (predict(example()) - expected).abs().max().item(), allowed


def main() -> int:
    """Use the network on what stands on the command line, or check this folder where nothing does."""
    if len(sys.argv) == 1:
        difference, allowed = check()
        good = difference <= allowed
        verdict = "ok" if good else "FAILED"
        print(f"{verdict}: outputs differ by {difference:.3g}, at most {allowed:.3g} allowed")
        return 0 if good else 1
    for argument in sys.argv[1:]:
        try:
            for line in report(*read(argument)):
                print(line)
        except (OSError, ValueError) as error:
            print(f"{argument}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
