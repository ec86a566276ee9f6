"""`lm2 eval ruler MODEL ...`: RULER's tasks through lm-evaluation-harness."""

from lm2.evaluation.options import RulerOptions as Options

EXAMPLES = (
    "lm2 eval ruler smollm2-lm2 --lengths 1024 --limit 20",
    "lm2 eval ruler smollm2-lm2 plain=./smollm2 --tasks niah_single_1 ruler_vt --lengths 4096 8192",
)
STOPPED = "Finished tasks are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Ask, and print the table."""
    from lm2.evaluation import ruler

    ruler.run(options)
