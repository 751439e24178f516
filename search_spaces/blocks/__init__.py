"""Building blocks that several spaces share.

The mixture operator, the weighted sum over kernel sizes and dilations of "same" convolutions: ``mixture`` is the
module that a network holds, ``mixture_definition`` what it computes, ``mixture_problem`` the arithmetic of its taps,
``mixture_planner`` chooses by the clock among the other ``mixture_*``, each a way to compute it faster.
"""
