"""Images to a grid of features: convolutions whose stride is the patch."""

from collections.abc import Sequence
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.traits import Traits

_CONV_CHANNELS = 64


def filled_up(height: int, width: int, patch: int) -> nn.Module:
    """What puts zeros on the right and below images of a size, so that patches of a side cover them."""
    right, below = -width % patch, -height % patch
    return nn.ZeroPad2d((0, right, 0, below)) if right or below else nn.Identity()


@final
class PatchStem(nn.Module):
    """One convolution, its kernel as large as its stride: ``(B, C, H, W)`` to ``(B, d, ⌈H/p⌉, ⌈W/p⌉)``.

    Dosovitskiy et al. 2021, "An Image is Worth 16×16 Words" (ICLR), section 3.1.

    Args:
        image: ``(C, H, W)``.
        dim: Features d.
        patch: Side p of a patch.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, image: Sequence[int], dim: int, patch: int) -> None:
        super().__init__()
        channels, height, width = image
        self.pad = filled_up(height, width, patch)
        self.project = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """A feature vector a patch."""
        out: Tensor = self.project(self.pad(x))
        return out


@final
class ConvStem(nn.Module):
    """Three convolutions (7×7 of stride 2, 3×3, 3×3) before the patches: ``(B, C, H, W)`` to ``(B, d, ⌈H/p⌉, ⌈W/p⌉)``.

    The deep patch embedding of Zhao et al. 2021, "A Battle of Network Structures" (SPACH, arXiv 2108.13002), section
    4.5, after Xiao et al. 2021, "Early Convolutions Help Transformers See Better" (NeurIPS).

    Args:
        image: ``(C, H, W)``.
        dim: Features d.
        patch: Side p of a patch in the image, even.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, image: Sequence[int], dim: int, patch: int) -> None:
        super().__init__()
        channels, height, width = image
        self.pad = filled_up(height, width, patch)
        sizes = ((channels, 7, 2), (_CONV_CHANNELS, 3, 1), (_CONV_CHANNELS, 3, 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, _CONV_CHANNELS, kernel, stride, kernel // 2, bias=False) for c_in, kernel, stride in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(_CONV_CHANNELS) for _ in sizes)
        self.project = nn.Conv2d(_CONV_CHANNELS, dim, patch // 2, patch // 2)

    def forward(self, x: Tensor) -> Tensor:
        """A feature vector a patch."""
        x = self.pad(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            # Called as a function: naswot would otherwise read these alone, and not the GELUs of the blocks after them.
            x = functional.relu(norm(conv(x)))
        out: Tensor = self.project(x)
        return out
