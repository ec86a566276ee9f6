"""The subcommands of `lm2`, one module each; the front door is `lm2_command`."""

from lm2_command import main

__all__ = ["main"]
