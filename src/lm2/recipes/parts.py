"""Which part of a model a phase trains: all of it, the memory alone, or the memory and LoRA adapters on the base."""

from typing import Any, Literal

from transformers import PreTrainedModel

from lm2.training.optimizers import is_memory

Part = Literal["all", "memory", "lora"]
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a block that LoRA adapts."""


def only_trained(model: PreTrainedModel, part: Part, rank: int = 16) -> Any:
    """The model with gradients for one part only; for "lora" inside a PEFT model.

    Raises:
        ValueError: there is no memory where it is to be trained by itself, or peft is not installed.
    """
    names = [name for name, _ in model.named_parameters() if is_memory(name)]
    if part != "all" and not names:
        raise ValueError(f"the base is kept as it is ({part}), and 0 blocks have a memory: give memory layers")
    if part == "memory":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_memory(name))
    return _adapted(model, rank) if part == "lora" else model


def _adapted(model: PreTrainedModel, rank: int) -> Any:
    """LoRA on the base's matrices, not on those of the memory, which is trained whole."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError("training with LoRA needs the package peft: pip install 'lm2[lora]'") from None
    base = rf".*\.(self_attn|mlp)\.({'|'.join(ADAPTED)})"
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=base, modules_to_save=["memory"])
    )


def merged(model: Any, checkpoint: str) -> PreTrainedModel:
    """What `only_trained` put around a model taken off again, with the weights of a checkpoint of it."""
    model.load_adapter(checkpoint, "default")
    return model.merge_and_unload()
