"""Search strategies, one module a paper; each is registered under ``nasplat.strategies``."""
