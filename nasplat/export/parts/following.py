"""Outputs that are the next byte: texts can be gone on with."""

from collections.abc import Iterator, Sequence

import torch

from nasplat.export.parts.octets import encode, predict


def following(text: str | bytes, count: int = 100, *, temperature: float = 0.7, seed: int = 0) -> bytes:
    """Bytes that may follow a text, each drawn given those before it.

    Args:
        text: What comes before, one byte or more.
        count: How many bytes.
        temperature: 0 takes the most likely byte each time; 1 draws as often as the network expects it.
        seed: Of what is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = text.encode() if isinstance(text, str) else text
    for _ in range(count):
        ids, (length,) = encode(whole)
        logits = predict(ids)[0, :, length - 1]
        if temperature:
            chosen = torch.multinomial((logits / temperature).softmax(0), 1, generator=generator)
        else:
            chosen = logits.argmax()
        whole += bytes([int(chosen)])
    return whole[-count:] if count else b""


def report(labels: Sequence[str], texts: Sequence[bytes]) -> Iterator[str]:
    """What may follow each text."""
    for label, text in zip(labels, texts, strict=True):
        yield f"{label}: {following(text).decode(errors='replace')!r}"
