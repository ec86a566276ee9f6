"""Train the reproduction's LM2 on towards what it gets wrong: dropped things, rooms by direction, look-alikes.

    lm2 reproduce --babi babi --books books --out runs/reproduce
    python benchmarks/teach_babilong.py --run runs/reproduce [--folder runs/taught] [--out docs/results/teaching.json]

The rows have the tasks that need several facts more often, stories of qa2 that end where somebody dropped the thing and
moved on, every question that two facts of qa4 allow, and among their background sentences of the training books that
look like facts, as in `harden_babilong.py`. Beside the answers the model is asked what it needs on the way: at a fact
of taking or dropping where its actor is, of the output of the last block but one, so that it is known before the last
memory writes; at facts and questions of qa4 on which side of the other room, and at questions of qa2 and qa3 who has
the thing or left it, of the output of the block before. And it is told in which slots the first and the last memory
shall keep moves and things, and where they shall be looked for (`taught_rows.py`). The weight of all that falls to
nothing over the training (docs/log.md). The taught model is `lm2/model` in the folder.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from harden_babilong import FLOOR, TrainingOn, hard_pool, report, run_of
from taught_rows import TaughtRows, unpacked
from torch import Tensor

from lm2.analysis.trace import blocks_of
from lm2.data.babi import PLACES
from lm2.data.rows import IGNORED
from lm2.demo.recipe import Phase
from lm2.memory import LM2Memory
from lm2.reproduce import material, validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import sizes_of
from lm2.training.folder import MODEL_FOLDER, train_folder
from lm2.training.write_cost import fresh_rows, watched_gates

KINDS = ("pair", "dense", *3 * ("scattered",))
PHASES = (Phase(0.6, (1, 2, 4, 8, 16), KINDS, 128), Phase(0.4, (2, 8, 16, 32, 64), KINDS, 128))
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


@dataclass(frozen=True)
class Teaching:
    """A `training_forward`: answers as always, and in the loss what shall be known and where it shall be kept.

        loss = answers + (1 - step / steps) * (places + others + first + last) + pay(step) * mean(max(0, OPEN - rho))

    each a mean over its own labels (see `taught_rows`): a place is asked of the output of the last block but one, a
    side or a carrier of the one before, by the model's own norm and head; first and last are the cross entropies of the
    slots in those memories, of all heads. rho is the greatest of a memory's heads at the last words of facts.
    """

    steps: int
    places: tuple[int, ...]
    """Ids of the places"""
    stop: int
    """Id of the full stop, which ends facts and not questions"""

    def __call__(self, model: Any, batch: dict[str, Any], step: int) -> Any:
        ids_BL = batch["input_ids"][:, 1:]
        labels_BL, first_BL, last_BL = unpacked(batch["labels"][:, 1:])
        to_know_BL = (labels_BL != IGNORED) & (labels_BL != ids_BL)
        place_BL = to_know_BL & torch.isin(labels_BL, torch.tensor(self.places))
        answers_BL = F.pad(labels_BL.masked_fill(to_know_BL, IGNORED), (1, 0), value=IGNORED)
        own = {"labels": answers_BL, "num_items_in_batch": (answers_BL != IGNORED).sum()}
        memories = [block.memory for block in blocks_of(model)]
        with watched_gates(model) as rhos, watched_slots(memories[0]) as firsts, watched_slots(memories[-1]) as lasts:
            output = fresh_rows(model, {**batch, **own, "output_hidden_states": True}, step)
        states, output.hidden_states = output.hidden_states, None
        loss, weight = output.loss, 1 - step / self.steps
        for asked_BL, state_BLD in ((place_BL, states[-2]), (to_know_BL & ~place_BL, states[-3])):
            if asked_BL.any():
                logits_NV = model.lm_head(model.model.norm(state_BLD[:, :-1][asked_BL])).float()
                loss = loss + weight * F.cross_entropy(logits_NV, labels_BL[asked_BL])
        for slot_BL, scores in ((first_BL, firsts), (last_BL, lasts)):
            if (slot_BL != IGNORED).any():
                loss = loss + weight * misplaced(scores(slot_BL != IGNORED), slot_BL[slot_BL != IGNORED])
        facts_BL = to_know_BL & (ids_BL == self.stop)
        if (pay := PAY * max(0.0, 1 - step / (PAID_UNTIL * self.steps))) and facts_BL.any():
            loss = loss + pay * shortfall(rhos, facts_BL)
        output.loss = loss * ((batch["labels"][:, 1:] != IGNORED).sum() / batch["num_items_in_batch"])
        return output


def misplaced(scores_BHN: Tensor, slot_B: Tensor) -> Tensor:
    """The cross entropy of the slots, mean over tokens and heads; a small bank has fewer, and they begin anew."""
    wanted_BH = (slot_B % scores_BHN.shape[-1])[:, None].expand(scores_BHN.shape[:2])
    return F.cross_entropy(scores_BHN.flatten(0, 1), wanted_BH.flatten())


@contextmanager
def watched_slots(memory: LM2Memory) -> Generator[Callable[[Tensor], Tensor]]:
    """While open, keeps what the memory's last pass aligned, Q and K, and gives a function of it.

    That takes a mask of tokens, (R, L), and returns their scores Q K^T / sqrt(E) of the slots, (B, H, N), which they
    are both read and written with.
    """
    seen: dict[str, Tensor] = {}

    def scores(at_RL: Tensor) -> Tensor:
        q_RSTHE = seen["q"]
        row_B, column_B = at_RL.nonzero(as_tuple=True)
        segment_B, token_B = column_B // q_RSTHE.shape[2], column_B % q_RSTHE.shape[2]
        k_RSHNE = seen["k"].unflatten(0, q_RSTHE.shape[:2])  # of the read, which comes after the writes
        q_BHE, k_BHNE = q_RSTHE[row_B, segment_B, token_B], k_RSHNE[row_B, segment_B]
        return torch.einsum("bhe,bhne->bhn", q_BHE, k_BHNE) * q_BHE.shape[-1] ** -0.5

    with (
        memory.q_norm.register_forward_hook(lambda _, x, q: seen.update(q=q)),
        memory.k_norm.register_forward_hook(lambda _, x, k: seen.update(k=k)),
    ):
        yield scores


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
