"""Tasks that come with nasplat; each is a factory registered under ``nasplat.tasks``."""
