"""Augmentation of a whole batch at once, on the batch's device."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from nasplat.training.recipe import Recipe

DRAWS = 5
"""Random numbers an image: where the crop is (two), whether it is mirrored, where the hole is (two)."""


def augment(images: Tensor, recipe: Recipe, draws: Tensor) -> Tensor:
    """Mirror, crop at random and cut a hole into normalized images.

    Crops are padded with zeros, and the hole is zero: the mean, as the images are normalized. The hole is a square
    around a uniformly drawn centre, cut off at the border (DeVries & Taylor 2017, section 3.2).

    Args:
        images: ``(B, C, H, W)``.
        recipe: What is done, by its ``crop``, ``flip`` and ``cutout``.
        draws: ``(DRAWS, B)``, uniform in [0, 1): what happens to each image.

    Returns:
        Images of the same shape, in memory channels last.
    """
    batch, channels, height, width = images.shape
    border = max(recipe.crop, int(recipe.cutout > 0))
    rows = torch.arange(border, border + height, device=images.device).expand(batch, height)
    columns = torch.arange(border, border + width, device=images.device).expand(batch, width)
    if recipe.flip:
        columns = torch.where(draws[2, :, None] < 0.5, columns.flip(1), columns)
    if recipe.crop:
        shift = _below(2 * recipe.crop + 1, draws[:2, :, None]) - recipe.crop
        rows, columns = rows + shift[0], columns + shift[1]
    # Everything is one gather: for each pixel of the result, where among all pixels of the padded batch it is from.
    padded = functional.pad(images, (border,) * 4)
    first = torch.arange(batch, device=images.device)[:, None] * padded.shape[2]
    source = ((first + rows) * padded.shape[3])[:, :, None] + columns[:, None, :]
    if recipe.cutout:
        hole_rows = _near(_below(height, draws[3]), height, recipe.cutout)
        hole_columns = _near(_below(width, draws[4]), width, recipe.cutout)
        source *= ~(hole_rows[:, :, None] & hole_columns[:, None, :])  # pixel 0 is padding
    pixels = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    return pixels.index_select(0, source.flatten()).view(batch, height, width, channels).permute(0, 3, 1, 2)


def augments(recipe: Recipe, inputs: Tensor) -> bool:
    """Whether a recipe changes such inputs: only images ``(B, C, H, W)`` are augmented."""
    return inputs.ndim == 4 and bool(recipe.crop or recipe.flip or recipe.cutout)


def at_scale(recipe: Recipe, scale: float) -> Recipe:
    """The recipe for images whose sides are ``scale`` times as long."""
    return replace(recipe, crop=round(recipe.crop * scale), cutout=round(recipe.cutout * scale))


def _below(limit: int, draws: Tensor) -> Tensor:
    """Whole numbers from 0 to ``limit - 1``."""
    return (draws * limit).long()


def _near(centre: Tensor, length: int, side: int) -> Tensor:
    """``(B, length)``: which positions lie in a window of ``side`` around each centre ``(B,)``."""
    offset = torch.arange(length, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)
