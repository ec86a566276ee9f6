"""The options of `lm2 eval mmlu`, `perplexity`, `needle` and `ruler`. Nothing heavy is imported: help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lm2.errors import at_least_one, each_once
from lm2.evaluation.config import Dtype
from lm2.evaluation.ruler_tasks import NOT_RUN, SAMPLES, SHORTEST, TASKS
from lm2.evaluation.subjects import GENERAL, SUBJECTS, check
from lm2.files import content_digest


@dataclass(frozen=True)
class ModelOptions:
    """What all evaluations need to know of their models."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Models, each [NAME=]SOURCE: a folder, a GGUF file or a hub name. `lm2 eval needle` also takes @KIND[:NUMBER]
    after it, as `lm2 eval babilong` does."""
    dtype: Dtype = field(default="auto", kw_only=True)
    """Precision of the weights; auto is float32 on a CPU and bfloat16 on a GPU."""
    device: str | None = field(default=None, kw_only=True)
    """Where to run, such as cuda:1; the GPU if there is one when not given."""


@dataclass(frozen=True)
class MmluOptions(ModelOptions):
    """Five-shot MMLU by log-likelihood, as lm-evaluation-harness does it (extra: harness).

    Prints and writes the harness's groups and average, and the eight rows of the LM2 paper, to OUT/mmlu.md and
    OUT/mmlu.json. Under torchrun or accelerate launch the subjects are shared out among the processes.
    """

    data: Path | None = None
    """Folder or zip with dev/ and test/ CSV files; the hub's data when not given."""
    subjects: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: all 57)")] = SUBJECTS
    """Subjects to ask."""
    general: Annotated[
        tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: those without a difficulty in their name)")
    ] = GENERAL
    """Subjects of the paper's row "general knowledge"."""
    shots: int = 5
    """Worked examples before each question, 0 to 5."""
    limit: int | None = None
    """Ask only the first so many questions of each subject."""
    batch_size: int = 1
    """Questions that run at once."""
    out: Path = field(default=Path("runs/mmlu"), kw_only=True)
    """Folder of the results; a run that was stopped goes on from what is there."""
    anchors: bool = field(default=False, kw_only=True)
    """Show the paper's numbers beside ours."""

    def __post_init__(self) -> None:
        check(self.subjects, "--subjects")
        check(self.general, "--general")
        if not 0 <= self.shots <= 5:
            raise ValueError(f"--shots is {self.shots}: MMLU has 5 worked examples a subject, give 0 to 5")
        at_least_one(self, "limit", "batch_size")

    def settings(self) -> dict[str, Any]:
        """What the answer to a question depends on, apart from the model."""
        if self.data is None:
            return {"evaluation": "mmlu", "data": "the hub (cais/mmlu)", "shots": self.shots}
        digest = content_digest(self.data, (".csv",))
        return {
            "evaluation": "mmlu",
            "data": f"CSV files in {self.data.name}",
            "data_digest": digest,
            "shots": self.shots,
        }


@dataclass(frozen=True)
class PerplexityOptions(ModelOptions):
    """Perplexity by the number of the segment in its document, with the memory carried and reset.

    Writes OUT/perplexity.md, .json and .png. A plain model is one row, under full attention up to the length that it
    takes. Under torchrun or accelerate launch the documents are shared out among the processes.
    """

    text: Path
    """A .txt file (one document), a .jsonl or .jsonl.gz file (a document a line, in `text`), or a folder of them."""
    segments: int = 64
    """Segments of each document to measure, from its start."""
    segment_length: int | None = None
    """Tokens of a segment; that of the models with a memory when not given, or 512."""
    limit: int | None = None
    """Measure only the first so many documents."""
    out: Path = field(default=Path("runs/perplexity"), kw_only=True)
    """Folder of the results; a run that was stopped goes on from what is there."""

    def __post_init__(self) -> None:
        at_least_one(self, "segments", "segment_length", "limit")
        if self.segment_length == 1:
            raise ValueError("--segment-length is 1: a segment needs 2 tokens, one to predict the other from")

    def settings(self, T: int) -> dict[str, Any]:
        """What a document's numbers depend on, apart from the model."""
        return {
            "evaluation": "perplexity",
            **_text(self.text),
            "segments": self.segments,
            "segment_length": T,
        }


@dataclass(frozen=True)
class NeedleOptions(ModelOptions):
    """Find what is told once in a long text, by the depth at which it lies and the length of the text.

    Writes OUT/needle.md, .json and a heat map. Under torchrun or accelerate launch the samples are shared out among the
    processes.
    """

    lengths: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Lengths of the whole prompt, in GPT-2 tokens."""
    depths: tuple[int, ...] = (0, 25, 50, 75, 100)
    """Per cent of the text before it."""
    samples: int = 10
    """Samples of each length and depth."""
    needle: Literal["passkey", "people"] = "passkey"
    """A pass key, or a fact about a person among nine about others (which `lm2 train books` trains for)."""
    text: Path | None = None
    """Books around it (.txt, .jsonl, .jsonl.gz or a folder); five sentences over and over when not given."""
    seed: int = 0
    """Seed of what is told and of the text."""
    chat: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the prompt as a user's message, in the model's chat format."""
    out: Path = field(default=Path("runs/needle"), kw_only=True)
    """Folder of the results; a run that was stopped goes on from what is there."""

    def __post_init__(self) -> None:
        outside = [depth for depth in self.depths if not 0 <= depth <= 100]
        if outside:
            raise ValueError(f"--depths names {outside[0]}: a depth is per cent of the text, 0 to 100")
        at_least_one(self, "samples")
        if not self.lengths or not self.depths:
            raise ValueError(f"there are {len(self.lengths)} lengths and {len(self.depths)} depths: give at least one")
        if min(self.lengths) < 1:
            raise ValueError(f"--lengths names {min(self.lengths)}: a length is tokens, at least 1")
        each_once("--lengths", self.lengths)
        each_once("--depths", self.depths)
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more")

    def settings(self) -> dict[str, Any]:
        """What a sample and the prompt depend on; cells can be added later."""
        text = {"text": "the paper's five sentences"} if self.text is None else _text(self.text)
        return {"evaluation": "needle", "needle": self.needle, **text, "seed": self.seed, "chat": self.chat}


@dataclass(frozen=True)
class RulerOptions(ModelOptions):
    """RULER's tasks that make their own texts, as lm-evaluation-harness runs them (extra: harness).

    Writes OUT/ruler.md and OUT/ruler.json. Under torchrun or accelerate launch the tasks are shared out among the
    processes.
    """

    tasks: tuple[str, ...] = TASKS
    """Tasks; the default are the six that need no download."""
    lengths: tuple[int, ...] = (4096,)
    """Lengths in the model's own tokens, its answer included."""
    limit: int | None = None
    """Only the first so many of the 500 samples of each task and length."""
    batch_size: int = 1
    """Samples that run at once."""
    seed: int = 0
    """Seed of the texts."""
    out: Path = field(default=Path("runs/ruler"), kw_only=True)
    """Folder of the results; a run that was stopped goes on from what is there."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"--tasks names 0 tasks: choose among {', '.join(TASKS)}")
        for task in self.tasks:
            if task in NOT_RUN:
                raise ValueError(f"{task} is not run here, {NOT_RUN[task]}: choose among {', '.join(TASKS)}")
            if task not in TASKS:
                raise ValueError(f"there is no RULER task {task!r}: choose among {', '.join(TASKS)}")
        if not self.lengths or min(self.lengths) < SHORTEST:
            raise ValueError(
                f"--lengths names {min(self.lengths, default=0)}: give {SHORTEST:,} tokens or more, since the prompts "
                "alone take hundreds"
            )
        if self.limit is not None and not 1 <= self.limit <= SAMPLES:
            raise ValueError(f"--limit is {self.limit}: a task has {SAMPLES} samples, give 1 to {SAMPLES}")
        at_least_one(self, "batch_size")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more, and below 2^32")
        each_once("--tasks", self.tasks)
        each_once("--lengths", self.lengths)

    def settings(self) -> dict[str, Any]:
        """What an answer depends on, apart from the model."""
        return {"evaluation": "ruler", "limit": self.limit, "seed": self.seed}


def _text(path: Path) -> dict[str, str]:
    """What tells one text from another, one of the same name too."""
    from lm2.data.background import TEXT_SUFFIXES

    return {"text": path.name, "text_digest": content_digest(path, TEXT_SUFFIXES)}
