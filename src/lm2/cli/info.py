"""`lm2 info MODEL`: how big a model and its state are, computed on the meta device (nothing is allocated)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lm2.cli.checkpoint import check_folder

if TYPE_CHECKING:
    from lm2 import LM2Config
    from lm2.baselines.segments import SegmentedConfig

EXAMPLES = (
    "lm2 info lm2-1.7b",
    "lm2 info ./smollm2-lm2",
)
STOPPED = "This command writes nothing."

PAPER = "the paper's model: 1.2 B + 0.5 B of memory"
BASELINES = {"lm2_rmt": "RMT", "lm2_armt": "ARMT"}
"""What the types of the baselines' folders are called."""


@dataclass(frozen=True)
class Options:
    """Count the parameters of a model and the bytes of state it keeps for each row of a batch."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A preset (such as lm2-1.7b or lm2-tiny) or the folder of a saved model: LM2, RMT or ARMT."""


@dataclass(frozen=True)
class Size:
    """Parameters, and bytes of state for one row in the middle of a stream: the memory's and the open segment's."""

    base_parameters: int
    memory_parameters: int
    bank_bytes: int
    segment_bytes: int


def run(options: Options) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    lines = describe(options.model)
    table = Table(title=options.model, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in lines:
        table.add_row(label, value)
    console = Console()
    console.print(table)
    if options.model == "lm2-1.7b":
        console.print(PAPER)


def describe(model: str) -> list[tuple[str, str]]:
    """The lines of the table, for a preset or for a saved model's folder (a name with a slash, or one that exists)."""
    from lm2 import LM2Config

    if "/" not in model and not Path(model).exists():
        config = LM2Config.preset(model)
    elif check_folder(Path(model), ("lm2", *BASELINES)) in BASELINES:
        return describe_baseline(Path(model))
    else:
        config = LM2Config.from_pretrained(model)
    return rows(config, measure(config))


def describe_baseline(folder: Path) -> list[tuple[str, str]]:
    """The lines of the table for an RMT or ARMT folder."""
    from transformers import AutoConfig

    import lm2.baselines  # noqa: F401 (registers the types)

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    size = measure_baseline(config)
    return [
        ("kind", BASELINES[config.model_type]),
        ("family", config.backbone_config.model_type),
        ("blocks", str(config.backbone_config.num_hidden_layers)),
        ("memory tokens", str(config.memory_tokens)),
        *common_rows(config.segment_length, size, "memory of a row"),
    ]


def measure_baseline(config: "SegmentedConfig") -> Size:
    """Build the model and the state of a row on the meta device and count."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        state = model.initial_state(1)
    memory = sum(p.numel() for name, p in model.named_parameters() if "memory" in name.split("."))
    carried = sum(part.nbytes for part in state.memory)
    return Size(
        base_parameters=sum(p.numel() for p in model.parameters()) - memory,
        memory_parameters=memory,
        bank_bytes=carried,
        segment_bytes=state.nbytes - carried,
    )


def measure(config: "LM2Config") -> Size:
    """Build the model on the meta device and count.

    The state is what a float32 stream holds at the last token of a segment: the banks (N x d for each memory layer),
    and for the open segment the keys and values of every layer, those of the tokens that it looks back at included,
    and the inputs (T x d) of each memory layer.
    """
    import torch

    from lm2 import LM2ForCausalLM

    with torch.device("meta"):
        model = LM2ForCausalLM(config)
    memory = sum(p.numel() for name, p in model.named_parameters() if ".memory." in name)
    layers = len(config.memory_indices)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads * head_width
    return Size(
        base_parameters=sum(p.numel() for p in model.parameters()) - memory,
        memory_parameters=memory,
        bank_bytes=4 * layers * config.memory_slots * config.hidden_size,
        segment_bytes=4
        * (
            (config.segment_length + config.look_back) * keys_and_values
            + config.segment_length * layers * config.hidden_size
        ),
    )


def rows(config: "LM2Config", size: Size) -> list[tuple[str, str]]:
    """The lines of the table for an LM2 model: what, and its value."""
    return [
        ("family", config.base_model_type),
        ("blocks / with memory", f"{config.num_hidden_layers} / {len(config.memory_indices)}"),
        ("slots x width", f"{config.memory_slots} x {config.hidden_size}"),
        *common_rows(config.segment_length, size, "banks of a row"),
    ]


def common_rows(segment_length: int, size: Size, memory: str) -> list[tuple[str, str]]:
    """The lines that every kind of model has; `memory` is what its state beside the open segment is called."""
    total = size.base_parameters + size.memory_parameters
    return [
        ("segment", f"{segment_length} tokens"),
        ("parameters of the base", f"{size.base_parameters:,}"),
        ("parameters of the memory", f"{size.memory_parameters:,}"),
        ("parameters in all", f"{total:,} ({total / 1e9:.2f} B)"),
        (memory, f"{size.bank_bytes:,} bytes"),
        ("open segment of a row", f"{size.segment_bytes:,} bytes"),
    ]
