"""`lm2 info` and `lm2 convert`."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lm2 import LM2Config, LM2ForCausalLM
from lm2.sizes import measure
from lm2_command import main
from tests.baselines.cases import tiny


@pytest.fixture
def base(tmp_path, tokenizer):
    """A saved Llama model of two blocks with a tokenizer."""
    path = tmp_path / "base"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_the_preset_of_the_paper_has_its_size(capsys):
    assert main(["info", "lm2-1.7b"]) == 0
    text = capsys.readouterr().out
    assert "1.74 B" in text
    assert "1.2 B + 0.5 B" in text


def test_bytes_of_state_are_those_of_a_real_cache(folder):
    model = LM2ForCausalLM.from_pretrained(folder)
    size = measure(model.config)
    cache = model(torch.zeros(1, 5, dtype=torch.long), use_cache=True).past_key_values
    assert size.bank_bytes + size.segment_bytes == cache.nbytes
    assert size.base_parameters + size.memory_parameters == sum(p.numel() for p in model.parameters())


def test_bytes_of_state_count_what_a_segment_looks_back_at():
    config = LM2Config.preset("lm2-tiny", look_back=8, memory_layers=[1])
    size = measure(config)
    cache = LM2ForCausalLM(config)(torch.zeros(1, 5, dtype=torch.long), use_cache=True).past_key_values
    assert size.bank_bytes + size.segment_bytes == cache.nbytes


@pytest.mark.parametrize("kind", ["rmt", "armt"])
def test_folders_of_the_baselines_are_told(kind, tmp_path, capsys):
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    state = model(torch.zeros(1, 5, dtype=torch.long), use_cache=True).past_key_values
    carried = sum(part.nbytes for part in state.memory)
    backbone = sum(p.numel() for p in model.backbone.parameters())
    whole = sum(p.numel() for p in model.parameters())
    for said in (kind.upper(), f"{backbone:,}", f"{whole - backbone:,}", f"{carried:,} bytes"):
        assert said in text
    assert f"{state.nbytes - carried:,} bytes" in text
    assert main(["generate", str(tmp_path), "Mary"]) == 2
    assert f"'lm2_{kind}', not 'lm2'" in capsys.readouterr().err


def test_memory_parameters_scale_with_the_blocks_that_have_memory():
    full = measure(LM2Config.preset("lm2-tiny", memory_layers=None))
    one = measure(LM2Config.preset("lm2-tiny", memory_layers=[1]))
    assert full.memory_parameters == one.memory_parameters * LM2Config.preset("lm2-tiny").num_hidden_layers
    assert full.base_parameters == one.base_parameters


def test_a_wrong_preset_lists_the_right_ones(capsys):
    assert main(["info", "lm2-tinny"]) == 2
    error = capsys.readouterr().err
    assert "lm2-tinny" in error
    assert "lm2-tiny" in error


def test_convert_makes_a_folder_that_info_and_generate_read(base, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--memory-slots", "4", "--segment-length", "8", "--memory-layers", "1"]
    assert main(["convert", str(base), str(out), *flags]) == 0
    assert str(out) in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    assert "4 x 16" in capsys.readouterr().out
    assert main(["generate", str(out), "Mary went", "--max-new-tokens", "2"]) == 0


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        (["--memory-heads", "3"], ["16", "3"]),
        (["--memory-layers", "7"], ["7"]),
        (["--bptt-segments", "1"], ["1"]),
    ],
)
def test_convert_with_options_that_do_not_fit_leaves_no_folder(base, tmp_path, flags, numbers, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(base), str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lm2: error: ")
    assert error.count("\n") == 1
    assert all(number in error for number in numbers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_convert_from_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "none") in error
    assert not (tmp_path / "out").exists()
