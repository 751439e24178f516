"""Augmentation of a whole batch at once, on the batch's device."""

import torch
from torch import Tensor
from torch.nn import functional

from nasplat.training.recipe import Recipe


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Random crop, flip and cutout of normalized images ``(B, C, H, W)``; the same shape comes back.

    The random numbers are drawn on the generator's device (the CPU), so that they are the same on every device.
    Crops are padded with zeros, and cutout sets zeros: the mean, as the images are normalized.
    """
    if images.ndim != 4 or not (recipe.crop or recipe.flip or recipe.cutout):
        return images
    batch, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(batch, height)
    columns = torch.arange(width, device=device).expand(batch, width)
    if recipe.crop:
        shift = torch.randint(0, 2 * recipe.crop + 1, (2, batch, 1), generator=generator).to(device)
        rows, columns = rows + shift[0], columns + shift[1]
        images = functional.pad(images, (recipe.crop,) * 4)
    if recipe.flip:
        mirrored = torch.rand((batch, 1), generator=generator).to(device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if recipe.crop or recipe.flip:
        examples = torch.arange(batch, device=device)[:, None, None]
        images = images.permute(0, 2, 3, 1)[examples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if recipe.cutout:
        # A square around a uniformly drawn centre, cut off at the border (DeVries & Taylor 2017, section 3.2).
        row = torch.randint(0, height, (batch, 1), generator=generator).to(device) - recipe.cutout // 2
        column = torch.randint(0, width, (batch, 1), generator=generator).to(device) - recipe.cutout // 2
        below, right = torch.arange(height, device=device) - row, torch.arange(width, device=device) - column
        hole_rows = (below >= 0) & (below < recipe.cutout)
        hole_columns = (right >= 0) & (right < recipe.cutout)
        images = images.masked_fill((hole_rows[:, :, None] & hole_columns[:, None, :])[:, None], 0.0)
    return images
