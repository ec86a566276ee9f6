"""Training: a run is a Python function that returns a `RunConfig`; `train(run)` does it, for any causal model."""

from lm2.training.config import BatchRequest, RunConfig, Stage
from lm2.training.trainer import LM2Trainer, train

__all__ = ["BatchRequest", "LM2Trainer", "RunConfig", "Stage", "train"]
