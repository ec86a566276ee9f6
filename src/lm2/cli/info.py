"""`lm2 info MODEL`: how big a model and its state are, computed on the meta device (nothing is allocated)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lm2.folders import check_folder

if TYPE_CHECKING:
    from lm2 import LM2Config
    from lm2.sizes import Size

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
    from lm2.sizes import measure

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
    from lm2.sizes import measure_baseline

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    size = measure_baseline(config)
    return [
        ("kind", BASELINES[config.model_type]),
        ("family", config.backbone_config.model_type),
        ("blocks", str(config.backbone_config.num_hidden_layers)),
        ("memory tokens", str(config.memory_tokens)),
        *common_rows(config.segment_length, size, "memory of a row"),
    ]


def rows(config: "LM2Config", size: "Size") -> list[tuple[str, str]]:
    """The lines of the table for an LM2 model: what, and its value."""
    return [
        ("family", config.base_model_type),
        ("blocks / with memory", f"{config.num_hidden_layers} / {len(config.memory_indices)}"),
        ("slots x width", f"{config.memory_slots} x {config.hidden_size}"),
        *common_rows(config.segment_length, size, "banks of a row"),
    ]


def common_rows(segment_length: int, size: "Size", memory: str) -> list[tuple[str, str]]:
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
