"""`lm2 eval babilong MODEL...`: answers to BABILong's questions, a report, and its pictures."""

from lm2.evaluation.config import BabilongConfig as Options

EXAMPLES = (
    "lm2 eval babilong smollm2-lm2 --babi babi --background books/test.jsonl.gz",
    "lm2 eval babilong plain=SmolLM2-135M-Instruct.gguf rag=SmolLM2-135M-Instruct.gguf@rag:5 --chat --instruction"
    " --examples --post-prompt --tasks qa1 qa2 --lengths 0k 1k --samples 50 --anchors",
)
STOPPED = "Answers are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Ask, then write and print the report."""
    from lm2.evaluation import babilong_run

    babilong_run.run(options)
