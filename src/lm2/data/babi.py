"""bAbI stories as values, and the reader of the original files.

A file holds lines `N text` (a fact) or `N question TAB answer TAB supporting line numbers`; N starts again at 1 with
each story. In a `Story` facts and questions are kept apart: a question knows how many facts stand before it, and its
support is given as indices into the facts.

Source: Weston et al. 2015, "Towards AI-Complete Question Answering", tasks v1.2.
"""

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ACTORS = ("Mary", "John", "Daniel", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("football", "apple", "milk")
MOVE = ("went to", "went back to", "moved to", "journeyed to", "travelled to")
FOLDERS = ("en-10k", "en", "en-valid-10k")
"""Folders of the original archive that are read, best first."""
BABI_SUFFIXES = (".txt",)
REMEDY = "Restore this line, or take the file from the original archive again."


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and the facts (0-based indices) that decide it, the last-needed first as in the files."""

    text: str
    answer: str
    support: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """Facts in order, and (number of facts before it, question) pairs in order."""

    facts: tuple[str, ...]
    questions: tuple[tuple[int, Question], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with all facts before it; questions asked earlier in the story are dropped."""

    task: str
    facts: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]


def samples(task: str, stories: Iterable[Story]) -> Iterator[Sample]:
    """One sample for each question, in order (BABILong's way from stories to samples)."""
    for story in stories:
        for position, question in story.questions:
            yield Sample(task, story.facts[:position], question.text, question.answer, question.support)


def read_stories(path: str | Path, task: str, split: str) -> list[Story]:
    """Stories of `task` ("qa1" ... "qa20") and `split` ("train", "test", "valid") in a folder or the original zip.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: no such task file below `path`, a damaged archive, or a line that breaks the format (named by file
            and line, with the rule).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No bAbI data at {path}: give the folder or zip with the original task files.")
    name, text = _task_text(path, task, split)
    return parse_stories(text, name)


def parse_stories(text: str, name: str) -> list[Story]:
    """Stories in the text of one task file; `name` is used in error messages.

    Raises:
        ValueError: a line that breaks the format, named by `name` and number.
    """
    stories: list[Story] = []
    builder = _StoryBuilder()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.startswith("1 ") and builder.lines:
                stories.append(builder.story())
                builder = _StoryBuilder()
            builder.add(line)
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error} {REMEDY}") from None
    if not builder.lines:
        raise ValueError(f"{name}: a bAbI file needs at least one story, this one has no lines.")
    return [*stories, builder.story()]


class _StoryBuilder:
    """Collects the lines of one story."""

    def __init__(self):
        self.lines = 0
        self.facts: list[str] = []
        self.questions: list[tuple[int, Question]] = []
        self.fact_index: dict[int, int] = {}

    def add(self, line: str) -> None:
        match = re.fullmatch(r"(\d+) (\S.*)", line)
        if match is None:
            raise ValueError(f"expected 'N text', found {line!r}.")
        if int(match[1]) != self.lines + 1:
            raise ValueError(f"expected line number {self.lines + 1} or 1, found {match[1]}.")
        self.lines += 1
        if "\t" in match[2]:
            self.questions.append((len(self.facts), self._question(match[2])))
        else:
            self._fact(match[2].strip())

    def _fact(self, text: str) -> None:
        if not text.endswith("."):
            raise ValueError(f"a fact ends with a full stop, and a question has two tabs, found {text!r}.")
        self.fact_index[self.lines] = len(self.facts)
        self.facts.append(text)

    def _question(self, text: str) -> Question:
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"a question has 3 fields (question, answer, support), found {len(fields)} in {text!r}.")
        if not fields[0].endswith("?"):
            raise ValueError(f"a question ends with a question mark, found {fields[0]!r}.")
        try:
            support = tuple(self.fact_index[int(number)] for number in fields[2].split())
        except (KeyError, ValueError):
            raise ValueError(f"support {fields[2]!r} must name earlier fact lines of the story.") from None
        return Question(fields[0], fields[1], support)

    def story(self) -> Story:
        return Story(tuple(self.facts), tuple(self.questions))


def _task_text(path: Path, task: str, split: str) -> tuple[str, str]:
    """(name for messages, text) of the best-placed file of a task."""
    pattern = re.compile(rf"{re.escape(task)}_(.*_)?{re.escape(split)}\.txt")
    if path.is_dir() and not any(path.rglob("qa*.txt")):
        path = next(iter(sorted(path.glob("*.zip"))), path)
    if path.is_dir():
        name = _best([str(p.relative_to(path)) for p in path.rglob("*.txt")], pattern, path, task, split)
        return str(path / name), _decoded((path / name).read_bytes(), str(path / name))
    try:
        with zipfile.ZipFile(path) as archive:
            name = _best(archive.namelist(), pattern, path, task, split)
            return f"{path}/{name}", _decoded(archive.read(name), f"{path}/{name}")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{path} is not a zip archive or is damaged ({error}): give the folder or zip with the original task files."
        ) from None


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{number}: expected UTF-8 text, found byte {data[error.start]:#x}. {REMEDY}") from None


def _best(names: list[str], pattern: re.Pattern[str], path: Path, task: str, split: str) -> str:
    def rank(name: str) -> int:
        folder = PurePosixPath(name).parent.name
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)

    found = [n for n in names if pattern.fullmatch(PurePosixPath(n).name)]
    found = [n for n in found if rank(n) < len(FOLDERS) or PurePosixPath(n).parent == PurePosixPath(".")]
    if not found:
        raise ValueError(
            f"No file for task {task!r}, split {split!r} below {path}: expected a name such as "
            f"en-10k/{task}_..._{split}.txt; tasks are qa1 ... qa20, splits train, test and valid."
        )
    return min(sorted(found), key=rank)
