"""The options of `lm2 reproduce`. Nothing heavy is imported here, so that help is quick."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
"""The tasks of the claim, which one model learns together."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Train LM2, RMT, ARMT and a plain model on qa1 to qa5 together, and ask them BABILong's questions to 128k tokens.

    One backbone, equal parameters, equal tokens, a learning rate searched for each in the same way; an estimated 150
    minutes on two cores. Everything that is done is kept, and the same command goes on.
    """

    out: Path = Path("runs/reproduce")
    """Folder of the run; the same command goes on with what is in it."""
    seed: int = 0
    """Seed of weights, rows and samples."""
    tasks: tuple[str, ...] = TASKS
    """Tasks that are learned and asked together, qa1 to qa10; one alone has half of the training steps."""
    babi: Path | None = None
    """Folder or zip with the real bAbI tasks; simulated ones when not given."""
    books: Path | None = None
    """Folder with books (.txt, .jsonl, .jsonl.gz) as background; generated sentences when not given."""
    smoke: bool = False
    """The whole chain at a size that takes minutes and shows nothing but that it runs."""
    full: bool = False
    """Three seeds from this one on, each task also alone, and qa6 to qa10; prints its hours first. Begins with the
    ordinary run, or goes on with it."""
    dry_run: bool = False
    """Print the parts with their tokens and expected minutes (the runs with hours for --full), and stop."""

    def check(self) -> None:
        """Check the options before anything is done.

        Raises:
            ValueError: an option is out of range.
            FileNotFoundError: a folder that is not there.
        """
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more")
        self._check_tasks()
        for option, path in (("--babi", self.babi), ("--books", self.books)):
            if path is not None and not path.exists():
                raise FileNotFoundError(f"{option}: there is nothing at {path}: give an existing folder or file")

    def _check_tasks(self) -> None:
        from lm2.data.world import TASKS as SIMULATED

        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(
                f"--tasks are different tasks, at least one, and they are {' '.join(self.tasks) or 'none'}"
            )
        if self.full and self.tasks != TASKS:
            raise ValueError(
                f"--full has tasks of its own, and --tasks is {' '.join(self.tasks)}: leave one of them out"
            )
        if unknown := [task for task in self.tasks if task not in SIMULATED]:
            raise ValueError(f"--tasks has {', '.join(unknown)}: choose among {', '.join(SIMULATED)}")

    def search_folder(self, name: str, rate: float) -> Path:
        """Where the beginning of a contender's training at a learning rate is."""
        return self.out / "search" / f"{name}-{rate:g}"

    def to_json(self) -> dict[str, Any]:
        """What the numbers of a run depend on, as JSON values: not the folder, which can be moved."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("out", "full", "dry_run")]
        values = {name: getattr(self, name) for name in names}
        return json.loads(json.dumps(values, default=lambda path: str(Path(path).resolve())))

    @classmethod
    def from_json(cls, values: dict[str, Any], out: Path) -> "ReproduceConfig":
        """The options that `to_json` wrote."""
        paths = {name: values[name] and Path(values[name]) for name in ("babi", "books")}
        known: dict[str, Any] = {**values, **paths, "tasks": tuple(values["tasks"]), "out": out}
        return cls(**known)
