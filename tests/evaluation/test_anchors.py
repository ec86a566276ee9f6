import csv

import pytest

from lm2.evaluation.anchors import anchors, paper_mmlu, source


def cells(table):
    return {(a.model, a.task, a.length): a.percent for a in anchors(table=table)}


def test_the_papers_table_is_complete(results):
    with open(results / "lm2_paper_babilong.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = {
        (row["model"], task.replace("avg_printed", "avg"), row["length"]): float(value)
        for row in rows
        for task, value in row.items()
        if task not in ("model", "length") and value
    }
    assert cells("paper") == expected


def test_the_leaderboard_is_complete(results):
    with open(results / "leaderboard_v0.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = {
        (row["model_name"], row["task"], length): float(value)
        for row in rows
        for length, value in row.items()
        if length not in ("model_name", "task") and value
    }
    assert cells("leaderboard") == expected


def test_the_papers_averages_follow_from_its_cells():
    paper = cells("paper")
    for (model, task, length), printed in paper.items():
        misprinted = (model, length) in {("RMT-1.7B", "4k"), ("Llama-3.2-1.2B-RAG", "1k")}
        if task == "avg" and length != ">=8k" and not misprinted:
            mean = sum(paper[model, f"qa{n}", length] for n in range(1, 11)) / 10
            assert mean == pytest.approx(printed, abs=0.25), (model, length)
    lm2 = [paper["LM2-1.7B", "qa1", length] for length in ("8k", "16k", "32k", "64k")]
    assert sum(lm2) / 4 == pytest.approx(paper["LM2-1.7B", "qa1", ">=8k"], abs=0.06)


def test_the_papers_mmlu_average_is_the_plain_mean_of_its_rows():
    *rows, average = paper_mmlu()
    for model, printed in average["percent"].items():
        assert sum(row["percent"][model] for row in rows) / 8 == pytest.approx(printed, abs=0.05)


def test_cells_are_chosen_by_task_length_and_table():
    (rmt,) = [a for a in anchors("qa1", "1M") if "RMT (" in a.model and "ARMT" not in a.model]
    assert (rmt.percent, rmt.table) == (84, "leaderboard")
    assert all(a.length == "4k" for a in anchors(length="4k"))
    assert "2502.06049" in source("paper")
    assert "official rule" in source("leaderboard")
