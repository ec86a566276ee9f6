"""Several seeds together: the published pages are what the script makes of the published results."""

import json
import re
from pathlib import Path

import pytest

from tests.benchmarks.scripts import script

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REPRODUCED = [RESULTS / "reproduce" / seed / "results.json" for seed in ("", "seed-1", "seed-2")]
LONG = [RESULTS / f"long_rows{seed}.json" for seed in ("", "_seed_1", "_seed_2")]


@pytest.fixture(scope="module")
def seeds():
    return script("seeds_babilong")


@pytest.mark.parametrize(
    ("files", "published"),
    [(REPRODUCED, RESULTS / "reproduce" / "seeds.md"), (LONG, RESULTS / "long_rows_seeds.md")],
    ids=["reproduce", "long rows"],
)
def test_the_published_page_is_of_the_published_results(seeds, files, published, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    runs = seeds.read(files[::-1])
    assert seeds.page(runs, published) == published.read_text(encoding="utf-8")
    seeds.main(seeds.Options(tuple(files), tmp_path / "new" / "page.md"))
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"page.md", "page.png"}


def test_the_means_of_a_seed_are_its_pages(seeds):
    for run in seeds.read(REPRODUCED):
        means = {model: 100 * mean for model, mean in run.found["measured"]["means"].items()}
        assert means == {model: run.mean(model) for model in means}


def test_runs_that_do_not_belong_together_are_refused(seeds, tmp_path):
    def options(name: str, **changed) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({"options": {"seed": 0, "tasks": ["qa1"], **changed}}), encoding="utf-8")
        return path

    one = options("one.json")
    for files, numbers in (([one], "[0]"), ([one, options("same.json")], "[0, 0]"), ([], "[]")):
        with pytest.raises(ValueError, match=re.escape(f"of the seeds {numbers}: give two or more, each of another")):
            seeds.read(files)
    with pytest.raises(ValueError, match=r"'tasks': \['qa1'\].* and .*'tasks': \['qa2'\].*: only the seeds may differ"):
        seeds.read([one, options("other.json", seed=1, tasks=["qa2"])])
