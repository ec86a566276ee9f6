"""`lm2 train books`: a model that reads books and remembers what they say of people."""

from lm2.recipes.options import BooksOptions as Options

EXAMPLES = (
    "lm2 train books --books books/train.jsonl.gz",
    "lm2 train books --base SmolLM2-135M-Instruct.gguf --segment-length 256 --look-back 16 --bf16 --dry-run",
)
STOPPED = "Checkpoints are kept: the same command goes on from the last one, if there is one yet."


def run(options: Options) -> None:
    """Train, or say what would be done."""
    from lm2.recipes.books import books
    from lm2.recipes.launch import launch

    launch(books, options)
