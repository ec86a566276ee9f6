"""MMLU: the harness's numbers, and the table of the LM2 paper beside them.

57 subjects, four choices. The prompt holds the first five questions of the `dev` split with their answers; the model's
answer is the letter with the highest log-likelihood (chance: 25 %). Prompts and scoring are those of the task `mmlu`
of lm-evaluation-harness; the questions come from the hub, or from the CSV files of the original release.

Source: Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding" (arXiv 2009.03300).
"""

import csv
import io
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lm2.data.sources import damage_named
from lm2.evaluation import mmlu_report
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.models import ModelSpec, RunnerOptions, fingerprint, load_model, parse_specs, source_name
from lm2.evaluation.options import MmluOptions
from lm2.evaluation.records import Records, mine, wait_for_all
from lm2.processes import is_first
from lm2.progress import counted

LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """A question, its four choices, and the number of the right one."""

    text: str
    choices: tuple[str, ...]
    answer: int


def run(options: MmluOptions) -> None:
    """Ask every model what has not been asked yet, and write the report.

    Raises:
        ValueError: the harness is not installed, a model or the data cannot be read, or an input does not fit a model.
    """
    require_harness()
    if options.data is not None and not options.data.exists():
        raise ValueError(f"there is no {options.data}: give the folder or zip with dev/ and test/ CSV files")
    asked = [ask_model(spec, options) for spec in parse_specs(options.models)]
    wait_for_all()
    if is_first():
        mmlu_report.write(options, [(facts, longest(records.read())) for facts, records in asked])


def require_harness() -> None:
    """Raise ValueError unless lm-evaluation-harness is installed."""
    import importlib.util

    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("this needs lm-evaluation-harness: pip install 'lm2[harness]'")


def ask_model(spec: ModelSpec, options: MmluOptions) -> tuple[dict[str, Any], Records]:
    """Ask this process's share of the subjects; what the report says of the model, and the finished subjects."""
    if spec.kind not in (None, "full"):
        raise ValueError(f"MMLU is answered under full attention or with a memory: leave out @{spec.kind}")
    from lm2.evaluation.harness import HarnessModel

    model, tokenizer = load_model(spec.source, RunnerOptions(dtype=options.dtype, device=options.device))
    facts = describe(spec, model)
    records = Records(answers_folder(options.out, spec.name), {**options.settings(), **identity(facts)})
    known = [subject for subject, record in longest(records.read()).items() if suffices(record, options.limit)]
    waiting = [subject for subject in mine(options.subjects) if subject not in known]
    tasks = load_tasks(waiting, options.data) if waiting else []
    counts = [min(len(task.eval_docs), options.limit or len(task.eval_docs)) for task in tasks]
    with counted(spec.name, sum(counts)) as advance:
        harness = HarnessModel(model, tokenizer, batch_size=options.batch_size, advance=advance)
        for subject, task in zip(waiting, tasks, strict=True):
            records.add((subject,), ask_subject(harness, task, options))
    return facts, records


def longest(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each subject's record with the most questions: a run with a greater --limit asks a subject again."""
    return {record["key"][0]: record for record in sorted(records, key=lambda record: len(record["picks"]))}


def suffices(record: dict[str, Any], limit: int | None) -> bool:
    """Whether a record has all the questions that are asked for."""
    return len(record["picks"]) >= min(limit or record["of"], record["of"])


def describe(spec: ModelSpec, model: Any) -> dict[str, Any]:
    """What a report says of a model."""
    return {
        "name": spec.name,
        "source": source_name(spec.source),
        "type": model.config.model_type,
        "segment_length": getattr(model.config, "segment_length", None),
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "fingerprint": fingerprint(model),
    }


def identity(facts: dict[str, Any]) -> dict[str, Any]:
    """What of a model its answers depend on."""
    return {name: facts[name] for name in ("source", "dtype", "fingerprint")}


def ask_subject(harness: Any, task: Any, options: MmluOptions) -> dict[str, Any]:
    """One subject: for each question the right choice, the model's, and the log-likelihoods of all four."""
    from lm2.evaluation.harness import run_task

    harness.longest, began = 0, time.perf_counter()
    samples = run_task(harness, task, options.shots, options.limit)
    scores = [[score for score, _ in sample["filtered_resps"]] for sample in samples]
    picks = [max(range(len(LETTERS)), key=four.__getitem__) for four in scores]
    targets = [int(sample["target"]) for sample in samples]
    assert [pick == target for pick, target in zip(picks, targets, strict=True)] == [bool(s["acc"]) for s in samples]
    return {
        "of": len(task.eval_docs),
        "picks": picks,
        "targets": targets,
        "scores": scores,
        "longest_input": harness.longest,
        "inputs_cut": 0,  # the harness model stops the run at the first that would be
        "seconds": round(time.perf_counter() - began, 2),
    }


def load_tasks(subjects: Sequence[str], data: Path | None) -> list[Any]:
    """The harness's tasks for these subjects, over the hub's data (None) or the CSV files in `data`.

    Raises:
        ValueError: the data cannot be had.
    """
    from lm2.evaluation import harness

    manager, names = harness.task_manager("mmlu/default"), [f"mmlu_{subject}" for subject in subjects]
    if data is not None:
        changes = [{"custom_dataset": partial(harness_splits, data, subject)} for subject in subjects]
        return harness.load_tasks(manager, names, changes)
    try:
        return harness.load_tasks(manager, names)
    except ValueError as error:
        raise ValueError(f"{error}: check the network, or give the CSV files with --data") from error


def harness_splits(data: str | Path, subject: str, **metadata: Any) -> dict[str, Any]:
    """`dev` and `test` of one subject from the CSV files, in the columns of the hub's data set; the harness says more
    than is needed."""
    import datasets

    return {
        split: datasets.Dataset.from_list(
            [
                {"question": question.text, "subject": subject, "choices": question.choices, "answer": question.answer}
                for question in read_questions(data, split, subject)
            ]
        )
        for split in ("dev", "test")
    }


def read_questions(data: str | Path, split: str, subject: str) -> list[Question]:
    """The questions of `SPLIT/SUBJECT_SPLIT.csv`, no header: question, A, B, C, D, letter.

    Args:
        data: a folder or a zip file with the folders dev/ and test/, at its top or one level down.

    Raises:
        ValueError: no such file in it, one that is not UTF-8, or a line that is not six fields ending in A, B, C or D
            (file and line named).
    """
    name = f"{split}/{subject}_{split}.csv"
    where, text = _read_text(Path(data), name)
    rows = csv.reader(io.StringIO(text, newline=""))
    questions = []
    for row in rows:
        if len(row) != 6 or row[5] not in tuple(LETTERS):
            raise ValueError(
                f"{where}:{rows.line_num}: a line is a question, four choices and a letter of {LETTERS}, and this one "
                f"has {len(row)} fields and ends in {row[-1][:20] if row else ''!r}"
            )
        questions.append(Question(row[0], tuple(row[1:5]), LETTERS.index(row[5])))
    if not questions:
        raise ValueError(f"{where} holds 0 questions: download it again")
    return questions


def _read_text(data: Path, name: str) -> tuple[str, str]:
    if data.is_dir():
        found = next((path for path in _inside(data, name) if path.is_file()), None)
        if found is None:
            raise ValueError(f"{data} has no {name}: give the folder that holds dev/ and test/")
        with damage_named(found):
            return str(found), found.read_text(encoding="utf-8-sig")  # a byte-order mark is no text
    try:
        with zipfile.ZipFile(data) as archive:
            inside = next((entry for entry in archive.namelist() if entry == name or entry.endswith(f"/{name}")), None)
            if inside is None:
                raise ValueError(f"{data} has no {name}: give a zip that holds dev/ and test/")
            where = f"{data}:{inside}"
            with damage_named(Path(where)):
                return where, archive.read(inside).decode("utf-8-sig")
    except zipfile.BadZipFile as error:
        raise ValueError(f"{data} is not a zip file, or cut short ({error}): download it again") from error


def _inside(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    yield from (child / name for child in sorted(folder.iterdir()) if child.is_dir())
