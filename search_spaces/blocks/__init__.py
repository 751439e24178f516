"""Building blocks that several spaces share.

The mixture operator, the weighted sum over kernel sizes and dilations of "same" convolutions: ``mixture`` is the
module that a network holds, ``mixture_definition`` what it computes, ``mixture_problem`` the arithmetic of its taps,
``mixture_planner`` chooses by the clock among the other ``mixture_*``, each a way to compute it faster.

Parts of networks over tokens and images: ``inputs`` and ``minhash`` turn words into vectors, ``token_mixers`` are
layers in which tokens see each other, ``mixer_layer`` and ``channel_mlp`` put them into a block, ``heads``,
``resampling`` and ``drop_path`` are what stands around blocks, ``traits`` says what a layer needs of its task.
"""
