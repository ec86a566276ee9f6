"""`lm2 train finetune-babilong`: bAbI's questions in long texts."""

from lm2.recipes.options import BabilongOptions as Options

EXAMPLES = (
    "lm2 train finetune-babilong --model runs/retrofit/model --tasks qa1 --background books/train.jsonl.gz",
    "lm2 train finetune-babilong --tasks qa1 qa2 qa3 --babi babi --background books --roll-outs --dry-run",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.finetune import finetune_babilong
    from lm2.recipes.launch import launch

    launch(finetune_babilong, options)
