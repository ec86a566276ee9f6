"""Models that LM2 is measured against, on the same backbones and with the same trainer."""

from transformers import AutoConfig, AutoModelForCausalLM

from lm2.baselines.rmt import RMTConfig, RMTForCausalLM, RMTState

AutoConfig.register(RMTConfig.model_type, RMTConfig, exist_ok=True)
AutoModelForCausalLM.register(RMTConfig, RMTForCausalLM, exist_ok=True)

__all__ = ["RMTConfig", "RMTForCausalLM", "RMTState"]
