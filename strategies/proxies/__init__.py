"""Zero-cost proxies, one module a paper; each is registered under ``nasplat.proxies``."""
