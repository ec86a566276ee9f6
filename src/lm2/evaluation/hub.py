"""The released BABILong sets, from the Hugging Face hub or from a folder with the same files.

A cell is one file, `data/TASK/LENGTH.json`: an array of objects with input, question and target. Files go through the
hub's own cache, which shows a file only when it is whole; HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE work as always.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm2.errors import in_a_line
from lm2.evaluation.babilong import Sample
from lm2.evaluation.sample_files import json_objects, stored_sample
from lm2.evaluation.sets import check_task
from lm2.evaluation.tokens import n_tokens

REPOSITORIES = {100: "RMT-team/babilong", 1000: "RMT-team/babilong-1k-samples"}
"""By samples a cell. The second has qa1 to qa5 at 1k to 128k, and all tasks at 0k."""


@dataclass(frozen=True)
class HubBabilong:
    """Released samples; where their facts stand is not part of the release, so `facts` is empty.

    Args:
        repository: a data set's name on the hub, or a folder with the same files.
        revision: a commit or branch of it.
    """

    repository: str = REPOSITORIES[100]
    revision: str = "main"

    @property
    def description(self) -> dict:
        """What a report says about the samples."""
        return {"samples": "released", "repository": self.repository, "revision": self.revision}

    def samples(self, task: str, length: str) -> Iterator[Sample]:
        """The samples of a cell; the file is fetched first.

        Raises:
            ValueError: unknown task or length; the file cannot be had, is empty, or is not such an array.
        """
        check_task(task)
        n_tokens(length)
        path, index = self.file(task, length), -1
        for index, stored in enumerate(json_objects(path)):
            try:
                sample = stored_sample(task, length, index, stored)
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, sample {index + 1}: a released sample has input, question and target, and {error} is "
                    "missing or no text: fetch the file anew."
                ) from None
            yield sample
        if index < 0:
            raise ValueError(f"{path} holds 0 samples: fetch the file anew, or leave that task or length out.")

    def file(self, task: str, length: str) -> Path:
        """The path of a cell's file, fetched if it is not in the cache.

        Raises:
            ValueError: it cannot be had; nothing half-fetched is taken for it later.
        """
        name = f"data/{task}/{length}.json"
        local = Path(self.repository)
        if local.is_dir():
            if not (local / name).is_file():
                raise ValueError(f"{local} has no {name}: choose another task or length, or fetch that file too.")
            return local / name
        return self._fetch(name)

    def _fetch(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.repository, name, repo_type="dataset", revision=self.revision))
        except Exception as error:  # the library behind the hub's client, and so its errors, differ by version
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                raise ValueError(
                    f"{self.repository} has no {name}: not every task was released at every length, choose another."
                ) from None
            raise ValueError(
                f"{name} of {self.repository} was not fetched whole ({in_a_line(error)[:200]}): run again to go on "
                "where it stopped, give a folder with the files, or let samples be made from the bAbI files and books."
            ) from None
