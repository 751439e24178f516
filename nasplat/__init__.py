"""nasplat: neural architecture search.

A *Strategy* asks for *Architectures* of a *SearchSpace*; an *Executor* has an *Evaluator* turn each into a
*Measurement*; the *Study* tells the Strategy and writes every *Trial* to the *Store*.

Names are imported when they are first used, so ``import nasplat`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasplat.api import resume, retrain, score, search
    from nasplat.architecture import Architecture
    from nasplat.choices import Choice, When
    from nasplat.config import Budget, Execution, StudyConfig
    from nasplat.errors import NasplatError
    from nasplat.evaluator import Evaluator
    from nasplat.fidelity import Fidelity
    from nasplat.measurement import Measurement
    from nasplat.objective import Objective
    from nasplat.proxy import ZeroCostProxy
    from nasplat.space import SearchSpace
    from nasplat.strategy import Strategy
    from nasplat.study import Study
    from nasplat.task import Part, Task, classification
    from nasplat.training.recipe import Recipe
    from nasplat.trial import Proposal, Trial

_HOMES = {
    "Architecture": "architecture",
    "Budget": "config",
    "Choice": "choices",
    "Evaluator": "evaluator",
    "Execution": "config",
    "Fidelity": "fidelity",
    "Measurement": "measurement",
    "NasplatError": "errors",
    "Objective": "objective",
    "Part": "task",
    "Proposal": "trial",
    "Recipe": "training.recipe",
    "SearchSpace": "space",
    "Strategy": "strategy",
    "Study": "study",
    "StudyConfig": "config",
    "Task": "task",
    "Trial": "trial",
    "When": "choices",
    "ZeroCostProxy": "proxy",
    "classification": "task",
    "resume": "api",
    "retrain": "api",
    "score": "api",
    "search": "api",
}

__all__ = [
    "Architecture",
    "Budget",
    "Choice",
    "Evaluator",
    "Execution",
    "Fidelity",
    "Measurement",
    "NasplatError",
    "Objective",
    "Part",
    "Proposal",
    "Recipe",
    "SearchSpace",
    "Strategy",
    "Study",
    "StudyConfig",
    "Task",
    "Trial",
    "When",
    "ZeroCostProxy",
    "classification",
    "resume",
    "retrain",
    "score",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nasplat' has no attribute {name!r}")
    return getattr(import_module(f"nasplat.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
