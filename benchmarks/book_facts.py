"""What a model of `lm2 train books` knows of people after so many segments of books that it has not seen.

    python benchmarks/book_facts.py --run runs/books --books books/test.jsonl.gz

Right answers when the fact lies in an earlier segment than the question: of the model, of the model given the last
segment alone, and of the run's backbone, which has no memory and sees that segment alone. One thread, minutes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from lm2 import LM2ForCausalLM
from lm2.data.babi import Sample, samples
from lm2.data.background import BookSentences
from lm2.data.people import Stories
from lm2.data.pool import TokenPool
from lm2.data.rows import evaluation_samples
from lm2.demo.evaluation import answer, last_segment
from lm2.recipes.plan import last_model

LENGTHS = {2: 200, 4: 200, 16: 200, 64: 100}
"""Questions at each number of segments."""
STORIES, STORY_SEED, POOL_SEED, PLACE_SEED = 3000, 99, 5, 7


def main(run: Path, books: Path) -> None:
    """Print a line for each length."""
    torch.set_num_threads(1)
    model, backbone = LM2ForCausalLM.from_pretrained(run / "model").eval(), last_model(run / "backbone").eval()
    tokenizer, T = AutoTokenizer.from_pretrained(run / "model"), model.config.segment_length
    pool = TokenPool(BookSentences(books), tokenizer, POOL_SEED, n_tokens=200_000)
    for segments, n in LENGTHS.items():
        found = evaluation_samples("facts", n, segments * T, PLACE_SEED, tokenizer, pool, "earlier", T, questions())
        ids = torch.from_numpy(np.stack([sample.ids for sample in found]))
        right = torch.tensor([sample.answer_id for sample in found])
        last = last_segment(ids, T)
        shares = [
            (answer(each, texts, T) == right).float().mean().item()
            for each, texts in ((model, ids), (model, last), (backbone, last))
        ]
        constant = right.bincount().max().item() / n
        told = ", ".join(f"{100 * share:.1f}" for share in (*shares, constant))
        print(f"{segments} segments, {n} questions: model, its last segment, backbone, constant answer: {told} %")


def questions() -> list[Sample]:
    """The last question of each story."""
    stories = Stories(STORY_SEED)
    return [list(samples("facts", [stories[i]]))[-1] for i in range(STORIES)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/books"), help="folder of `lm2 train books`")
    parser.add_argument("--books", type=Path, required=True, help="books that it was not trained on")
    options = parser.parse_args()
    main(options.run, options.books)
