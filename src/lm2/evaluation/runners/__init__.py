"""Ways to answer a question about a long text, one module each, all behind `lm2.evaluation.models.Runner`."""
