"""``text-mixer``: token mixers over words, from hashed projections without a vocabulary to a Transformer."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value, When
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.blocks.heads import POOLINGS, head_of
from nasplat.search_spaces.blocks.inputs.tokens import POSITIONS, HashProjection, Positions, TokenEmbedding, TokenInput
from nasplat.search_spaces.blocks.mixer_layer import MixerLayer
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.hyper import HyperMixing
from nasplat.search_spaces.blocks.token_mixers.mixer import TokenMixer
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeSelfAttention
from nasplat.search_spaces.blocks.token_mixers.static import DepthwiseConvolution, FourierMixing, StaticMlp
from nasplat.search_spaces.blocks.traits import Traits, misfits
from nasplat.search_spaces.narrowed import kept, some_of, up_to
from nasplat.search_spaces.text_mixer.network import TextMixerNetwork
from nasplat.search_spaces.text_mixer.references import REFERENCES
from nasplat.space import SearchSpace
from nasplat.task import Task

MIXERS: Mapping[str, Traits] = {
    "attention": Attention.traits,
    "relative": RelativeSelfAttention.traits,
    "hyper": HyperMixing.traits,
    "static": StaticMlp.traits,
    "conv": DepthwiseConvolution.traits,
    "fourier": FourierMixing.traits,
    "none": Traits(causal=True),
}
"""What a layer can mix tokens with."""
INPUTS: Mapping[str, Traits] = {"embedding": TokenEmbedding.traits, "minhash": HashProjection.traits}
"""What makes tokens of words."""
_MOST_LAYERS = 12
_DIMS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
_HIDDEN = (64, 128, 256, 512, 1024, 2048, 3072)


@final
class TextMixer(SearchSpace):
    """Words to classes, to a class a position, or to the next word.

    Args:
        mixers: Which mixers layers choose from.
        inputs: Which inputs there are.
        max_layers: Most layers.
        max_dim: Most features of a token.
        max_hidden: Widest channel perceptron.
        padding: ``mask`` hides padding from all layers, and so refuses ``static`` mixers for inputs of different
            lengths; ``tokens`` shows it as words like any others, so that all inputs are of one length, as pNLP-Mixer
            does.

    Raises:
        InvalidInputError: For an option that there is not.
    """

    name: ClassVar[str] = "text-mixer"
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = REFERENCES

    def __init__(
        self,
        *,
        mixers: Sequence[str] = tuple(MIXERS),
        inputs: Sequence[str] = tuple(INPUTS),
        max_layers: int = _MOST_LAYERS,
        max_dim: int = _DIMS[-1],
        max_hidden: int = _HIDDEN[-1],
        padding: str = "mask",
    ) -> None:
        self._mixers = some_of(f"mixers of {self.name}", mixers, tuple(MIXERS))
        self._inputs = some_of(f"inputs of {self.name}", inputs, tuple(INPUTS))
        if not 1 <= max_layers <= _MOST_LAYERS:
            raise InvalidInputError(f"max_layers of {self.name} must be 1 to {_MOST_LAYERS}, got {max_layers}")
        if padding not in ("mask", "tokens"):
            raise InvalidInputError(f"padding of {self.name} must be mask or tokens, got {padding!r}")
        self._masked = padding == "mask"
        layers = tuple(range(1, max_layers + 1))
        hashed = When("input", ("minhash",))
        choices = [
            Choice("input", self._inputs),
            *(
                [
                    Choice("hashes", (16, 32, 64, 128, 256), ordered=True, when=hashed),
                    Choice("features", (256, 512, 1024, 2048, 4096), ordered=True, when=hashed),
                    Choice("ngram", (2, 3, 4, 5), ordered=True, when=hashed),
                    Choice("window", (0, 1, 2, 3, 4), ordered=True, when=hashed),
                ]
                if "minhash" in self._inputs
                else []
            ),
            Choice("positions", POSITIONS),
            Choice("dim", up_to(f"max_dim of {self.name}", max_dim, _DIMS), ordered=True),
            Choice("hidden", up_to(f"max_hidden of {self.name}", max_hidden, _HIDDEN), ordered=True),
            Choice("norm", ("pre", "post")),
            Choice("final_norm", ("no", "yes")),
            Choice("dropout", (0.0, 0.1, 0.2, 0.3), ordered=True),
            Choice("pooling", POOLINGS),
            Choice("layers", layers, ordered=True),
        ]
        for layer in layers:
            choices += _layer(layer, max_layers, self._mixers)
        super().__init__(choices, variant="" if self._masked else "padding=tokens")
        # Set on the instance: references that use what was left out are none of this space.
        self.references = kept(REFERENCES, self.choices)  # type: ignore[misc]

    def check(self, task: Task) -> None:
        """Refuse a task that is not one of tokens, or that a mixer or an input does not fit.

        Raises:
            InvalidInputError: With the options to leave out, and why.
        """
        if not task.vocabulary:
            raise InvalidInputError(f"{self.name} takes token ids (L,); the inputs of task {task.name!r} are numbers")
        head_of(task, 1, "mean")
        for option, offered in (("mixers", {n: MIXERS[n] for n in self._mixers}), ("inputs", self._traits_of_inputs())):
            reasons = misfits(offered, task, masked=self._masked)
            if option == "inputs" and "minhash" in offered and not task.words:
                reasons.setdefault("minhash", "reads the letters of words, and the task does not say its words")
            if reasons:
                self._refuse(option, offered, reasons, task)

    def _traits_of_inputs(self) -> dict[str, Traits]:
        return {name: INPUTS[name] for name in self._inputs}

    def _refuse(self, option: str, offered: Mapping[str, Traits], reasons: Mapping[str, str], task: Task) -> None:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        rest = [name for name in offered if name not in reasons]
        also = ", or padding=tokens to take padding for words" if "static" in reasons and not task.causal else ""
        raise InvalidInputError(
            f"{option} of {self.name} do not fit task {task.name!r}: {why}; "
            f"leave them out with the space's option {option}={rest}{also}"
        )

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, L)`` ids to ``(B, K)`` or ``(B, K, L)``.

        Raises:
            InvalidArchitectureError: If the task does not fit what was chosen.
        """
        if not task.vocabulary:
            raise InvalidArchitectureError(f"{self.name} takes token ids; the inputs of {task.name!r} are numbers")
        dim, length = int(architecture["dim"]), task.input_shape[0]
        chosen = architecture.chosen
        layers = [
            MixerLayer(
                self._mixer(chosen, layer, task),
                dim,
                int(chosen["hidden"]),
                first=chosen["norm"] == "pre",
                dropout=float(chosen["dropout"]),
            )
            for layer in range(1, int(chosen["layers"]) + 1)
        ]
        kind = str(chosen["positions"])
        return TextMixerNetwork(
            self._input(chosen, task),
            layers,
            head_of(task, dim, str(chosen["pooling"])),
            positions=None if kind == "none" else Positions(length, dim, kind),
            norm=nn.LayerNorm(dim) if chosen["final_norm"] == "yes" else None,
            padding=task.padding if self._masked else None,
        )

    def _input(self, chosen: Mapping[str, Value], task: Task) -> TokenInput:
        kind, dim = str(chosen["input"]), int(chosen["dim"])
        self._check_block(kind, INPUTS[kind], task)
        if kind == "embedding":
            return TokenEmbedding(task.vocabulary, dim, padding=task.padding, unknown=task.unknown)
        if not task.words:
            raise InvalidArchitectureError(f"input=minhash needs the words of task {task.name!r}; choose embedding")
        return HashProjection(
            task.words,
            dim,
            hashes=int(chosen["hashes"]),
            features=int(chosen["features"]),
            ngram=int(chosen["ngram"]),
            window=int(chosen["window"]),
            padding=task.padding,
        )

    def _mixer(self, chosen: Mapping[str, Value], layer: int, task: Task) -> TokenMixer | None:
        kind, dim = str(chosen[f"mixer{layer}"]), int(chosen["dim"])
        self._check_block(kind, MIXERS[kind], task)
        heads = int(chosen.get(f"heads{layer}", 1))
        if kind == "attention":
            return Attention(dim, heads, causal=task.causal)
        if kind == "relative":
            return RelativeSelfAttention(dim, heads, causal=task.causal)
        if kind == "conv":
            return DepthwiseConvolution(dim, int(chosen[f"kernel{layer}"]), causal=task.causal)
        if kind == "hyper":
            return HyperMixing(
                dim,
                int(chosen[f"hyper_size{layer}"]),
                heads,
                tied=chosen[f"tied{layer}"] == "yes",
                positions=chosen[f"hyper_positions{layer}"] == "yes",
            )
        if kind == "static":
            return StaticMlp(task.input_shape[0], int(chosen[f"token_hidden{layer}"]))
        return FourierMixing() if kind == "fourier" else None

    def _check_block(self, name: str, traits: Traits, task: Task) -> None:
        for reason in misfits({name: traits}, task, masked=self._masked).values():
            raise InvalidArchitectureError(f"{name} does not fit task {task.name!r}: it {reason}")


def _layer(layer: int, layers: int, mixers: tuple[str, ...]) -> list[Choice]:
    """The mixer of a layer and its settings."""
    mixer = f"mixer{layer}"

    def under(*kinds: str) -> When:
        return When(mixer, tuple(kind for kind in kinds if kind in mixers))

    settings = (
        (f"heads{layer}", (1, 2, 4, 8), under("attention", "relative", "hyper"), True),
        (f"hyper_size{layer}", (16, 32, 64, 128, 256, 512, 1024, 2048), under("hyper"), True),
        (f"tied{layer}", ("no", "yes"), under("hyper"), False),
        (f"hyper_positions{layer}", ("no", "yes"), under("hyper"), False),
        (f"token_hidden{layer}", (64, 128, 256, 512), under("static"), True),
        (f"kernel{layer}", (3, 5, 7, 9), under("conv"), True),
    )
    exists = When("layers", tuple(range(layer, layers + 1)))
    return [
        Choice(mixer, mixers, when=exists),
        *(
            Choice(name, options, ordered=ordered, when=when)
            for name, options, when, ordered in settings
            if when.values
        ),
    ]
