"""`lm2 eval perplexity MODEL ... --text FILE`: what a memory saves, segment by segment."""

from lm2.evaluation.options import PerplexityOptions as Options

EXAMPLES = (
    "lm2 eval perplexity smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --text books/test.jsonl.gz",
    "lm2 eval perplexity smollm2-lm2 --text novel.txt --segments 16 --out runs/novel",
)
STOPPED = "Finished documents are kept; the same command goes on with the others."


def run(options: Options) -> None:
    """Measure, and print the table."""
    from lm2.evaluation import perplexity

    perplexity.run(options)
