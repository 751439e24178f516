"""Search spaces, one module a family or paper; each is registered under ``nasplat.search_spaces``."""
