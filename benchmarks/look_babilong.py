"""Does `lm2 look` tell the truth? On BABILong it is known which facts an answer needs.

    python benchmarks/look_babilong.py models/lm2-babilong --babi babi --background books/test.jsonl.gz

Of each right answer: was the place that was read most written at a fact that supports the answer? And what becomes of
the answer when the text is read without writing at the supporting facts, at as many other places, or where most was
read?
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm2.analysis.asking import answer as greedy
from lm2.analysis.look import Text
from lm2.analysis.places import Places, encode
from lm2.analysis.results import Answer
from lm2.environment import environment
from lm2.evaluation.babilong import Sample
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.page import table
from lm2.evaluation.prompts import prompt_parts
from lm2.evaluation.scoring import is_right
from lm2.evaluation.statistics import wilson
from lm2.files import write_json
from lm2.progress import TimeLeft

AFTER = 40
"""A place is at a fact when it begins in it, or at most so many characters behind it."""
WITHOUT = 3
KEPT = 0.5
"""An answer is kept whose probability is above it."""


@dataclass(frozen=True)
class Options:
    """Look into answers whose supporting facts are known"""

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of an LM2 that answers BABILong's questions"""
    babi: Path | None = None
    """Folder or zip with the real bAbI tasks; simulated ones when not given"""
    background: Path | None = None
    """Books; generated sentences when not given"""
    tasks: tuple[str, ...] = ("qa1", "qa2", "qa3", "qa4", "qa5")
    length: str = "4k"
    samples: int = 50
    """Of each task"""
    max_new_tokens: int = 4
    seed: int = 0
    out: Path | None = None
    """JSON file for the numbers"""


@dataclass(frozen=True)
class Looked:
    """One question: the probabilities are of the answer, when nothing is left out and without places.

    supporting_places, places: how many were written at supporting facts, and in all. top_supports: whether the place
    that was read most is among the first.
    """

    task: str
    right: bool
    places: int
    supporting_places: int
    top_supports: bool
    whole: float
    without_supporting: float
    without_as_many_others: float
    without_top: float
    without_top_three: float
    without_control: float | None
    without_all: float


def examine(model: Any, tokenizer: Any, sample: Sample, config: BabilongConfig) -> Looked:
    """Ask a sample's question, and leave out places."""
    before, after = prompt_parts(sample.task, config.instruction, config.examples, config.post_prompt)
    followed = Text(model, tokenizer, encode(tokenizer, before + sample.context()))
    question = after.format(question=sample.question).rstrip()
    answer = followed.ask(question, WITHOUT, config.max_new_tokens)
    chosen = supporting(followed.places, sample)
    rest = [place for place in followed.written_P.argsort()[::-1].tolist() if place not in chosen]
    question_L = followed.question_L(question)
    answer_A = greedy(model, question_L, followed.trace.cache, config.max_new_tokens)
    without, without_others = followed.without(question_L, answer_A, [sorted(chosen), rest[: len(chosen)]])
    tried = [one.probability for one in answer.tried if not one.control]
    return Looked(
        task=sample.task,
        right=is_right("official", sample.task, sample.question, sample.target, answer.text),
        places=len(followed.places),
        supporting_places=len(chosen),
        top_supports=bool(chosen.intersection(answer.most_read(1))),
        whole=answer.probability,
        without_supporting=without,
        without_as_many_others=without_others,
        without_top=tried[0] if tried else answer.probability,
        without_top_three=answer.together,
        without_control=_control(answer),
        without_all=answer.nothing_written,
    )


def _control(answer: Answer) -> float | None:
    return next((one.probability for one in answer.tried if one.control), None)


def supporting(places: Places, sample: Sample) -> set[int]:
    """The places that are written at facts which the answer needs."""
    found, at, text = set[int](), 0, places.encoded.text
    starts = places.encoded.starts[places.first]
    for fact in sample.facts:
        at = text.index(fact.text, at)
        end = at + len(fact.text)
        if fact.supporting:
            found |= {i for i, start in enumerate(starts.tolist()) if at <= start < end + AFTER}
        at = end
    return found


def summary(found: Sequence[Looked]) -> dict[str, Any]:
    """Shares of the right answers, with their 95 % intervals."""
    right = [one for one in found if one.right]

    def share(hits: list[bool]) -> dict[str, Any]:
        return {"n": len(hits), "hits": sum(hits), "interval": wilson(sum(hits), len(hits))} if hits else {"n": 0}

    kept = ("whole", "without_control", "without_as_many_others", "without_supporting", "without_top")
    kept += ("without_top_three", "without_all")
    return {
        "asked": len(found),
        "places": sum(one.places for one in found) / len(found),
        "supporting_places": sum(one.supporting_places for one in found) / len(found),
        "top_supports": share([one.top_supports for one in right]),
        **{name: share([p > KEPT for one in right if (p := getattr(one, name)) is not None]) for name in kept},
    }


ROWS = {
    "top_supports": "most read is at a supporting fact",
    "whole": "answer kept: nothing left out",
    "without_control": "without the control, one place",
    "without_as_many_others": "without as many other places as supporting ones",
    "without_supporting": "without the places at supporting facts",
    "without_top": "without the place read most",
    "without_top_three": "without the three read most",
    "without_all": "without all",
}


def page(summaries: dict[str, dict[str, Any]]) -> str:
    """A table, tasks side by side: % of the right answers."""

    def cell(one: dict[str, Any]) -> str:
        if not one["n"]:
            return "-"
        low, high = one["interval"]
        return f"{100 * one['hits'] / one['n']:.0f} ({100 * low:.0f}-{100 * high:.0f})"

    rows = [["right answers", *(f"{one['whole']['n']} of {one['asked']}" for one in summaries.values())]]
    numbers = [f"{one['places']:.1f}, {one['supporting_places']:.1f}" for one in summaries.values()]
    rows += [["places written, at supporting facts", *numbers]]
    rows += [[text, *(cell(one[name]) for one in summaries.values())] for name, text in ROWS.items()]
    return table(["", *summaries], rows)


def main(options: Options) -> None:
    """Look into all samples, and print the table."""
    torch.set_num_threads(1)
    config = BabilongConfig(
        models=(),
        tasks=options.tasks,
        lengths=(options.length,),
        samples=(options.samples,),
        babi=options.babi,
        background=options.background,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    config.check()
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    samples = [sample for _, own in config.cells(config.source()) for sample in own]
    with TimeLeft() as bar:
        found = [examine(model, tokenizer, sample, config) for sample in bar.track(samples, description="looking")]
    summaries = {task: summary([one for one in found if one.task == task]) for task in options.tasks}
    print(page(summaries))
    if options.out is not None:
        settings = {**asdict(options), "model": options.model.name, "background": _name(options.background)}
        settings |= {"babi": _name(options.babi), "out": None}
        looked = [asdict(one) for one in found]
        write_json(options.out, {**settings, "environment": environment(), "by_task": summaries, "questions": looked})


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


if __name__ == "__main__":
    main(tyro.cli(Options))
