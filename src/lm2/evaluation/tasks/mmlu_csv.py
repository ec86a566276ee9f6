"""Data of the harness tasks in `mmlu_csv.yaml`: `--metadata '{"mmlu_csv": "FOLDER OR ZIP"}'` says where."""

from typing import Any

from lm2.evaluation.mmlu import harness_splits


def splits(mmlu_csv: str = "", subject: str = "", **metadata: Any) -> dict[str, Any]:
    """The splits of one subject, as the harness wants them."""
    if not mmlu_csv:
        raise ValueError('the task mmlu_csv needs its data: --metadata \'{"mmlu_csv": "FOLDER OR ZIP"}\'')
    return harness_splits(mmlu_csv, subject)
