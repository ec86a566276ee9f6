"""`lm2 demo`: train LM2, RMT and a plain model, and compare how far back they remember."""

from lm2.demo.config import DemoConfig as Options

EXAMPLES = (
    "lm2 demo",
    "lm2 demo --babi babi --books books",
)
STOPPED = "The last checkpoint is kept; the same command goes on from it."


def run(options: Options) -> None:
    """Train, evaluate, print the table."""
    from lm2.demo import runner

    runner.run(options)
