"""What several backbones share."""

from torch import Tensor, nn

from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.blocks.mixture_definition import CausalConv1d


def conv1d(channels: tuple[int, int], kernel: int, *, dilation: int = 1, causal: bool) -> nn.Conv1d:
    """A convolution ``(B, C_in, n)`` to ``(B, C_out, n)``; an even kernel that looks to both sides loses a tap."""
    if causal:
        return CausalConv1d(*channels, kernel, dilation=dilation)
    kernel -= 1 - kernel % 2
    return nn.Conv1d(*channels, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation)


class PerPosition(nn.Module):
    """The same linear map at every position: ``(B, C_in, *n)`` to ``(B, C_out, *n)``."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Channels go last and come back."""
        out: Tensor = self.linear(x.movedim(1, -1))
        return out.movedim(-1, 1)


class DropChannel(nn.Module):
    """``(B, 1, *n)`` to ``(B, *n)``: real numbers at positions have no channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Without the channel."""
        return x.squeeze(1)


def is_dense(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> bool:
    """Whether an output is wanted at every position of the input: ``(K, *n)``, or ``(H, W)`` of an image.

    Raises:
        InvalidArchitectureError: If it is neither that nor a vector.
    """
    positions = input_shape[1:]
    if output_shape == (output_shape[0], *positions) or (output_shape == positions and len(positions) > 1):
        return True
    if len(output_shape) > 1:
        raise InvalidArchitectureError(
            f"expected outputs (K,), or (K, {', '.join(map(str, positions))}) at every position of the input, "
            f"got {output_shape}"
        )
    return False


def dense_head(channels: int, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    """A linear map at every position to the wanted shape."""
    if output_shape == input_shape[1:]:
        return nn.Sequential(PerPosition(channels, 1), DropChannel())
    return PerPosition(channels, output_shape[0])


def refuse_dense(name: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
    """For networks that give one vector for the whole input.

    Raises:
        InvalidArchitectureError: If more is wanted.
    """
    if is_dense(input_shape, output_shape):
        raise InvalidArchitectureError(f"backbone {name} gives one vector for an input, the task wants {output_shape}")
