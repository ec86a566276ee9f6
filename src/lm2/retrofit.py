"""Give a pretrained model a memory, and write the result to disk.

* `add_memory` copies the base's weights by name; the base itself is left alone and shares nothing with the result.
* Slots are matched with the block's own W_K, and with its W_Q + W_K as queries, where the heads are as wide.
* The memory's value projection W_V starts at zero. Then E_mem = A V = 0 in every block, so the new logits are the
  base's, and the gradient is still alive: dL/dW_V = M^T A^T dL/dE_mem does not depend on W_V, and after one step
  every other part gets one too.
* `convert` is `add_memory` from disk to disk. The folder appears whole or not at all.
"""

import copy
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lm2.configuration import LM2Config
from lm2.gguf import check_family, load_base
from lm2.memory import LM2Memory
from lm2.modeling import LM2ForCausalLM

# What a saved configuration says about the file or the class it came from, rather than about the model.
PROVENANCE = ("model_type", "architectures", "transformers_version", "quantization_config", "_name_or_path", "auto_map")


def add_memory(
    base_model: PreTrainedModel,
    *,
    memory_slots: int,
    segment_length: int,
    memory_layers: Sequence[int] | None = None,
    memory_heads: int | None = None,
    memory_key_value_heads: int | None = None,
    memory_topk: int | None = None,
    look_back: int = 0,
    bptt_segments: int | None = None,
) -> LM2ForCausalLM:
    """Copy a pretrained model into an LM2 model that computes the same logits until it is trained.

    Within a segment the logits are the base's: bit for bit in float32 for an unpadded input of at most one segment.
    A longer input is read segment by segment: self-attention no longer reaches back over a border, and what lies
    before it has to come through the memory.

    Args:
        base_model: a causal language model of a supported family (llama, mistral, qwen2, qwen3, smollm3).
        memory_slots: N, slots of each bank.
        segment_length: T, tokens of a segment.
        memory_layers: indices of the blocks that get a bank; None gives every block one.
        memory_heads, memory_key_value_heads, memory_topk, look_back, bptt_segments: as in `LM2Config`; None takes its
            default.

    Returns:
        A new model with the base's dtype, device, mode, generation settings and tied embeddings.

    Raises:
        ValueError: the family is not supported, the weights are quantised, or a memory option does not fit the base.

    Source: the identity start of LM2 (arXiv 2502.06049, section 2); the zero value projection is ours.
    """
    _check_weights(base_model)
    config = with_memory(
        base_model.config,
        memory_slots=memory_slots,
        segment_length=segment_length,
        memory_layers=memory_layers,
        memory_heads=memory_heads,
        memory_key_value_heads=memory_key_value_heads,
        memory_topk=memory_topk,
        look_back=look_back,
        bptt_segments=bptt_segments,
    )
    config.tie_word_embeddings = _is_tied(base_model)
    own = base_model.config._attn_implementation
    config._attn_implementation = own if own in ("sdpa", "eager") else "sdpa"  # other kernels take no mask of ours
    model = LM2ForCausalLM._from_config(config, dtype=base_model.dtype).to(base_model.device)
    _copy_weights(base_model, model)
    _start_memory(model)
    model.generation_config = copy.deepcopy(base_model.generation_config)
    return model.train(base_model.training)


def with_memory(base: PreTrainedConfig, **memory: Any) -> LM2Config:
    """The configuration of a base with a memory. Options and errors are those of `add_memory`."""
    check_family(base.model_type)
    fields = {name: value for name, value in base.to_dict().items() if name not in PROVENANCE}
    return LM2Config(base_model_type=base.model_type, **memory, **fields)


def convert(base: str | Path, out: str | Path, **memory: Any) -> Path:
    """Read a base model, add a memory and write the folder `out`: weights, tokenizer and generation settings.

    Args:
        base: a local Hugging Face folder, a GGUF file or a hub name (see `lm2.gguf.load_base`).
        out: the folder to make; it must not exist, or be empty.
        memory: the options of `add_memory`, by name.

    Returns:
        The path of the new folder, ready for `LM2ForCausalLM.from_pretrained`.

    Raises:
        ValueError: the base cannot be read or used, `out` is taken, or it cannot be written.
    """
    out = Path(out).expanduser()
    _check_free(out)
    model, tokenizer = load_base(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is drawn of a new memory: the same command makes the same folder
        model = add_memory(model, **memory)
    save_folder(model, tokenizer, out)
    return out


def _check_weights(model: PreTrainedModel) -> None:
    """A quantised layer keeps its weights under other names, or as integers; copying it by name would be wrong, and of
    one that is offloaded there is nothing to copy."""
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if 0 < len(absent) < sum(1 for _ in model.parameters()):
        raise ValueError(f"{absent[0]} is not in memory, but offloaded: load the base whole, without a device_map")
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is stored as {parameter.dtype}: load the base with float weights, not quantised")


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether the head is the embedding. The configuration cannot tell: where a checkpoint has both, and they differ,
    transformers leaves them apart."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _copy_weights(base: PreTrainedModel, model: LM2ForCausalLM) -> None:
    """Load the base's weights by name: only the memory's own may be missing, nothing may be left over."""
    result = model.load_state_dict(base.state_dict(), strict=False)
    missing = [name for name in result.missing_keys if ".memory." not in name]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"the base's weights do not fit a plain {model.config.base_model_type} model: missing {missing}, "
            f"left over {list(result.unexpected_keys)}; load it with AutoModelForCausalLM, without adapters"
        )


@torch.no_grad()
def _start_memory(model: LM2ForCausalLM) -> None:
    """Nothing is read yet (W_V = 0), and slots are matched as the block's own attention matches tokens.

    The bank stores averages of a block's inputs (W_U = 1), so the block's W_Q and W_K already know which of them
    answers which token. With random ones recall across one border stayed at 95 % where copies reached 100 %.
    """
    for layer in model.model.layers:
        if (memory := getattr(layer, "memory", None)) is None:
            continue
        memory.v_proj.weight.zero_()
        torch.nn.init.eye_(memory.u_proj.weight)
        for name in ("q_proj", "q_norm", "k_norm"):
            own, attention = getattr(memory, name), getattr(layer.self_attn, name, None)
            if attention is not None and attention.weight.shape == own.weight.shape:
                own.weight.copy_(attention.weight)
        _choose_by_keys(memory, layer.self_attn)


def _choose_by_keys(memory: LM2Memory, attention: Any) -> None:
    """W_K is the block's, and is added to W_Q, both repeated for the heads that share a key head in the block.

    One query chooses the slots that a token reads and those it writes. What a question asks for is in its query, and
    what a fact tells is in its key. A base need not put that into the fact's own query; where it does not, facts of
    different people would choose the same slots.
    """
    keys, queries = attention.k_proj.weight, attention.q_proj.weight
    own, head_width = memory.k_proj.weight, memory.width // memory.heads
    if queries.shape != memory.q_proj.weight.shape or head_width != attention.head_dim or len(own) % len(keys):
        return
    heads = keys.unflatten(0, (-1, head_width))
    own.copy_(heads.repeat_interleave(len(own) // len(keys), 0).flatten(0, 1))
    memory.q_proj.weight.add_(heads.repeat_interleave(len(queries) // len(keys), 0).flatten(0, 1))


def _check_free(out: Path) -> None:
    if out.resolve() == Path.cwd():
        raise ValueError(f"{str(out)!r} is the folder that you are in: name a folder to make")
    if out.is_file():
        raise ValueError(f"{str(out)!r} is a file: choose a folder that does not exist yet")
    if out.is_dir() and (count := sum(1 for _ in out.iterdir())):
        raise ValueError(f"{str(out)!r} already holds {count} files: choose another folder, or empty this one first")


def save_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, out: Path) -> None:
    """Write the folder beside `out` and rename it, so that a failure leaves nothing behind.

    Raises:
        ValueError: it cannot be written.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        partial.replace(out)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{str(out)!r} could not be written ({error}): free some space or choose another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
