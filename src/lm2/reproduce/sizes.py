"""Every number of the reproduction, in one place; docs/decisions/006-cpu-reproduction.md says why."""

from dataclasses import dataclass, field, replace

from lm2.demo.recipe import Phase, Recipe
from lm2.reproduce.config import TASKS

CONTENDERS = ("lm2", "armt", "rmt", "plain")
"""In the order in which they start: on two processors the four then end at about the same time."""
NAMES = {"base": "base", "lm2": "LM2", "rmt": "RMT", "armt": "ARMT", "plain": "plain"}
MEMORIES = ("lm2", "rmt", "armt")
ALONE = 0.5
"""Share of the training steps that a task has which is learned alone."""


@dataclass(frozen=True)
class Cells:
    """Questions that are asked: so many samples of every task at each length."""

    tasks: tuple[str, ...]
    samples: dict[str, int]
    """By length"""

    @property
    def lengths(self) -> tuple[str, ...]:
        return tuple(self.samples)

    def of(self, tasks: tuple[str, ...]) -> "Cells":
        """Those of these tasks; perhaps none."""
        return replace(self, tasks=tuple(task for task in tasks if task in self.tasks))


@dataclass(frozen=True)
class Sizes:
    """What is trained, for how long, and what is asked."""

    recipe: Recipe
    """Backbone, LM2's memory, RMT's tokens, steps and curriculum"""
    quiet_segments: int = 8
    """Segments of background alone that LM2 reads beside the rows of each step; the price on its writes is on these"""
    write_tokens: int = 10
    """ARMT's write tokens, as published"""
    key_width: int = 16
    """d_mem of ARMT"""
    attention_segments: int = 16
    """Segments that the plain model attends over in training: the whole of the longest row"""
    rates: tuple[float, ...] = (3.75e-4, 7.5e-4)
    """Learning rates at which each contender begins; the one ahead goes on"""
    validation_rows: int = 600
    validation_segments: int = 8
    validations: int = 7
    """How often a contender is validated in training"""
    search_validations: int = 2
    """At which of them, counted from 1, it is known which rate is ahead"""
    tokenizer_texts: int = 8000
    pool_tokens: int = 1_500_000
    """Tokens of background to train with; a fifth as many to validate with"""
    passages: int = 5
    passage_words: int = 8
    """Retrieval: so many passages of so many words, which is about a sentence"""
    max_new_tokens: int = 4
    main: Cells = field(
        default_factory=lambda: Cells(
            TASKS, {"0k": 200, "1k": 200, "2k": 200, "4k": 200, "8k": 50, "16k": 50, "32k": 20}
        )
    )
    far: Cells = field(default_factory=lambda: Cells(("qa1",), {"64k": 50, "128k": 50}))
    controls: Cells = field(default_factory=lambda: Cells(TASKS, {"0k": 50, "1k": 50, "2k": 50, "4k": 50}))
    """Asked also with the memory reset, frozen and exchanged"""
    others: dict[str, int] = field(default_factory=lambda: {"0k": 200, "1k": 200, "2k": 200, "4k": 200})
    """Samples by length where there is a task beyond qa5, instead of those of `main`"""
    claimed: tuple[str, ...] = ("1k", "2k", "4k", "8k")
    """Lengths that the claim averages over"""


FULL = Sizes(
    Recipe(
        segment_length=64,
        vocabulary=4096,
        hidden_size=64,
        intermediate_size=170,
        layers=4,
        memory={"memory_slots": 32, "memory_layers": [1, 2, 3], "memory_heads": 4, "look_back": 12},
        memory_tokens=16,
        rope_theta=10_000.0,
        output_scale=8**-0.5,  # two for each block write there
        schedule="linear",
        base_steps=5000,
        steps=3500,
        write_cost=100.0,
        write_cost_rise=(0.4, 0.8),
    )
)
_QUICK = (Phase(0.5, (2,), ("repeated",)), Phase(0.5, (1, 2), ("dense", "scattered")))
SMOKE = Sizes(
    replace(
        FULL.recipe,
        vocabulary=1024,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        memory={"memory_slots": 4, "memory_layers": [1], "memory_heads": 2, "look_back": 4},
        memory_tokens=2,
        heads=2,
        base_steps=4,
        steps=4,
        phases=_QUICK,
    ),
    quiet_segments=2,
    write_tokens=2,
    key_width=4,
    attention_segments=2,
    rates=(1e-3, 3e-3),
    validation_rows=10,
    validation_segments=2,
    validations=4,
    tokenizer_texts=500,
    pool_tokens=20_000,
    max_new_tokens=1,
    main=Cells(TASKS, {"0k": 2, "1k": 2}),
    far=Cells(("qa1",), {"2k": 2}),
    controls=Cells(TASKS[:1], {"0k": 2, "1k": 2}),
    others={"0k": 2, "1k": 2},
    claimed=("1k",),
)


def recipe_of(sizes: Sizes, name: str) -> Recipe:
    """The recipe of a contender's training.

    What LM2 reads of quiet text the others have as more steps, so that all read about as many tokens.
    """
    more = 0.0 if name == "lm2" else sizes.quiet_segments / max(phase.rows for phase in sizes.recipe.phases)
    return replace(sizes.recipe, steps=round(sizes.recipe.steps * (1 + more)))


def validation_steps(sizes: Sizes, name: str) -> int:
    """Steps of a contender's training between validations."""
    return max(1, recipe_of(sizes, name).steps // sizes.validations)


def search_steps(sizes: Sizes, name: str) -> int:
    """Steps of a contender's training at each learning rate of the search."""
    return sizes.search_validations * validation_steps(sizes, name)


def sizes_of(smoke: bool, tasks: tuple[str, ...] = TASKS) -> Sizes:
    """The sizes of a run of these tasks."""
    return of_tasks(SMOKE if smoke else FULL, tasks)


def of_tasks(sizes: Sizes, tasks: tuple[str, ...]) -> Sizes:
    """The sizes of a run of these tasks, from those of one of qa1 to qa5."""
    if tasks == sizes.main.tasks:
        return sizes
    share, recipe = ALONE if len(tasks) == 1 else 1.0, sizes.recipe
    samples = sizes.main.samples if set(tasks) <= set(TASKS) else sizes.others
    return replace(
        sizes,
        recipe=replace(recipe, base_steps=round(share * recipe.base_steps), steps=round(share * recipe.steps)),
        main=Cells(tasks, samples),
        far=sizes.far.of(tasks),
        controls=sizes.controls.of(tasks),
        claimed=tuple(length for length in sizes.claimed if length in samples),
    )
