"""What the official files of NAS-Bench-201 and NATS-Bench have in common: the trainings of one architecture.

Both packages keep, for each recipe (12 or 200 epochs), an object with one result a data set and seed. Data
sets are selected by the names of the CSV form:

| name | ``val_accuracy`` | ``test_accuracy`` |
|---|---|---|
| ``cifar10`` | trained on half of the training data, on the other half | trained on all of it, test data |
| ``cifar10-valid`` | trained on half of the training data, on the other half | the same network, test data |
| ``cifar100`` | trained on the training data, half of the test data | the same, other half |
| ``imagenet16_120`` | trained on the training data, half of the validation data | the same, other half |

``cifar10`` is how papers report: validation and test accuracy are of two trainings. The cost is that of the
training that ``val_accuracy`` comes from and of one pass over its validation data, as NATS-Bench simulates
it, and of the other training where a seed has only that. Accuracies are those after the last epoch; a run's
earlier epochs are no cheaper fidelity, because its learning rate was scheduled for the whole run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from nasplat.tables.table import Run, Seed, Settings, accuracies

_SOURCES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "cifar10": (("cifar10-valid", "x-valid"), ("cifar10", "ori-test")),
    "cifar10-valid": (("cifar10-valid", "x-valid"), ("cifar10-valid", "ori-test")),
    "cifar100": (("cifar100", "x-valid"), ("cifar100", "x-test")),
    "imagenet16_120": (("ImageNet16-120", "x-valid"), ("ImageNet16-120", "x-test")),
}
"""The packages' data set and split that hold validation and test accuracy."""


class Training(NamedTuple):
    """One training: accuracies in percent or None, and seconds."""

    valid: float | None
    test: float | None
    seconds: float

    def run(self) -> Run:
        """The training as a table gives it."""
        return Run(accuracies(self.valid, self.test), self.seconds)


Trainings: TypeAlias = dict[tuple[str, int], dict[Seed, Training]]
"""By data set and epochs, then seed."""


def trainings(results_by_epochs: Mapping[str, Any]) -> Trainings:
    """The trainings of one architecture.

    Args:
        results_by_epochs: ``ArchResults`` of either package by epochs as a string (``"12"``, ``"200"``).
    """
    found: Trainings = {}
    for epochs, results in results_by_epochs.items():
        for dataset, ((valid_in, valid_set), (test_in, test_set)) in _SOURCES.items():
            by_seed: dict[Seed, Training] = {}
            seeds = {*results.dataset_seed.get(valid_in, ()), *results.dataset_seed.get(test_in, ())}
            for seed in sorted(seeds):
                validated = results.all_results.get((valid_in, seed))
                tested = results.all_results.get((test_in, seed))
                training = Training(
                    _accuracy(validated, valid_set),
                    _accuracy(tested, test_set),
                    _seconds(tested, test_set) if validated is None else _seconds(validated, valid_set),
                )
                if training.valid is not None or training.test is not None:
                    by_seed[int(seed)] = training
            if by_seed:
                found[dataset, int(epochs)] = by_seed
    return found


def merge_settings(settings: Settings, found: Trainings) -> None:
    """Add to ``settings`` what an architecture has."""
    for (dataset, epochs), by_seed in found.items():
        there = settings.setdefault(dataset, {}).setdefault(epochs, {})
        for seed, training in by_seed.items():
            roles = {name: metric.role for name, metric in training.run().metrics.items()}
            there[seed] = {**there.get(seed, {}), **roles}


def _accuracy(result: Any, split: str) -> float | None:
    """After the last epoch, in percent."""
    accuracy = None if result is None else result.eval_acc1es.get(f"{split}@{result.epochs - 1}")
    return None if accuracy is None else float(accuracy)


def _seconds(result: Any, split: str) -> float:
    """Of the whole training and one pass over the split; 0 where times were not kept."""
    training = float(sum(result.train_times.values())) if result.train_times else 0.0
    return training + float((result.eval_times or {}).get(f"{split}@{result.epochs - 1}", 0.0))
