"""Texts by token mixers: how words are embedded, what mixes them in each layer, and what is read off in the end."""
