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
    """Trackers beside log.jsonl: tensorboard, trackio, wandb; or none."""

    def shared(self, **others: Any) -> dict[str, Any]:
        """These as fields of a `RunConfig`, with others in their place."""
        return {**{name: getattr(self, name) for name in SHARED}, **others}


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


@dataclass(frozen=True, kw_only=True)
class PretrainTinyOptions(TrainOptions):
    """Train the model of a few million parameters, `lm2-tiny`, on a token store from nothing."""

    out: Path = Path("runs/tiny")
    """Folder of the run; the same command goes on from what is there."""
    data: Path = Path("data/train")
    """Folder of a token store (lm2 data prepare)."""
    tokenizer: str | None = None
    """Folder, GGUF file or hub name of the store's tokenizer; where the store says when not given."""
    bf16: bool = False
    """Mixed precision in bfloat16; banks and gates stay float32."""
    steps: int = 1000
    """Steps."""
    segments: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of segments of a row; each step draws one."""
    rows: int = 32
    """Rows of a step."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "trapezoid"] = "trapezoid"
    """Learning rate after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.01
    """Of matrices."""


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(PretrainTinyOptions):
    """Train the LM2 paper's model of 1.7 B parameters on 248 B tokens of SmolLM-Corpus.

    From the paper are the model, its 2,048 slots in all 16 blocks, and the data. It names neither batch nor rates; they
    are those of its authors' code: AdamW, 6e-4, weight decay 0.1, 700 steps of warm-up, cosine to 0. A step of 64 rows
    of 4 segments of 2,048 tokens has 524,288 tokens, and 473,000 steps are 248 B.
    """

    out: Path = Path("runs/lm2-1.7b")
    """Folder of the run; the same command goes on from what is there."""
    data: Path = Path("data/smollm")
    """Folder of a token store made by: lm2 data prepare smollm-corpus --tokenizer meta-llama/Llama-3.2-1B."""
    bf16: bool = True
    """Mixed precision in bfloat16; banks and gates stay float32."""
    accumulation: int = 8
    """Passes per step: more need less memory."""
    activation_checkpointing: bool = True
    """Compute activations again in the backward pass to save memory."""
    steps: int = 473_000
    """Steps."""
    segments: tuple[int, ...] = (4,)
    """Numbers of segments of a row; each step draws one."""
    rows: int = 64
    """Rows of a step."""
    learning_rate: float = 6e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "trapezoid"] = "cosine"
    """Learning rate after the warm-up."""
    warmup_steps: int = 700
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.1
    """Of matrices."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainOptions):
    """What the recipes that start from a model with a memory have in common."""

    model: Path = Path("runs/retrofit/model")
    """Folder of an LM2 model, such as `lm2 train retrofit` and `lm2 convert` make."""
    rows: int = 16
    """Rows of a step."""
    learning_rate: float = 5e-5
    """Peak learning rate of the base."""
    memory_learning_rate: float = 5e-4
    """Peak learning rate of the memory."""
    schedule: Literal["cosine", "linear", "constant", "trapezoid"] = "cosine"
    """Learning rate after the warm-up."""
    weight_decay: float = 0.01
    """Of matrices."""


@dataclass(frozen=True, kw_only=True)
class BabilongOptions(FinetuneOptions):
    """Train a model with a memory on bAbI's questions in long texts, for BABILong.

    The curriculum has a stage for each length, which also draws the lengths before it. Only answers have a loss.
    """

    out: Path = Path("runs/babilong")
    """Folder of the run; the same command goes on from what is there."""
    tasks: tuple[str, ...] = ("qa1",)
    """One task, or several to be trained together, from qa1 to qa10."""
    babi: Path | None = None
    """Folder or zip with the real bAbI tasks, whose training stories are told; simulated ones when not given."""
    background: Path | None = None
    """Books around the facts (.txt, .jsonl, .jsonl.gz or a folder); built-in sentences when not given."""
    curriculum: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Longest row of each stage, in segments."""
    steps: int = 500
    """Steps of each stage."""
    question: Literal["last", "first-and-last"] = "last"
    """Where a row's last question stands: after the text as in BABILong, or before it too."""
    facts: int = 10
    """A row's story has at most so many facts."""
    questions: int = 5
    """Questions in a row, at most."""
    density: float = 0.5
    """Largest share of a row that facts and questions may take."""
    write_cost: float = 100.0
    """Price on writing at background alone, of which 8 segments are read beside the rows of each pass, so that the
    memory learns not to write it; 0 for none."""
    write_cost_rise: tuple[float, float] = (0.4, 0.8)
    """Shares of all steps between which the price rises, by equal factors: 0 0 for all of it from the start."""
    roll_outs: bool = False
    """In half of the passes, when half of a row has been read, its banks read up to 64 segments of background before
    the rest: training on the states of long texts, at the cost of the writes alone. One process only."""


@dataclass(frozen=True, kw_only=True)
class SftOptions(FinetuneOptions):
    """Train a model with a memory on conversations about long documents; only the assistant's words have a loss."""

    out: Path = Path("runs/sft")
    """Folder of the run; the same command goes on from what is there."""
    data: Path = Path("data/chat.jsonl")
    """JSONL file: on each line `messages` with role and content, and maybe a `document` that goes before the first."""
    segments: int = 16
    """Segments of a row: conversations that are longer are left out."""
    steps: int = 1000
    """Steps."""


@dataclass(frozen=True, kw_only=True)
class BooksOptions(TrainOptions):
    """Train a model that reads books and remembers what they say of people.

    On book text, and on the same text with facts told once in it ("Konrad lives in Vienna.") and asked about later. A
    small model from nothing when no base is given: tokenizer, backbone on single segments, then the memory.
    """

    out: Path = Path("runs/books")
    """Folder of the run; the same command goes on from what is there."""
    books: Path = Path("books/train.jsonl.gz")
    """Books to train with (.txt, .jsonl, .jsonl.gz or a folder)."""
    base: str | None = None
    """A pretrained model to start from: a folder, a GGUF file or a hub name."""
    bf16: bool = False
    """Mixed precision in bfloat16; banks and gates stay float32."""
    memory_slots: int = 32
    """Slots of each bank."""
    segment_length: int = 64
    """Tokens of a segment."""
    look_back: int = 12
    """Tokens before a segment that its self-attention sees too: about a fact."""
    backbone_steps: int = 3000
    """Steps of the small backbone; not used with a base."""
    steps: int = 2000
    """Steps of the model with memory, on rows of 1 to 16 segments."""
    rows: int = 64
    """Segments of a step, in rows of 1 to 16."""
    learning_rate: float = 7.5e-4
    """Peak learning rate of the memory, and of a small model with it; its backbone alone is trained at 3e-3."""
    base_learning_rate: float = 5e-5
    """Peak learning rate of a base."""
