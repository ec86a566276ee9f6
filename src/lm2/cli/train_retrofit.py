"""`lm2 train retrofit`: give a pretrained model a memory and train it."""

from lm2.recipes.options import RetrofitOptions as Options

EXAMPLES = (
    "lm2 train retrofit --base SmolLM2-135M-Instruct.gguf --data data/books --out runs/smollm2-lm2",
    "lm2 train retrofit --base ./llama-3.2-1b --data data/web --train-base lora --segments 4 8 --dry-run",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.launch import launch
    from lm2.recipes.retrofit import retrofit

    launch(retrofit, options)
