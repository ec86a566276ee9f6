"""`lm2 train sft`: conversations about long documents."""

from lm2.recipes.options import SftOptions as Options

EXAMPLES = (
    "lm2 train sft --model runs/retrofit/model --data chat.jsonl",
    "lm2 train sft --data chat.jsonl --segments 32 --rows 8 --accumulation 8 --dry-run",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.finetune import sft
    from lm2.recipes.launch import launch

    launch(sft, options)
