"""Hourglass: a Transformer whose middle layers see a shorter sequence."""
