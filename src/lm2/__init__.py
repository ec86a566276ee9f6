"""LM2: a language model with a causal, streaming memory.

Importing this package registers the model with the Hugging Face Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lm2.cache import LM2Cache
from lm2.configuration import LM2Config
from lm2.modeling import LM2ForCausalLM, LM2Model
from lm2.retrofit import add_memory

AutoConfig.register("lm2", LM2Config, exist_ok=True)
AutoModel.register(LM2Config, LM2Model, exist_ok=True)
AutoModelForCausalLM.register(LM2Config, LM2ForCausalLM, exist_ok=True)
# The Trainer shifts the labels of the models named here when it computes a loss of its own (label smoothing).
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["lm2"] = LM2ForCausalLM.__name__

__all__ = ["LM2Cache", "LM2Config", "LM2ForCausalLM", "LM2Model", "add_memory"]
