"""The configuration of an LM2 model: a backbone family's own fields, and what the memory needs on top."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from lm2.errors import Problems

FAMILY_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}
BASE_MODEL_TYPES = tuple(FAMILY_CONFIGS)

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

PRESETS: dict[str, dict[str, Any]] = {
    # The shape of Llama-3.2-1B with the paper's 2048 slots in all 16 blocks.
    "lm2-1.7b": {
        "base_model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": _LLAMA3_ROPE,
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "segment_length": 2048,
        "memory_slots": 2048,
        "memory_heads": 32,
        "memory_key_value_heads": 8,
        "bptt_segments": 4,
    },
    # The shape of SmolLM2-135M.
    "lm2-135m": {
        "base_model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "segment_length": 512,
        "memory_slots": 64,
        "memory_heads": 9,
        "memory_key_value_heads": 3,
        "bptt_segments": 8,
    },
    # The model of `lm2 demo`, trained in minutes on a laptop; its vocabulary is the tokenizer's.
    "lm2-tiny": {
        "base_model_type": "qwen3",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 170,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.125,  # 1/sqrt(64): the usual 0.02 is far too small for so narrow a model
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},  # angles that differ within a short segment
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "segment_length": 32,
        "look_back": 8,
        "memory_slots": 16,
        "memory_heads": 4,
        "memory_layers": [1],
    },
}


class LM2Config(PreTrainedConfig):
    """Configuration of `LM2Model` and `LM2ForCausalLM`.

    The fields of the backbone family (`hidden_size`, `num_hidden_layers`, `rope_parameters`, ...) stand at the top
    level under their own names, with the family's own defaults and checks.

    Args:
        base_model_type: the backbone family: llama, mistral, qwen2, qwen3 or smollm3.
        segment_length: T, the tokens that self-attention sees at once; the bank is written when T tokens are complete.
        look_back: tokens before a segment that its self-attention sees too, 0 to T, for what the border cuts in two.
        memory_slots: N, the rows of each block's bank.
        memory_layers: indices of the blocks with a bank; None gives every block one.
        memory_heads: query heads of the memory; None takes the backbone's number of attention heads.
        memory_key_value_heads: key and value heads of the memory; None takes `memory_heads`.
        memory_topk: each token reads only the k best slots; None reads all.
        bptt_segments: the bank is detached every n segments, counted from the end; None never detaches it.
        **kwargs: the family's fields.

    Raises:
        ValueError: a value does not fit; the sentence names the rule, the values and the remedy.
    """

    model_type = "lm2"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    base_model_type: str = "llama"
    segment_length: int = 512
    look_back: int = 0
    memory_slots: int = 64
    memory_layers: list[int] | None = None
    memory_heads: int | None = None
    memory_key_value_heads: int | None = None
    memory_topk: int | None = None
    bptt_segments: int | None = None

    if TYPE_CHECKING:  # Copied from the family's configuration when the object is made.
        vocab_size: int
        hidden_size: int
        num_hidden_layers: int
        num_attention_heads: int
        num_key_value_heads: int
        max_position_embeddings: int
        rms_norm_eps: float
        pad_token_id: int | None
        tie_word_embeddings: bool

    def __post_init__(self, **kwargs: Any) -> None:
        if self.base_model_type not in BASE_MODEL_TYPES:
            raise ValueError(
                f"base_model_type must be one of {', '.join(BASE_MODEL_TYPES)}, and it is {self.base_model_type!r}: "
                "choose a base of one of these families"
            )
        family = self._family_config(kwargs)
        common = {field.name for field in fields(PreTrainedConfig)}
        for name in (field.name for field in fields(family)):
            if name not in common:
                setattr(self, name, getattr(family, name))
                kwargs.pop(name, None)
        if isinstance(layers := self.memory_layers, int):
            raise ValueError(f"memory_layers is {layers}: give a list of blocks, such as [{layers}]")
        if layers is not None:
            self.memory_layers = list(layers)  # of a range or a set, which cannot be saved
        if self.memory_heads is None:
            self.memory_heads = self.num_attention_heads
        if self.memory_key_value_heads is None:
            self.memory_key_value_heads = self.memory_heads
        self.check_memory()
        super().__post_init__(**kwargs)

    def _family_config(self, kwargs: dict[str, Any]) -> PreTrainedConfig:
        try:
            return FAMILY_CONFIGS[self.base_model_type](**kwargs)
        except StrictDataclassError as error:  # Hugging Face's own class is not a ValueError.
            raise ValueError(f"the {self.base_model_type} fields do not fit: {error}") from error

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "LM2Config":
        """The configuration called `name` (see `PRESETS`), with `overrides` on top.

        Raises:
            ValueError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    @property
    def base_model_tp_plan(self) -> dict[str, Any] | None:  # ty: ignore[incompatible-property-override]
        """How tensor parallelism splits the backbone: as in its family. A memory stays whole in each process."""
        return FAMILY_CONFIGS[self.base_model_type].base_model_tp_plan

    @property
    def memory_indices(self) -> tuple[int, ...]:
        """The blocks that have a bank, in order."""
        blocks = range(self.num_hidden_layers) if self.memory_layers is None else self.memory_layers
        return tuple(sorted(set(blocks)))

    def check_memory(self) -> None:
        """Check the memory fields together; also called when a model is built, since fields can be set after loading.

        Raises:
            ValueError: with the rule, the values and the remedy of all that do not fit.
        """
        self._check_whole_numbers()
        problems, positive = Problems(), ("segment_length", "memory_slots", "memory_heads", "memory_key_value_heads")
        for name in positive:
            value = getattr(self, name)
            problems.need(value >= 1, f"{name} must be 1 or more, and it is {value}: choose a positive number")
        assert self.memory_heads is not None
        assert self.memory_key_value_heads is not None
        _need_divides(problems, "hidden_size", self.hidden_size, "memory_heads", self.memory_heads)
        _need_divides(
            problems, "memory_heads", self.memory_heads, "memory_key_value_heads", self.memory_key_value_heads
        )
        problems.need(
            self.segment_length < 1 or 0 <= self.look_back <= self.segment_length,
            f"look_back must lie between 0 and segment_length ({self.segment_length}), and it is {self.look_back}: "
            "lower it, or lengthen the segments",
        )
        problems.need(
            self.memory_topk is None or self.memory_slots < 1 or 1 <= self.memory_topk <= self.memory_slots,
            f"memory_topk must lie between 1 and memory_slots ({self.memory_slots}), and it is {self.memory_topk}: "
            "lower it, or leave it out to read all slots",
        )
        problems.need(
            self.bptt_segments is None or self.bptt_segments >= 2,
            f"bptt_segments must be 2 or more, and it is {self.bptt_segments}: a write is first felt one segment "
            "later, so with fewer the write would never learn; use 2 or more, or None for no cut",
        )
        outside = [index for index in self.memory_layers or [] if not 0 <= index < self.num_hidden_layers]
        problems.need(
            not outside,
            f"memory_layers must lie between 0 and {self.num_hidden_layers - 1} (the model has "
            f"{self.num_hidden_layers} blocks), and it names {outside}: remove or change these",
        )
        self._check_rotary(problems)
        problems.raise_all()

    def _check_rotary(self, problems: Problems) -> None:
        """Frequencies that change with the length of a call would give cached keys another position than new ones."""
        rope = getattr(self, "rope_parameters", None) or {}
        limits = {"dynamic": self.max_position_embeddings, "longrope": rope.get("original_max_position_embeddings")}
        limit = limits.get(kind := rope.get("rope_type"))
        problems.need(
            limit is None or self.segment_length <= limit,
            f"segment_length must be at most {limit} with rotary frequencies of type {kind!r}, and it is "
            f"{self.segment_length}: beyond these change with the length of a call, so shorten the segments",
        )

    def _check_whole_numbers(self) -> None:
        sizes = ("segment_length", "memory_slots", "memory_heads", "memory_key_value_heads", "look_back")
        fields = {name: getattr(self, name) for name in (*sizes, "memory_topk", "bptt_segments")}
        fields = {name: value for name, value in fields.items() if name in sizes or value is not None}
        fields |= {f"memory_layers[{i}]": value for i, value in enumerate(self.memory_layers or [])}
        wrong = {name: value for name, value in fields.items() if not isinstance(value, int) or isinstance(value, bool)}
        if wrong:
            named = ", ".join(f"{name} is {value!r}" for name, value in wrong.items())
            raise ValueError(f"the sizes of a memory are whole numbers, and {named}: give whole numbers")


def _need_divides(problems: Problems, whole_name: str, whole: int, part_name: str, part: int) -> None:
    problems.need(
        part < 1 or whole % part == 0,
        f"{whole_name} must be divisible by {part_name}, and {whole} is not divisible by {part}: choose "
        f"{part_name} among {', '.join(str(n) for n in range(1, min(whole, 64) + 1) if whole % n == 0)}",
    )
