"""Words as ids."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

PADDING = 0
UNKNOWN = 1


@final
class Vocabulary:
    """The words of a training part, most frequent first, after padding and the unknown word.

    Words that it meets later get ids behind them, in the order in which they come.

    Args:
        sentences: Of the training part.

    Attributes:
        words: The text of each id; grows.
        size: How many ids belong to the training part.
    """

    def __init__(self, sentences: Iterable[Sequence[str]]) -> None:
        counts = Counter(word for sentence in sentences for word in sentence)
        self.words = ["", "", *sorted(counts, key=lambda word: (-counts[word], word))]
        self.size = len(self.words)
        self._ids = {word: number for number, word in enumerate(self.words) if number > UNKNOWN}

    def ids(self, sentences: Sequence[Sequence[str]], length: int) -> NDArray[np.int64]:
        """``(N, length)``: ids of words, cut off or filled up with padding."""
        rows = np.full((len(sentences), length), PADDING, dtype=np.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            for place, word in enumerate(sentence[:length]):
                row[place] = self._id(word)
        return rows

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self.words)
            self.words.append(word)
        return self._ids[word]
