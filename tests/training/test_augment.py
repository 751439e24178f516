"""Augmentation against one image and one pixel at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nasplat.training.augment import DRAWS, at_scale, augment, augments
from nasplat.training.recipe import Recipe


def one_image(image: NDArray[np.float32], recipe: Recipe, draws: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ``augment`` should do, for an image ``(C, H, W)`` and draws ``(DRAWS,)``."""
    _, height, width = image.shape
    if recipe.flip and draws[2] < 0.5:
        image = image[:, :, ::-1]
        sign = -1  # the crop is drawn in the coordinates of the image as it was
    else:
        sign = 1
    down, right = (int(draw * np.float32(2 * recipe.crop + 1)) - recipe.crop for draw in draws[:2])
    right *= sign
    centre_row, centre_column = int(draws[3] * np.float32(height)), int(draws[4] * np.float32(width))
    top, left = centre_row - recipe.cutout // 2, centre_column - recipe.cutout // 2
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            inside = 0 <= row + down < height and 0 <= column + right < width
            hole = top <= row < top + recipe.cutout and left <= column < left + recipe.cutout
            if inside and not hole:
                out[:, row, column] = image[:, row + down, column + right]
    return out


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    st.builds(Recipe, crop=st.integers(0, 8), flip=st.booleans(), cutout=st.integers(0, 8)),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_as_one_image_at_a_time(shape: tuple[int, int, int, int], recipe: Recipe, last: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(shape, generator=generator)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    draws = torch.rand((DRAWS, shape[0]), generator=generator)
    before = images.clone()
    out = augment(images, recipe, draws)
    expected = [one_image(x.numpy(), recipe, d.numpy()) for x, d in zip(images, draws.T, strict=True)]
    assert (out.numpy() == np.stack(expected)).all()
    assert out.dtype == images.dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_draws_at_their_limits_stay_inside() -> None:
    images = torch.rand(2, 3, 7, 9)
    draws = torch.stack((torch.zeros(DRAWS), torch.full((DRAWS,), 1 - 2**-24)), dim=1)
    for crop in range(20):
        assert augment(images, Recipe(crop=crop, flip=True, cutout=5), draws).shape == images.shape


def test_all_shifts_are_equally_likely() -> None:
    images = torch.zeros(6000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    out = augment(images, Recipe(crop=1), torch.rand((DRAWS, 6000), generator=torch.Generator().manual_seed(0)))
    shares = out.mean(0)[0]
    assert torch.allclose(shares[1:4, 1:4], torch.tensor(1 / 9), atol=0.02)
    assert shares.sum() == pytest.approx(1.0)


def test_what_is_augmented() -> None:
    images, rows = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3)
    assert not augments(Recipe(), images)
    for recipe in (Recipe(crop=1), Recipe(flip=True), Recipe(cutout=2)):
        assert augments(recipe, images)
        assert not augments(recipe, rows)


def test_pixels_follow_the_resolution() -> None:
    recipe = at_scale(Recipe(crop=4, cutout=16, lr=0.3), 0.5)
    assert recipe == Recipe(crop=2, cutout=8, lr=0.3)
