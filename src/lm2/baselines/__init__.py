"""Models that LM2 is measured against, on the same backbones and with the same trainer."""

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lm2.baselines.armt import ARMTConfig, ARMTForCausalLM, ARMTState
from lm2.baselines.rmt import RMTConfig, RMTForCausalLM, RMTState

for _config, _model in ((RMTConfig, RMTForCausalLM), (ARMTConfig, ARMTForCausalLM)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_config.model_type] = _model.__name__  # as in `lm2`, for label smoothing

__all__ = ["ARMTConfig", "ARMTForCausalLM", "ARMTState", "RMTConfig", "RMTForCausalLM", "RMTState"]
