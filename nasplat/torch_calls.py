"""What a network asks of torch: the functions and methods that its code calls, in modules or not."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from torch.overrides import TorchFunctionMode


class TorchCalls(TorchFunctionMode, ABC):
    """Stands between torch and the code that runs inside ``with``; what ``called`` itself calls is not seen."""

    @final
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.called(function, arguments, options or {})

    @abstractmethod
    def called(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """What the code gets; torch would give ``function(*arguments, **options)``."""
