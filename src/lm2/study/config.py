"""What a bake-off of write rules runs: names and plain values (this module is read for `--help`, so it loads no torch).

A variant is a rival, or any number of parts joined by "+": parts of the write rule and measures of training, each
changing one thing of the default. "default" changes nothing.
"""

import difflib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

DEFAULT = "default"

RULE_PARTS = {
    "mean": "the offers of a segment are averaged, in any order, with mass 1 - exp(-sum)",
    "steep": "the slope of the offer is not bounded",
    "to-zero": "what is forgotten goes to zero, not back to the row's start",
    "transposed": "slots query the tokens: softmax over tokens, mass 1",
    "transposed-null": "the same with a null token (null logit + ln T), mass 1 - its share",
    "convex": "convex gates, f = 1 - i",
    "no-clip": "rows are not bounded",
    "no-mass": "mass 1 for every slot in every segment",
    "addresses": "a learned address per slot added to the keys",
    "no-rho": "every token is worth writing",
    "spread-forget": "forget biases log U(1, 1024) instead of one value",
    "gates-offer-only": "gates read the offer alone, not the bank",
    "no-look-back": "a segment sees nothing of the one before (qa1, qa2; once never has a look-back)",
}
"""Parts of the write rule, and of what it is given."""
MEASURES = {
    "free-writes": "no price on writing (the others pay 0.05 x mean rho, as the demo does)",
    "fixed-count": "every training row has 16 segments",
    "roll-outs": "bank alone walks through cached noise segments, with gradient",
    "carried": "half of the rows start from another row's bank",
    "burn-in": "bank walks through noise segments without gradient, which is passed straight through",
}
RIVALS = {
    "rmt": "RMT, the same tokens",
    "rmt-equal-time": "RMT, the processor time of the default",
    "plain": "the backbone segment by segment, without memory",
}
EXCLUSIVE = (
    ("mean", "transposed", "transposed-null"),
    ("convex", "no-clip", "to-zero"),
    ("roll-outs", "carried", "burn-in"),
)
"""Parts that change the same thing; a variant has at most one of each group."""
TaskName = Literal["once", "qa1", "qa2"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Size of the models and the training; equal for all variants."""

    width: int = 64
    """Width of the blocks."""
    slots: int = 16
    """Memory slots, and RMT's memory tokens."""
    blocks: int = 4
    """Rows of 16 segments in a training step; shorter rows are more."""
    base_steps: int = 1600
    """Steps of the backbone on single segments, from which all variants of a task and seed start."""
    steps: int = 2000
    """Steps of each variant."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    samples: int = 200
    """Questions at each length, half as many at the greatest."""
    longest: int | None = None
    """Greatest number of segments in the evaluation; the task's own (1024 or 256) when not given."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Sizes):
    """Train variants of the write rule from the same backbones on the same rows, and compare how long they remember.

    A variant is a rival (rmt, rmt-equal-time, plain), "default", or parts of the rule and measures of training
    joined by "+", such as "mean+carried". Finished runs are kept and not run again.

    Raises:
        ValueError: an unknown variant or a number out of range.
    """

    variants: tuple[str, ...] = (DEFAULT, *RULE_PARTS, *MEASURES, *RIVALS)
    """What is compared."""
    tasks: tuple[TaskName, ...] = ("once", "qa1", "qa2")
    """once: a fact told once, then noise; qa1, qa2: simulated stories in background text."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and training rows; all are evaluated on the same questions."""
    out: Path = Path("runs/write-rules")
    """Folder for runs and their results."""
    table: Path = Path("docs/results/write_rules.md")
    """Where the tables are written."""
    jobs: int = 2
    """Runs at a time, each on one thread."""

    def __post_init__(self):
        for name in ("width", "slots", "blocks", "base_steps", "steps", "samples", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, and it is {getattr(self, name)}")
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8 (four heads of an even width), and it is {self.width}")
        if not (self.variants and self.tasks and self.seeds):
            raise ValueError("variants, tasks and seeds need at least one entry each")
        for variant in self.variants:
            check_variant(variant)


@dataclass(frozen=True, kw_only=True)
class Job(Sizes):
    """One run: a variant (or the backbone, "base") on one task with one seed."""

    variant: str
    task: TaskName
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """What a run is called where several are told."""
        return f"{self.task} seed {self.seed} {self.variant}"

    @property
    def folder(self) -> Path:
        """Checkpoints, the log and what the run printed as errors."""
        return self.out / self.task / f"seed-{self.seed}" / self.variant

    @property
    def result(self) -> Path:
        """The file whose existence says that the run is finished."""
        return self.folder.with_name(f"{self.variant}.json")

    @property
    def needs(self) -> tuple[str, ...]:
        """Variants of the same task and seed that must be finished before."""
        return {BASE: (), "rmt-equal-time": (BASE, DEFAULT, "rmt")}.get(self.variant, (BASE,))

    def other(self, variant: str) -> "Job":
        """The same run of another variant."""
        return replace(self, variant=variant)

    def values(self) -> dict[str, Any]:
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as JSON values."""
        return {name: value for name, value in self.values().items() if name != "out"}


BASE = "base"


def plan(config: StudyConfig) -> list[Job]:
    """Every run of a study in the order in which they start, what others need first."""
    sizes: dict[str, Any] = {name: getattr(config, name) for name in Sizes.__dataclass_fields__}
    wanted = [BASE, *config.variants]
    if "rmt-equal-time" in wanted:
        wanted[1:1] = [DEFAULT, "rmt"]
    return [
        Job(variant=variant, task=task, seed=seed, out=config.out, **sizes)
        for seed in dict.fromkeys(config.seeds)
        for variant in dict.fromkeys(wanted)
        for task in dict.fromkeys(config.tasks)
    ]


def check_variant(variant: str) -> None:
    """Raise unless `variant` is a rival, the default, or parts joined by "+".

    Raises:
        ValueError: with the nearest name.
    """
    if variant in RIVALS or variant == DEFAULT:
        return
    known = (*RULE_PARTS, *MEASURES)
    parts = variant.split("+")
    for part in parts:
        if part not in known:
            names = (*known, *RIVALS, DEFAULT) if len(parts) == 1 else known
            nearest = difflib.get_close_matches(part, names, n=1)
            remedy = f"perhaps you meant {nearest[0]!r}" if nearest else f"choose among {', '.join(names)}"
            raise ValueError(f"there is no variant {part!r}: {remedy}")
    for group in EXCLUSIVE:
        if len(both := [part for part in parts if part in group]) > 1:
            raise ValueError(f"{' and '.join(both)} in {variant!r} change the same thing: name one of them")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{variant!r} names a part twice: name each once")


def describe(variant: str) -> str:
    """What a variant changes, in words."""
    texts = {
        DEFAULT: "the rule of lm2.memory, random numbers of segments, a price on writing",
        **RULE_PARTS,
        **MEASURES,
        **RIVALS,
    }
    return "; ".join(texts[part] for part in variant.split("+"))
