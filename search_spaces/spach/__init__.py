"""SPACH: one skeleton in which convolution, attention and perceptrons mix the patches of an image."""
