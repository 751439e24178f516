"""Evaluators: zero-cost proxies, training, and tables; ``ByFidelity`` puts them behind one seam."""
