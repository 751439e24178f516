"""Layers that let the tokens of a sequence see each other, interchangeable in one slot."""
