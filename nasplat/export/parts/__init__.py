"""What a bundle's ``model.py`` is put together from: one part for its inputs, one for its outputs, ``base`` before.

The parts are read as text and never run here, so each is written as it shall stand in the bundle.
"""
