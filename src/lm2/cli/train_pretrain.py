"""`lm2 train pretrain-lm2-1.7b`: the paper's model from nothing."""

from lm2.recipes.options import PretrainOptions as Options

EXAMPLES = (
    "lm2 train pretrain-lm2-1.7b --dry-run",
    "lm2 train pretrain-lm2-1.7b --data data/smollm --fsdp --accumulation 2",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.launch import launch
    from lm2.recipes.pretrain import pretrain_lm2_1_7b

    launch(pretrain_lm2_1_7b, options)
