"""`lm2 study write-rules`: the bake-off of write rules and training measures."""

from lm2.study.config import StudyConfig as Options

EXAMPLES = (
    "lm2 study write-rules",
    "lm2 study write-rules --variants default mean convex+carried rmt --tasks once --seeds 0 --out runs/short",
)
STOPPED = "Finished runs are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Train and evaluate every run that has no result yet, then write the tables."""
    from lm2.study import write_rules

    write_rules.run(options)
