"""Published encoders as points of ``text-mixer``."""

from collections.abc import Mapping, Sequence
from typing import Any

from nasplat.choices import Value

_DEFAULTS: Mapping[str, Value] = {
    "input": "embedding",
    "positions": "none",
    "norm": "pre",
    "final_norm": "no",
    "dropout": 0.0,
    "pooling": "mean",
}


def _layers(count: int, mixer: str, **settings: Value) -> dict[str, Value]:
    """The same mixer in every layer, with its settings."""
    values: dict[str, Value] = {"layers": count}
    for layer in range(1, count + 1):
        values[f"mixer{layer}"] = mixer
        values |= {f"{name}{layer}": value for name, value in settings.items()}
    return values


def _reference(sizes: Sequence[int], layers: Mapping[str, Value], **changes: Any) -> dict[str, Value]:
    dim, hidden = sizes
    return {**_DEFAULTS, "dim": dim, "hidden": hidden, **layers, **changes}


def _pnlp(dim: int, features: int, window: int, layers: int) -> dict[str, Value]:
    """Fusco, Pascual & Staar 2022, "pNLP-Mixer" (arXiv 2202.04350), sizes of mindslab-ai/pnlp-mixer."""
    projection = {"input": "minhash", "hashes": 64, "features": features, "ngram": 3, "window": window}
    mixers = _layers(layers, "static", token_hidden=256)
    return _reference((dim, 256), mixers, pooling="feature-attention", **projection)


REFERENCES: Mapping[str, Mapping[str, Value]] = {
    "pnlp-mixer-x-small": _pnlp(64, 1024, 0, 2),
    "pnlp-mixer-base": _pnlp(256, 1024, 1, 2),
    "pnlp-mixer-x-large": _pnlp(512, 2048, 1, 4),
    # Mai et al. 2023, "HyperMixer" (ACL): width 256, hidden positions 512, tied; depth and perceptron are ours.
    "hypermixer": _reference(
        (256, 512),
        _layers(6, "hyper", hyper_size=512, heads=1, tied="yes", hyper_positions="yes"),
        final_norm="yes",
    ),
    # Tolstikhin et al. 2021, "MLP-Mixer" (NeurIPS), table 1: Mixer-S, over words instead of patches.
    "mlp-mixer": _reference((512, 2048), _layers(8, "static", token_hidden=256), final_norm="yes"),
    # Lee-Thorp et al. 2022, "FNet" (NAACL): the base model's encoder.
    "fnet": _reference((768, 3072), _layers(12, "fourier"), norm="post", positions="learned", dropout=0.1),
    # Vaswani et al. 2017, "Attention Is All You Need" (NeurIPS), table 3: the base model's encoder.
    "transformer": _reference(
        (512, 2048), _layers(6, "attention", heads=8), norm="post", positions="sinusoid", dropout=0.1
    ),
}
"""Values by name."""
