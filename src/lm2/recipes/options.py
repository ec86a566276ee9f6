"""Options that all recipes have. Nothing heavy is imported here, so that help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SHARED = ("seed", "bf16", "accumulation", "activation_checkpointing", "fsdp", "log_every", "save_every", "report_to")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a run goes, whatever it trains."""

    out: Path = Path("runs/train")
    """Folder of the run; the same command goes on from what is there."""
    dry_run: bool = False
    """Print what would be done, with its size in parameters, tokens, operations and memory, and stop."""
    seed: int = 0
    """Seed of weights, data and lengths."""
    bf16: bool = True
    """Mixed precision in bfloat16; banks and gates stay float32."""
    accumulation: int = 1
    """Passes per step: more need less memory."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass to save memory."""
    fsdp: bool = False
    """Shard the model over the processes that torchrun started (GPUs only)."""
    log_every: int = 10
    """Steps between lines of the log."""
    save_every: int = 500
    """Steps between checkpoints."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Trackers beside log.jsonl: tensorboard, trackio, wandb; none when empty."""

    def shared(self) -> dict[str, Any]:
        """These as fields of a `RunConfig`."""
        return {name: getattr(self, name) for name in SHARED}


@dataclass(frozen=True, kw_only=True)
class RetrofitOptions(TrainOptions):
    """Give a pretrained model a memory and train it on a token store: the memory alone, then with the base."""

    out: Path = Path("runs/retrofit")
    """Folder of the run; the same command goes on from what is there."""
    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """The pretrained model: a folder, a GGUF file or a hub name."""
    data: Path = Path("data/train")
    """Folder of a token store made with the base's tokenizer (lm2 data prepare)."""
    held_out: Path | None = None
    """Another store, whose rows are read with the memory carried and reset while training goes on."""
    memory_slots: int = 64
    """Slots of each bank."""
    segment_length: int = 256
    """Tokens of a segment."""
    memory_layers: tuple[int, ...] | None = None
    """Indices of the blocks that get memory; all when not given, none for a control without memory."""
    look_back: int = 0
    """Tokens before a segment that its self-attention sees too."""
    bptt_segments: int | None = None
    """Segments that a gradient crosses, at least 2; all when not given."""
    memory_steps: int = 500
    """Steps of the memory alone; 0 leaves this phase out."""
    steps: int = 2000
    """Steps after that; 0 leaves this phase out."""
    train_base: Literal["all", "lora"] = "all"
    """What of the base is trained then: all of it, or LoRA adapters, which are merged at the end (extra: lora)."""
    lora_rank: int = 16
    """Rank of the adapters."""
    segments: tuple[int, ...] = (8,)
    """Numbers of segments of a row; each step draws one."""
    rows: int = 16
    """Rows of a step."""
    memory_learning_rate: float = 1e-3
    """Peak learning rate of the memory."""
    learning_rate: float = 5e-5
    """Peak learning rate of the base."""
    schedule: Literal["cosine", "linear", "constant", "trapezoid"] = "cosine"
    """Learning rate after the warm-up, in each phase."""
    weight_decay: float = 0.01
    """Of matrices."""
    watch_every: int = 100
    """Steps between looks at the held-out rows."""
    watch_rows: int = 8
    """Held-out rows."""
