"""The GPU comparison on a tiny model: in pieces, on another machine, with what is trained alone in its checkpoints."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmarks.scripts import script
from tests.evaluation import tiny

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("default")  # peft warns about its own dependencies
BUDGET = 60_000


@pytest.fixture(scope="module")
def smollm():
    return script("smollm_babilong")


@pytest.fixture
def options(smollm, tmp_path):
    """Ten updates of each contender, and two questions at two lengths."""
    (tmp_path / "books.txt").write_text(tiny.prose(1500))
    return smollm.Options(
        base=str(tiny.save(tiny.llama(), tmp_path / "base")),
        out=tmp_path / "out",
        tasks=("qa1",),
        test_books=tmp_path / "books.txt",
        segment_length=64,
        memory_layers=(0, 1),
        memory_slots=8,
        look_back=4,
        memory_tokens=4,
        trained=BUDGET,
        curriculum=(1, 2),
        steps=5,
        rows=4,
        accumulation=1,
        lengths=("0k", "1k"),
        samples=(2,),
    )


def outputs(folder) -> dict:
    """Every answer by contender and question."""
    return {
        (path.parent.name, *record["key"]): record["output"]
        for path in folder.glob("evaluation/answers/*/records.0.jsonl")
        for record in map(json.loads, path.read_text().splitlines()[1:])
    }


@pytest.mark.slow
def test_pieces_on_two_machines_end_as_one(smollm, options, tmp_path, capsys):
    assert not smollm.main(replace(options, minutes=0))
    assert "**Not finished.**" in (options.out / "smollm_babilong.md").read_text()
    (checkpoint,) = (options.out / "lm2" / "train").glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-5"
    moved = replace(options, out=tmp_path / "moved")
    shutil.copytree(options.out, moved.out, ignore=shutil.ignore_patterns("model"))
    assert smollm.main(moved)
    found = json.loads((moved.out / "smollm_babilong.json").read_text())
    facts = found["contenders"]
    assert list(facts) == ["lm2", "rmt", "armt", "lora"]
    assert all(0.98 * BUDGET < one["trained"] <= BUDGET and one["steps"] == one["of"] == 10 for one in facts.values())
    assert [one["memory"] > 0 for one in facts.values()] == [True, True, True, False]
    assert [piece["done"] for piece in found["pieces"]] == [False, True]
    assert [(*pair["models"], pair["cells"][-1]["n"]) for pair in found["paired"]] == [
        ("lm2", other, 4) for other in ("rmt", "armt", "lora")
    ]
    check_checkpoints(moved.out, facts)
    assert "4 samples" in (moved.out / "smollm_babilong.md").read_text()

    whole = replace(options, out=tmp_path / "whole", contenders=("lm2",))
    assert smollm.main(whole)
    answers = outputs(moved.out)
    assert len(answers) == 4 * 2 * 2 * 2  # each contender and length: two samples, and the question alone
    assert outputs(whole.out) == {key: output for key, output in answers.items() if key[0] == "lm2"}

    assert smollm.main(replace(moved, contenders=("rmt",), samples=(3,)))
    found = json.loads((moved.out / "smollm_babilong.json").read_text())
    assert [pair["models"][1] for pair in found["paired"]] == ["armt", "lora"]  # RMT has answered more than LM2
    assert {cell["model"]: cell["n"] for cell in found["report"]["cells"]} == {"lm2": 2, "rmt": 3, "armt": 2, "lora": 2}


def test_a_piece_that_was_cut_off_in_the_middle_of_its_line_is_left_out(smollm, options):
    options.out.mkdir()
    first = smollm.note_piece(options, 1.5, done=False)
    with (options.out / smollm.PIECES_FILE).open("a", encoding="utf-8") as file:
        file.write('{"device": "a GP')
    pieces = smollm.note_piece(options, 2.5, done=True)
    assert pieces[:1] == first
    assert [piece["minutes"] for piece in pieces] == [1.5, 2.5]
    assert smollm.note_piece(options, 1.0, done=True)[:2] == pieces


def check_checkpoints(out, facts) -> None:
    """They hold the memory and the adapters of each contender and nothing else, and no state of the optimiser."""
    for name, one in facts.items():
        weights = load_file(out / name / "train" / "checkpoint-10" / "adapter_model.safetensors")
        assert sum(weight.numel() for weight in weights.values()) == one["trained"]
        assert all("lora_" in key or "memory" in key.split(".") for key in weights)
        assert not list((out / name / "train").rglob("optimizer.pt"))
        assert one["bytes"] < 4 * one["trained"] + 60_000


def test_a_memory_beyond_the_budget_leaves_adapters_of_the_least_rank(smollm, options):
    _, size = smollm.plans_of(replace(options, trained=1000))["armt"]
    assert size.rank == smollm.LEAST_RANK
    assert size.trained > size.memory > 1000


@pytest.mark.parametrize("name", ["lm2", "armt", "lora"])
def test_a_contender_starts_as_the_base_within_a_segment(smollm, options, name):
    """All but RMT, whose first memory is read from the start."""
    memory = smollm.memory_of(name, options, tiny.llama().config)
    ids = torch.arange(1, 40)[None]
    started = smollm.start(name, options.base, memory).eval()
    torch.testing.assert_close(started(ids).logits, tiny.llama()(ids).logits, atol=1e-4, rtol=1e-4)
