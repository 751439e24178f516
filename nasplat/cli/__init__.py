"""The command line: ``nasplat --help``."""

from nasplat.cli.app import main

__all__ = ["main"]
