"""`lm2 train pretrain-tiny`: a small model from nothing."""

from lm2.recipes.options import PretrainTinyOptions as Options

EXAMPLES = (
    "lm2 train pretrain-tiny --data data/books",
    "lm2 train pretrain-tiny --data data/books --steps 200 --segments 1 4 --out runs/try",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.launch import launch
    from lm2.recipes.pretrain import pretrain_tiny

    launch(pretrain_tiny, options)
