"""What `lm2 train NAME` does with a recipe and its options."""

from collections.abc import Callable
from typing import Any

from lm2.processes import is_first
from lm2.progress import quiet
from lm2.recipes.dry_run import describe
from lm2.recipes.plan import Plan, carry_out


def launch(recipe: Callable[[Any], Plan], options: Any) -> None:
    """Make the plan, and do it or describe it. One process of several speaks."""
    quiet()
    plan = recipe(options)
    text = describe(plan) if options.dry_run else f"Saved {carry_out(plan)}."
    if is_first():
        print(text)
