"""`lm2 eval mmlu MODEL ...`: MMLU through lm-evaluation-harness, from the hub or from CSV files."""

from lm2.evaluation.options import MmluOptions as Options

EXAMPLES = (
    "lm2 eval mmlu smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --data mmlu.zip",
    "lm2 eval mmlu smollm2-lm2 --data mmlu.zip --limit 10 --subjects anatomy virology --out runs/quick",
    "lm2 eval mmlu HuggingFaceTB/SmolLM2-135M --batch-size 8 --anchors",
)
STOPPED = "Finished subjects are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Evaluate, and print the tables."""
    from lm2.evaluation import mmlu

    mmlu.run(options)
