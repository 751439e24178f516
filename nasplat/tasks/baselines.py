"""What costs nothing: predictors that stand beside every result.

Each learns from a task's training part and is judged on another part by the task's own metrics.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED
from nasplat.task import Part, Task

_ORDER = 5


def baselines(task: Task, part: Part = Part.VALID) -> dict[str, dict[str, float]]:
    """The metrics of all baselines that suit a task, by name.

    Args:
        task: Any task with data.
        part: On which they are judged.
    """
    if task.pooled and task.vocabulary == 256:
        return {"n_gram": n_gram(task, part)}
    if task.real and len(task.output_shape) == 2 and task.scaled:
        return {"persistence": persistence(task, part), "linear": linear_forecaster(task, part)}
    if task.real:
        return {"mean": mean_target(task, part)}
    found = {"majority_class": majority_class(task, part)}
    if task.vocabulary:
        found["n_gram"] = tag_of_word(task, part) if task.target_shape else naive_bayes(task, part)
    return found


def majority_class(task: Task, part: Part = Part.VALID) -> dict[str, float]:
    """The most frequent class of the training part, with the classes' shares as probabilities."""
    targets = task.data(Part.TRAIN).targets
    shares = torch.bincount(targets[targets != IGNORED], minlength=task.outputs).double()
    logits = (shares + 1).log().view(-1, *(1,) * len(task.target_shape))
    return _judged(task, part, logits.expand(len(task.data(part)), *task.output_shape))


def mean_target(task: Task, part: Part = Part.VALID) -> dict[str, float]:
    """The mean of the training part's targets, for each number of a target."""
    mean = task.data(Part.TRAIN).targets.mean(0)
    return _judged(task, part, task.scale.encode(mean).expand(len(task.data(part)), *task.output_shape))


def naive_bayes(task: Task, part: Part = Part.VALID) -> dict[str, float]:
    """Multinomial naive Bayes on counts of words and pairs of neighbouring words (scikit-learn's)."""
    from sklearn.naive_bayes import MultinomialNB

    train, judged = task.data(Part.TRAIN), task.data(part)
    vocabulary: dict[tuple[int, ...], int] = {}
    counts = _n_gram_counts(task, train.inputs, vocabulary, grow=True)
    model = MultinomialNB().fit(counts, train.targets.numpy())
    found = model.predict_log_proba(_n_gram_counts(task, judged.inputs, vocabulary, grow=False))
    outputs = torch.full((len(judged), task.outputs), math.log(1e-9), dtype=torch.float64)
    outputs[:, torch.as_tensor(model.classes_)] = torch.as_tensor(found)
    return _judged(task, part, outputs)


def tag_of_word(task: Task, part: Part = Part.VALID) -> dict[str, float]:
    """The tag that each word has most often in the training part; the most frequent tag where it does not occur."""
    train, judged = task.data(Part.TRAIN), task.data(part)
    scored = train.targets != IGNORED
    counts = torch.zeros(max(len(task.words), task.vocabulary), task.outputs)
    places = (train.inputs[scored], train.targets[scored])
    counts.index_put_(places, torch.ones(len(places[0])), accumulate=True)
    shares = counts.sum(0) / counts.sum()  # below one example: decides only where there is none
    return _judged(task, part, (counts + shares)[judged.inputs].log().transpose(1, 2))


def n_gram(task: Task, part: Part = Part.VALID, order: int = _ORDER) -> dict[str, float]:
    """Bits per byte of an interpolated n-gram model of bytes (Witten & Bell 1991, method C).

    Args:
        task: A language model of bytes.
        part: On which it is judged.
        order: Bytes before the predicted one that it looks at, at most.

    Raises:
        InvalidInputError: If contexts of the order do not fit into 7 bytes.
    """
    if not 0 <= order <= 6:
        raise InvalidInputError(f"an n-gram baseline looks at 0 to 6 bytes, got {order}")
    train, judged = task.data(Part.TRAIN), task.data(part)
    text = torch.cat([train.inputs.flatten(), train.targets[-1:, -1]]).numpy()
    scored = (judged.targets != IGNORED).numpy()
    target = judged.targets.numpy()[scored]
    likelihood = np.full(len(target), 1 / 256)
    for length in range(order + 1):
        learned = _contexts(text[None, :-1], length)[0, max(0, length - 1) :]
        followed = text[1:][max(0, length - 1) :]
        asked = _contexts(judged.inputs.numpy(), length)[scored]
        likelihood = _interpolated(learned, followed, asked, target, likelihood)
    return {"bits_per_byte": float(-np.log2(likelihood).mean())}


def persistence(task: Task, part: Part = Part.VALID) -> dict[str, float]:
    """The last known value of each variable, over the whole horizon."""
    past, _ = _past(task, part)
    return _judged(task, part, past[..., -1:].expand(-1, -1, task.output_shape[1]))


def linear_forecaster(task: Task, part: Part = Part.VALID, ridge: float = 1.0) -> dict[str, float]:
    """One linear map from the past to the horizon that all variables share, by least squares.

    The last value is subtracted before and added after (NLinear of Zeng et al. 2023), without calendar or gradient
    descent.

    Args:
        task: A forecast.
        part: On which it is judged.
        ridge: Penalty on the squared weights.
    """

    def centred(of: Part) -> tuple[Tensor, Tensor, Tensor]:
        past, targets = _past(task, of)
        last = past[..., -1:]
        return (past - last).flatten(0, 1).double(), (targets - last).flatten(0, 1).double(), last

    x, y, _ = centred(Part.TRAIN)
    weights = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    x, _, last = centred(part)
    return _judged(task, part, (x @ weights).view(len(last), *task.output_shape) + last)


def _judged(task: Task, part: Part, outputs: Tensor) -> dict[str, float]:
    targets = task.data(part).targets
    return {name: metric(outputs.float(), targets) for name, metric in task.metrics.items()}


def _past(task: Task, part: Part) -> tuple[Tensor, Tensor]:
    """Known values ``(N, variables, lookback)`` and targets ``(N, variables, horizon)``."""
    data = task.data(part)
    variables, horizon = task.output_shape
    end = data.inputs.shape[-1] - (horizon if task.calendar else 0)
    return data.inputs[:, :variables, :end], data.targets


def _n_gram_counts(task: Task, ids: Tensor, vocabulary: dict[tuple[int, ...], int], *, grow: bool) -> csr_array:
    rows, columns = [], []
    for row, sentence in enumerate(ids.tolist()):
        words = [word for word in sentence if word != task.padding]
        for gram in [*((word,) for word in words), *pairwise(words)]:
            column = vocabulary.setdefault(gram, len(vocabulary)) if grow else vocabulary.get(gram)
            if column is not None:
                rows.append(row)
                columns.append(column)
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(ids), len(vocabulary)))


def _contexts(rows: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The last ``length`` bytes up to each place of rows ``(N, L)`` as one number; bytes before a row count as 0."""
    numbers = np.zeros(rows.shape, dtype=np.int64)
    for back in range(length):
        numbers[:, back:] += rows[:, : rows.shape[1] - back].astype(np.int64) << (8 * back)
    return numbers


def _interpolated(
    learned: NDArray[np.int64],
    followed: NDArray[np.int64],
    asked: NDArray[np.int64],
    target: NDArray[np.int64],
    shorter: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``(count(h, c) + kinds(h) p(c | shorter h)) / (count(h) + kinds(h))``; of contexts never seen, the shorter's."""
    pairs, pair_counts = np.unique((learned << 8) + followed, return_counts=True)
    contexts, counts = np.unique(learned, return_counts=True)
    kinds = np.unique(pairs >> 8, return_counts=True)[1]
    of_pair = _looked_up(pairs, pair_counts, (asked << 8) + target)
    seen, different = _looked_up(contexts, counts, asked), _looked_up(contexts, kinds, asked)
    return np.where(seen > 0, (of_pair + different * shorter) / np.maximum(seen + different, 1), shorter)


def _looked_up(keys: NDArray[np.int64], values: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
