"""Evaluation: BABILong, MMLU, perplexity and needles, and the models that are measured by them."""
