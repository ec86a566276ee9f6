"""`lm2 eval needle MODEL ...`: a pass key in a long text, by depth and length."""

from lm2.evaluation.options import NeedleOptions as Options

EXAMPLES = (
    "lm2 eval needle smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --lengths 1024 4096",
    "lm2 eval needle smollm2-lm2 base=./smollm2@window:1024 --text books --samples 20 --out runs/books",
)
STOPPED = "Finished samples are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Ask, and print the tables."""
    from lm2.evaluation import needle

    needle.run(options)
