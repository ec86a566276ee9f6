"""What `lm2 train NAME` does with a recipe and its options."""

from collections.abc import Callable
from typing import Any

from lm2.cli.checkpoint import quiet
from lm2.recipes.plan import Plan, carry_out


def launch(recipe: Callable[[Any], Plan], options: Any) -> None:
    """Make the plan, and do it."""
    quiet()
    model = carry_out(recipe(options))
    print(f"Saved {model}.")
