"""The handwritten digits that scikit-learn ships: 1,797 images of 8×8 pixels, 10 classes, no download."""

import numpy as np

from nasplat.splits import stratified_order
from nasplat.task import Arrays, Task
from nasplat.training.recipe import Recipe

_TEST_EXAMPLES = 360
_SPLIT_SEED = 0
_RECIPE = Recipe(lr=0.1, batch_size=64, warmup_epochs=1.0, crop=1)


def digits() -> Task:
    """1,437 images to search on and 360 for the test, stratified (Alpaydin & Kaynak 1998, the UCI test part)."""
    return Task(
        "digits",
        input_shape=(1, 8, 8),
        outputs=10,
        search=lambda: _part(test=False),
        test=lambda: _part(test=True),
        recipe=_RECIPE,
    )


def _part(*, test: bool) -> Arrays:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = stratified_order(y, _SPLIT_SEED)
    index = order[:_TEST_EXAMPLES] if test else order[_TEST_EXAMPLES:]
    images = (x[index] * 15.9375).round().astype(np.uint8)  # 0..16 to 0..255
    return images.reshape(-1, 1, 8, 8), y[index]
