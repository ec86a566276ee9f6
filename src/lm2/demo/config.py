"""The options of `lm2 demo`. Nothing heavy is imported here, so that help is quick."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Where = Literal["own", "earlier"]


@dataclass(frozen=True)
class DemoConfig:
    """Train LM2, RMT and a plain model of the same size, and ask them about facts ever further back."""

    out: Path = Path("runs/demo")
    """The folder of the run; the same command goes on with what is in it."""
    seed: int = 0
    """Seed of weights, data and questions."""
    babi: Path | None = None
    """Folder or zip with the real bAbI tasks: their test questions are asked. Goes with --books."""
    books: Path | None = None
    """Folder with books (.txt, .jsonl, .jsonl.gz) as background text. Goes with --babi."""
    segment_length: int | None = None
    """Tokens of a segment; 32 with the built-in texts and 48 with real ones when not given."""
    scale: float = 1.0
    """Multiplies all training steps."""
    questions: int = 400
    """Questions in each evaluation set; half as many in texts of 256 segments and more."""
    segments: tuple[int, ...] = (1, 2, 4, 8, 16, 64, 256)
    """Lengths of the evaluated texts, in segments."""

    @property
    def is_real(self) -> bool:
        """Whether the run is on the real bAbI files and books."""
        return self.babi is not None

    def check(self) -> None:
        """Check the options before anything is done.

        Raises:
            ValueError: an option is out of range, or goes with another that is missing.
            FileNotFoundError: a folder that is not there.
        """
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more")
        if (self.babi is None) != (self.books is None):
            raise ValueError(
                f"--babi and --books go together, they are {self.babi} and {self.books}: give both or none"
            )
        if not 0 < self.scale < math.inf:
            raise ValueError(f"--scale multiplies the training steps and must be a number above 0, it is {self.scale}")
        if self.questions < 4:
            raise ValueError(f"--questions must be 4 or more, it is {self.questions}")
        if not self.segments or min(self.segments) < 1 or len(set(self.segments)) < len(self.segments):
            raise ValueError(f"--segments are different lengths of 1 or more, they are {self.segments}")
        if self.segment_length is not None and self.segment_length < 24:
            raise ValueError(
                f"--segment-length is {self.segment_length}: it must be 24 or more, for two facts and a question"
            )
        for option, path in (("--babi", self.babi), ("--books", self.books)):
            if path is not None and not path.exists():
                raise FileNotFoundError(f"{option}: there is nothing at {path}: give an existing folder")

    def questions_at(self, segments: int) -> int:
        """Size of the evaluation sets of texts of so many segments."""
        return self.questions if segments < 256 else self.questions // 2

    def columns(self) -> list[tuple[Where, int]]:
        """The evaluation sets as (where the decisive fact is, segments of the text); one segment has no earlier one."""
        both: tuple[Where, Where] = ("own", "earlier")
        return [(where, n) for n in sorted(self.segments) for where in (both if n > 1 else both[:1])]

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, without `out`, so that the folder can be moved."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "out"}
        return json.loads(json.dumps(values, default=lambda path: str(Path(path).resolve())))

    @classmethod
    def from_json(cls, values: dict[str, Any], out: Path) -> "DemoConfig":
        """The options that `to_json` wrote."""
        known: dict[str, Any] = {**values, "segments": tuple(values["segments"]), "out": out}
        known |= {name: values[name] and Path(values[name]) for name in ("babi", "books")}
        return cls(**known)
