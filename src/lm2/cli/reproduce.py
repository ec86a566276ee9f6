"""`lm2 reproduce`: LM2, RMT, ARMT, plain attention and retrieval on BABILong at equal budget, on a processor."""

from lm2.reproduce.config import ReproduceConfig as Options

EXAMPLES = (
    "lm2 reproduce --babi babi --books books",
    "lm2 reproduce --babi babi --books books --full",
    "lm2 reproduce --tasks qa6 qa7 qa8 qa9 qa10 --out runs/others",
    "lm2 reproduce --full --dry-run",
    "lm2 reproduce --smoke --out runs/smoke",
)
STOPPED = "Everything that was done is kept; the same command goes on."


def run(options: Options) -> None:
    """Do what is missing, write and print the results."""
    from lm2.reproduce import runner

    runner.run(options)
