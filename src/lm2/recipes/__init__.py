"""Recipes: each is a function from a dataclass of options to a `Plan`, which `lm2 train NAME` does or describes."""
