"""Train the reproduction's LM2 on towards what it gets wrong: dropped things, rooms by direction, look-alikes.

    lm2 reproduce --babi babi --books books --out runs/reproduce
    python benchmarks/teach_babilong.py --run runs/reproduce [--folder runs/taught] [--out docs/results/teaching.json]

The rows have the tasks that need several facts more often, stories of qa2 that end where somebody dropped the thing and
moved on, every question that two facts of qa4 allow, and among their background sentences of the training books that
look like facts, as in `harden_babilong.py`. Beside the answers the model is asked what it needs on the way: at a fact
of taking or dropping where its actor is, of the output of the last block but one, so that it is known before the last
memory writes; at facts and questions of qa4 on which side of the other room, and at questions of qa2 and qa3 who has
the thing or brought it there, of the output of the block before. The weight of these falls to nothing over the training
(docs/log.md). The taught model is `lm2/model` in the folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from harden_babilong import FLOOR, TrainingOn, hard_pool, report, run_of
from torch import Tensor

from lm2.data.babi import MOVE, PLACES, Question, Story
from lm2.data.rooms import OPPOSITE
from lm2.data.rows import IGNORED, Encoder, Item
from lm2.data.world import DROP, TAKE
from lm2.demo.recipe import Phase
from lm2.reproduce import material, validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.rows import JointRows
from lm2.reproduce.sizes import sizes_of
from lm2.training.folder import MODEL_FOLDER, train_folder
from lm2.training.write_cost import fresh_rows, watched_gates

TASKS = ("qa1", *3 * ("qa2",), *3 * ("qa3",), *2 * ("qa4",), "qa5")
"""A row's task is one of these."""
KINDS = ("pair", "dense", *3 * ("scattered",))
PHASES = (Phase(0.6, (1, 2, 4, 8, 16), KINDS, 128), Phase(0.4, (2, 8, 16, 32, 64), KINDS, 128))
MOVED_ON, BESIDE = 0.6, 0.5
"""Shares of qa2's stories that shall end with a dropped thing whose carrier moved on, and of qa4's whose facts both end
with the same room, so that the direction decides."""
DRAWS = 6
"""Stories that are drawn for one such."""
OPEN, PAY, PAID_UNTIL = 0.95, 0.1, 0.4
"""A gate whose rho at a labelled token is below the first costs the second for each unit, which falls to nothing over
the third, a share of the steps."""
EVERY = 200
"""Steps between checkpoints, at which held-out rows are asked."""


@dataclass(frozen=True)
class Options(TrainingOn):
    """Train a finished reproduction's LM2 on towards what it gets wrong."""

    folder: Path = Path("runs/taught")
    """Model, checkpoints and log; the same command goes on with what is in it"""
    share: float = 0.1
    """Before so many of the background's sentences stands a hard one"""
    steps: int = 4800
    """Steps of the training"""


def moved_on(facts: Sequence[str], question: Question) -> bool:
    """Whether a dropped thing is asked for whose carrier has moved since."""
    for index in question.support:
        actor, _, deed = facts[index].partition(" ")
        if deed.startswith(DROP):
            return any(fact.startswith(tuple(f"{actor} {verb}" for verb in MOVE)) for fact in facts[index + 1 :])
    return False


def places(facts: Sequence[str], asked: Sequence[tuple[int, Question]]) -> list[str | None]:
    """Of each fact of taking or dropping where its actor was before it, None where that was not told.

    Also of each move where qa3 asks, and of no fact where no question asks for a place.
    """
    asks_where = any(question.text.startswith("Where is the") for _, question in asked)
    asks_before = any(question.text.startswith("Where was the") for _, question in asked)
    needed = (*(TAKE + DROP if asks_where or asks_before else ()), *(MOVE if asks_before else ()))
    at: dict[str, str] = {}
    found = []
    for fact in facts:
        actor, _, deed = fact.rstrip(".").partition(" ")
        found.append(at.get(actor) if deed.startswith(needed) else None)
        if deed.startswith(MOVE):
            at[actor] = deed.split()[-1]
    return found


def carrier(facts: Sequence[str], question: Question) -> str | None:
    """Who has the thing that qa2 asks for, or brought it to the place that qa3 names.

    None where it was dropped, and for the questions of other tasks.
    """
    deeds = [facts[index].rstrip(".").partition(" ") for index in question.support]
    if question.text.startswith("Where was the"):
        place = question.text.rstrip("?").split()[-1]
        return next((actor for actor, _, deed in deeds if deed.startswith(MOVE) and deed.endswith(f" {place}")), None)
    if question.text.startswith("Where is the") and not any(deed.startswith(DROP) for _, _, deed in deeds):
        return next((actor for actor, _, deed in deeds if deed.startswith(TAKE)), None)
    return None


class Told(str):
    """A fact, and what shall be known at its last word."""

    known: str | None

    @classmethod
    def of(cls, fact: str, known: str | None) -> "Told":
        told = cls(fact)
        told.known = known
        return told


@dataclass(frozen=True, slots=True)
class Asked(Question):
    """A question, and what shall be known at its last word, before the answer."""

    known: str | None

    @classmethod
    def of(cls, facts: Sequence[str], question: Question) -> "Asked":
        return cls(question.text, question.answer, question.support, carrier(facts, question))


def room_questions(facts: Sequence[str]) -> list[Asked]:
    """Every question that qa4 can ask of its facts, two forms of each: known shall be on which side it looks."""
    found = []
    for index, fact in enumerate(facts):
        _, room, _, side, *_, other = fact.rstrip(".").split()
        found.append(Asked(f"What is {side} of the {other}?", room, (index,), side))
        found.append(Asked(f"What is the {other} {OPPOSITE[side]} of?", room, (index,), side))
    return found


class TaughtEncoder(Encoder):
    """Labels the mark behind a fact or a question with what shall be known at its last word."""

    def item(self, event: str | Question) -> Item:
        ids, labels = super().item(event)
        if isinstance(event, Told | Asked) and event.known is not None:
            mark = len(self(f" {event.text}" if isinstance(event, Asked) else f" {event}")) - 1
            labels = labelled(labels, mark, self(f" {event.known}"))
        return ids, labels


def labelled(labels: Sequence[int], at: int, label: Sequence[int]) -> list[int]:
    """The labels with another one at a place."""
    return [*labels[:at], *label, *labels[at + 1 :]]


class TaughtRows(JointRows):
    """The reproduction's rows, with more of what LM2 gets wrong and with labels at facts."""

    def __init__(self, tokenizer: Any, pool: Any, segment_length: int, stories: Any):
        super().__init__(tokenizer, pool, segment_length, stories)
        self.tasks, self.encode = TASKS, TaughtEncoder(tokenizer)

    def _story(self, task: str, n_facts: int, draw: np.random.Generator) -> Story:
        story = super()._story(task, n_facts, draw)
        if task == "qa2" and draw.random() < MOVED_ON:
            return self._that_moved_on(story, n_facts, draw)
        if task == "qa4" and draw.random() < BESIDE:
            for _ in range(DRAWS):
                if len({fact.split()[-1] for fact in story.facts}) < len(story.facts):
                    break
                story = super()._story(task, 2, draw)
        return story

    def _that_moved_on(self, story: Story, n_facts: int, draw: np.random.Generator) -> Story:
        """A story up to its last question for what was left behind, where a few draws give one."""
        for _ in range(DRAWS):
            for last, (at, question) in reversed([*enumerate(story.questions)]):
                if moved_on(story.facts[:at], question):
                    return Story(story.facts[:at], story.questions[: last + 1])
            story = super()._story("qa2", n_facts, draw)
        return story

    def _written(self, story: Story, n_questions: int, width: int, draw: np.random.Generator) -> Item | None:
        facts = story.facts
        if " of the " in facts[0]:
            every, known = room_questions(facts), [fact.split()[3] for fact in facts]
            asked = tuple((len(facts), every[i]) for i in draw.permutation(len(every)))
        else:
            asked = tuple((at, Asked.of(facts, question)) for at, question in story.questions)
            known = places(facts, asked)
        return super()._written(Story(tuple(map(Told.of, facts, known)), asked), n_questions, width, draw)

    def _closing(self, question: Question) -> Item:
        ids, labels = super()._closing(question)
        if isinstance(question, Asked) and question.known is not None:
            labels = labelled(labels, len(ids) - 3, self.encode(f" {question.known}"))  # answer and end token follow
        return ids, labels


@dataclass(frozen=True)
class Teaching:
    """A `training_forward`: answers as always, and in the loss what shall be known at facts and questions.

        loss = answers + (1 - step / steps) * (places + others) + pay(step) * mean(max(0, OPEN - rho))

    each a mean over its own labels: a place is asked of the output of the last block but one, a side or a carrier of
    the one before, by the model's own norm and head. rho is the greatest of a memory's heads at the last words of
    facts. What is to be known is told from answers by being another token than the one it stands at.
    """

    steps: int
    places: tuple[int, ...]
    """Ids of the places"""
    stop: int
    """Id of the full stop, which ends facts and not questions"""

    def __call__(self, model: Any, batch: dict[str, Any], step: int) -> Any:
        ids_BL, labels_BL = batch["input_ids"][:, 1:], batch["labels"][:, 1:]
        to_know_BL = (labels_BL != IGNORED) & (labels_BL != ids_BL)
        place_BL = to_know_BL & torch.isin(labels_BL, torch.tensor(self.places))
        answers_BL = batch["labels"].masked_fill(F.pad(to_know_BL, (1, 0)), IGNORED)
        own = {"labels": answers_BL, "num_items_in_batch": (answers_BL != IGNORED).sum()}
        with watched_gates(model) as rhos:
            output = fresh_rows(model, {**batch, **own, "output_hidden_states": True}, step)
        states, output.hidden_states = output.hidden_states, None
        loss, weight = output.loss, 1 - step / self.steps
        for asked_BL, state_BLD in ((place_BL, states[-2]), (to_know_BL & ~place_BL, states[-3])):
            if asked_BL.any():
                logits_NV = model.lm_head(model.model.norm(state_BLD[:, :-1][asked_BL])).float()
                loss = loss + weight * F.cross_entropy(logits_NV, labels_BL[asked_BL])
        facts_BL = to_know_BL & (ids_BL == self.stop)
        if (pay := PAY * max(0.0, 1 - step / (PAID_UNTIL * self.steps))) and facts_BL.any():
            loss = loss + pay * shortfall(rhos, facts_BL)
        output.loss = loss * ((labels_BL != IGNORED).sum() / batch["num_items_in_batch"])
        return output


def shortfall(rhos: Sequence[Tensor], at_BL: Tensor) -> Tensor:
    """How much the greatest rho of each memory's heads lacks to OPEN, mean over the tokens and memories."""
    rows, length = at_BL.shape
    greatest = [rho.amax(-1).reshape(rows, -1)[:, :length][at_BL] for rho in rhos]
    return (OPEN - torch.stack(greatest)).clamp(min=0).mean()


def teach(options: Options, config: ReproduceConfig, folder: Path) -> None:
    """Train on, from the last checkpoint; a training that is done is left as it is."""
    if (folder / MODEL_FOLDER).exists():
        return
    sizes, tokenizer = sizes_of(config.smoke, config.tasks), material.load_tokenizer(config)
    plain = material.training_rows(config, sizes)
    rows = TaughtRows(tokenizer, hard_pool(options, config, plain.pool, FLOOR), plain.T, plain.stories)
    recipe = replace(sizes.recipe, steps=options.steps, learning_rate=options.learning_rate, phases=PHASES)
    teaching = Teaching(options.steps, tuple(rows.encode(f" {place}")[0] for place in PLACES), rows.encode(".")[0])
    run, tokens = run_of(config, recipe, rows, options.before, folder, options.seed, teaching)
    validator = validation.Validator(*validation.held_out(material.validation_rows(config, sizes), sizes), folder)
    run = replace(run, evaluation=validator, evaluation_every=EVERY, save_every=EVERY)
    validator.start()
    train_folder(run, tokenizer, tokens)


def main(options: Options) -> None:
    """Teach, and measure before and after."""
    options.check((options.steps >= 2, f"--steps is {options.steps}: at least 2, one for each phase"))
    config, folder = options.begin("teaching"), options.folder / "lm2"
    teach(options, config, folder)
    report(options, config, {"before": options.before, "taught": folder})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
