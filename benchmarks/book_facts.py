"""What a model of `lm2 train books` knows of people after so many segments of books that it has not seen.

    python benchmarks/book_facts.py --run runs/books --books books/test.jsonl.gz [--out docs/results/book_facts.json]

Right answers when the fact lies in an earlier segment than the question: of the model, of the model given the last
segment alone, of the run's backbone, which has no memory and sees that segment alone, and of the constant answers: the
best one for each of the six questions, chosen with the answers known. Questions whose text tells the same of another
person, too ("Alma lives in Rome."), are counted by themselves: without names they are a guess. One thread, 10 minutes.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lm2.data.babi import Sample, samples
from lm2.data.background import BookSentences
from lm2.data.people import RELATIONS, Stories
from lm2.data.pool import TokenPool
from lm2.data.rows import EvaluationSample, evaluation_samples
from lm2.demo.evaluation import answer, last_segment
from lm2.environment import environment
from lm2.evaluation.page import DASH, interval, table
from lm2.evaluation.statistics import wilson
from lm2.files import write_json
from lm2.recipes.plan import last_model

STORIES, STORY_SEED, POOL_SEED, PLACE_SEED = 30_000, 99, 5, 7
MODELS = ("the model", "its last segment alone", "the backbone")


@dataclass(frozen=True)
class Options:
    """Ask a model of `lm2 train books` about people in books that it has not seen"""

    books: Path
    """Books that it was not trained on"""
    run: Path = Path("runs/books")
    """Folder of `lm2 train books`"""
    segments: tuple[int, ...] = (2, 4, 16, 64, 256, 1024, 4096)
    """Lengths of the texts"""
    samples: tuple[int, ...] = (1000, 1000, 1000, 400, 200, 50, 10)
    """Questions at each length"""
    out: Path | None = None
    """JSON file for the numbers"""

    def check(self) -> None:
        """Raises ValueError where lengths and numbers of questions do not belong together."""
        if len(self.segments) != len(self.samples):
            raise ValueError(
                f"--segments are {len(self.segments)} and --samples {len(self.samples)}: as many of one as of the other"
            )


def main(options: Options) -> None:
    """Ask, and print a table."""
    options.check()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(options.run / "model").eval()
    backbone, T = last_model(options.run / "backbone").eval(), model.config.segment_length
    tokenizer = AutoTokenizer.from_pretrained(options.run / "model")
    n_tokens = max(200_000, 4 * max(options.segments) * T)
    pool = TokenPool(BookSentences(options.books), tokenizer, POOL_SEED, n_tokens)
    rows, of_stories = [], questions()
    for segments, n in zip(options.segments, options.samples, strict=True):
        found = evaluation_samples("facts", n, segments * T, PLACE_SEED, tokenizer, pool, "earlier", T, of_stories)
        rows.append({"segments": segments, **asked(found, model, backbone, T)})
    print(page(rows))
    if options.out is not None:
        write_json(options.out, {"environment": environment(), "books": options.books.name, "rows": rows})


def questions() -> list[Sample]:
    """The last question of each story."""
    stories = Stories(STORY_SEED)
    return [list(samples("facts", [stories[i]]))[-1] for i in range(STORIES)]


def asked(found: Sequence[EvaluationSample], model: PreTrainedModel, backbone: PreTrainedModel, T: int) -> dict:
    """Right answers of each, in all and of the questions where the same is told of others."""
    ids = torch.from_numpy(np.stack([sample.ids for sample in found]))
    right = torch.tensor([sample.answer_id for sample in found])
    last, alike = last_segment(ids, T), np.array([told_of_others(sample.sample) for sample in found])
    reads = zip(MODELS, (model, model, backbone), (ids, last, last), strict=True)
    hits = {name: (answer(each, texts, T) == right).numpy() for name, each, texts in reads}
    return {
        "questions": len(found),
        "alike": int(alike.sum()),
        "right": {name: int(hit.sum()) for name, hit in hits.items()},
        "right_alike": {name: int(hit[alike].sum()) for name, hit in hits.items()},
        "constant": constants([sample.sample for sample in found]),
    }


def kind(sentence: str) -> int:
    """Which of the six things a fact tells or a value is, by its number in RELATIONS."""
    said = set(sentence.removesuffix(".").split())
    (number,) = (i for i, relation in enumerate(RELATIONS) if said & set(relation.values))
    return number


def told_of_others(sample: Sample) -> bool:
    """Whether the text tells the same of another person, too."""
    return sum(kind(fact) == kind(sample.answer) for fact in sample.facts) > 1


def constants(asked_of: Sequence[Sample]) -> int:
    """Right answers when each of the six questions is always answered by what is right most often."""
    by_kind = defaultdict(Counter)
    for sample in asked_of:
        by_kind[kind(sample.answer)][sample.answer] += 1
    return sum(max(count.values()) for count in by_kind.values())


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table, in % with 95 % intervals."""
    head = ("segments", "questions", *MODELS, "constant answers", "told of others, too", "of these the model")
    body = []
    for row in rows:
        cells = [share(row["right"][name], row["questions"]) for name in MODELS]
        told = share(row["right_alike"][MODELS[0]], row["alike"])
        constant = f"{100 * row['constant'] / row['questions']:.1f}"
        body.append([f"{row['segments']}", f"{row['questions']:,}", *cells, constant, f"{row['alike']:,}", told])
    return table(head, body)


def share(hits: int, n: int) -> str:
    """Of so many, in %."""
    if not n:
        return DASH
    low, high = wilson(hits, n)
    return interval({"accuracy": hits / n, "low": low, "high": high})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
