"""The options of `lm2 eval babilong`. Nothing heavy is imported here, so that help is quick."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lm2.errors import at_least_one, each_once

if TYPE_CHECKING:
    from lm2.evaluation.babilong import Sample, SampleSource
    from lm2.evaluation.models import RunnerOptions

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""Precision of weights; auto is float32 on a CPU and bfloat16 on a GPU."""
Control = Literal["reset", "frozen", "exchanged"]


@dataclass(frozen=True)
class BabilongConfig:
    """Ask models BABILong's questions about long texts, and write a report.

    A MODEL is [NAME=]SOURCE[@KIND[:NUMBER]][#SAMPLES]: a folder, GGUF file or hub name, asked with @full attention
    (plain models when no kind is given), on the @last:L tokens, with a sliding @window:W, or with retrieval @rag:K.
    Models with a memory read segment by segment. #20 asks a model only the first 20 samples of each cell.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL...")]
    """The models to ask."""
    out: Path = Path("runs/babilong")
    """Folder of answers and report; the same command goes on with what is in it."""
    tasks: tuple[str, ...] = ("qa1", "qa2", "qa3", "qa4", "qa5")
    """Tasks, qa1 to qa20."""
    lengths: tuple[str, ...] = ("0k", "1k", "2k", "4k")
    """Lengths of the texts in GPT-2 tokens, 0k to 10M."""
    samples: tuple[int, ...] | None = None
    """Samples of each cell (a task at a length), one number or one for each length; all of the set when not given."""
    sample_set: Literal["100", "1000"] = "100"
    """Which released set the samples made here follow, row by row: of 100 or of 1,000 samples a cell."""
    released: str | None = None
    """Released samples: RMT-team/babilong on the hub, or a folder with its files. Or a file of samples (.jsonl) that
    lm2.evaluation.sample_files.write_samples made. Made here when not given."""
    babi: Path | None = None
    """Folder or zip with the bAbI files, whose test questions are asked; a simulator of qa1 to qa10 when not given."""
    background: Path | None = None
    """Books (.txt, .jsonl, .jsonl.gz) between the facts; a built-in generator of sentences when not given."""
    seed: int = 0
    """Seed of samples made here."""
    rule: Literal["official", "exact", "substring", "word"] = "official"
    """Scoring rule of the tables; the JSON file has the numbers of all rules."""
    controls: tuple[Control, ...] = ("reset", "frozen", "exchanged")
    """Conditions under which a memory is also asked: reset before each segment, frozen after half of the text, or
    exchanged for that of another story."""
    instruction: bool = False
    """Put the task's official instruction before the text."""
    examples: bool = False
    """Put the task's official examples before the text."""
    post_prompt: bool = False
    """Put the official request for the form of the answer before the text."""
    chat: bool = False
    """Ask in the model's chat format."""
    max_new_tokens: int = 20
    """Most tokens of an answer."""
    batch_size: int = 8
    """Texts of a cell that a model with a memory reads side by side."""
    passage_words: int = 48
    """Retrieval: words of a passage, which is made of whole sentences."""
    retriever: Literal["bm25", "embedding"] = "bm25"
    """Retrieval: by words in common, or by sentence embeddings (extra `embedding`)."""
    embedding_model: str | None = None
    """Retrieval: folder or hub name of the sentence-embedding model."""
    dtype: Dtype = "auto"
    """Precision of the weights: float32 on a CPU and bfloat16 on a GPU when auto."""
    device: str | None = None
    """Where models run, such as cuda:1; the process's GPU if there is one when not given."""
    anchors: bool = False
    """Add the published numbers of the LM2 paper and the BABILong leaderboard to the report."""

    def check(self) -> None:
        """Check the options before anything is done.

        Raises:
            ValueError: an option is out of range, or there is no such task or length.
            FileNotFoundError: a path that is not there.
        """
        from lm2.evaluation.sets import check_task
        from lm2.evaluation.tokens import n_tokens

        for task in self.tasks:
            check_task(task)
        for length in self.lengths:
            n_tokens(length)
        if not self.tasks or not self.lengths:
            raise ValueError(f"at least 1 task and 1 length are needed, not {len(self.tasks)} and {len(self.lengths)}")
        for option in ("tasks", "lengths", "controls"):
            each_once(f"--{option}", getattr(self, option))
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more")
        self._check_samples()
        at_least_one(self, "max_new_tokens", "batch_size")
        if self.released is not None and (self.background or self.babi) is not None:
            raise ValueError(
                f"--released {self.released} brings its own questions and texts: leave out --babi and --background"
            )
        for option, path in (("--babi", self.babi), ("--background", self.background)):
            if path is not None and not path.exists():
                raise FileNotFoundError(f"{option}: there is nothing at {path}: give an existing folder or file")

    def _check_samples(self) -> None:
        if self.samples is None:
            return
        if len(self.samples) not in (1, len(self.lengths)):
            raise ValueError(
                f"--samples has {len(self.samples)} numbers and --lengths {len(self.lengths)}: give one, or one each"
            )
        if min(self.samples) < 1:
            raise ValueError(f"--samples is {min(self.samples)}: it must be at least 1")
        if self.released is None and max(self.samples) > int(self.sample_set):
            raise ValueError(
                f"--samples is {max(self.samples)}, and a cell of the set has {self.sample_set}: give that or less"
                + (", or --sample-set 1000" if self.sample_set == "100" else "")
            )

    def source(self) -> "SampleSource":
        """Where the samples come from."""
        from lm2.evaluation.babilong import LocalBabilong
        from lm2.evaluation.hub import HubBabilong
        from lm2.evaluation.sample_files import FileBabilong
        from lm2.evaluation.sentences import Background

        if self.released is not None:
            path = Path(self.released)
            return FileBabilong(path) if path.is_file() else HubBabilong(self.released)
        books = Background.generated() if self.background is None else Background.from_books(self.background)
        return LocalBabilong(self.babi, books, size=int(self.sample_set), seed=self.seed)

    def cells(self, source: "SampleSource") -> "Iterator[tuple[tuple[str, str], list[Sample]]]":
        """((task, length), samples) of every cell."""
        limits = self.samples or (None,)
        limits = limits * len(self.lengths) if len(limits) == 1 else limits
        for task in self.tasks:
            for length, limit in zip(self.lengths, limits, strict=True):
                yield (task, length), list(islice(source.samples(task, length), limit))

    def runner_options(self) -> "RunnerOptions":
        """What all models have in common."""
        from lm2.evaluation.models import RunnerOptions

        return RunnerOptions(
            chat=self.chat,
            dtype=self.dtype,
            device=self.device,
            passage_words=self.passage_words,
            retriever=self.retriever,
            embedding_model=self.embedding_model,
        )

    def prompt_settings(self) -> dict[str, Any]:
        """What was asked, apart from model and samples."""
        names = ("instruction", "examples", "post_prompt", "chat", "max_new_tokens")
        return {name: getattr(self, name) for name in names}
