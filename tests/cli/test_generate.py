"""`lm2 generate`: a prompt, a stream, and a memory kept in a file."""

import copy
import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from lm2 import LM2Cache, LM2ForCausalLM
from lm2.cli.generate import encode
from lm2_command import main

PROMPT = "Mary went to the kitchen . John is in the garden ."


def generate(folder, prompt, *flags: str) -> int:
    return main(["generate", str(folder), prompt, *flags])


def test_it_prints_as_many_tokens_as_asked_and_the_same_each_time(folder, capsys):
    assert generate(folder, PROMPT, "--max-new-tokens", "5") == 0
    first = capsys.readouterr().out
    assert generate(folder, PROMPT, "--max-new-tokens", "5") == 0
    assert capsys.readouterr().out == first
    assert len(first.split()) == 5


def test_it_is_the_models_own_greedy_continuation(folder, tokenizer, capsys):
    generate(folder, PROMPT, "--max-new-tokens", "5")
    model = LM2ForCausalLM.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    whole = model.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
    assert capsys.readouterr().out.split() == tokenizer.decode(whole).split()


@pytest.mark.parametrize(
    "asked", [{"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}], ids=["beams", "no cache"]
)
def test_what_a_model_asks_for_that_cannot_be_is_left_out(asked, folder, tmp_path, capsys):
    """What is printed as it comes cannot be taken back, and the memory is there, whatever a base was saved with."""
    shutil.copytree(folder, tmp_path / "asks")
    path = tmp_path / "asks" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **asked}))
    outputs = []
    for place in (folder, tmp_path / "asks"):
        assert generate(place, PROMPT, "--max-new-tokens", "5") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_sampling_follows_the_seed(folder, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        generate(folder, PROMPT, "--temperature", "2", "--seed", seed, "--max-new-tokens", "12")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_the_prompt_can_come_from_standard_input(folder, monkeypatch, capsys):
    generate(folder, PROMPT)
    expected = capsys.readouterr().out
    for mark in ("", "\ufeff"):
        monkeypatch.setattr("sys.stdin", io.StringIO(mark + PROMPT))
        assert generate(folder, "-") == 0
        assert capsys.readouterr().out == expected


def test_a_kept_memory_is_that_of_the_whole_conversation(folder, tokenizer, tmp_path, capsys):
    """Two commands with one cache file leave the state that one call over all their tokens leaves."""
    file = tmp_path / "talk.safetensors"
    said = []
    for prompt in (PROMPT, "Where is Mary ?"):
        assert generate(folder, prompt, "--cache", str(file), "--max-new-tokens", "3") == 0
        said += [prompt, capsys.readouterr().out]
    model = LM2ForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        once = model(tokenizer(" ".join(said), return_tensors="pt")["input_ids"], use_cache=True).past_key_values
    kept = LM2Cache.load(file, model)
    assert kept.get_seq_length() == once.get_seq_length() == 12 + 3 + 4 + 3
    for ours, theirs in zip(kept.states, once.states, strict=True):
        torch.testing.assert_close(ours.bank, theirs.bank, atol=1e-5, rtol=1e-4)


def test_a_book_is_read_once_and_asked_as_often_as_wanted(folder, tokenizer, tmp_path, capsys):
    file, book = tmp_path / "book.safetensors", " ".join([PROMPT] * 40)
    assert generate(folder, book, "--cache", str(file), "--max-new-tokens", "0") == 0
    assert capsys.readouterr().out == ""
    model, before = LM2ForCausalLM.from_pretrained(folder).eval(), file.read_bytes()
    assert LM2Cache.load(file, model).seen == 40 * 12
    answers = []
    for _ in range(2):
        assert generate(folder, "Where is Mary ?", "--cache", str(file), "--read-only", "--max-new-tokens", "4") == 0
        answers.append(capsys.readouterr().out)
    assert file.read_bytes() == before
    ids = tokenizer(f"{book} Where is Mary ?", return_tensors="pt")["input_ids"]
    whole = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    assert answers[0] == answers[1]
    assert answers[0].split() == tokenizer.decode(whole).split()


@pytest.mark.parametrize("flags", [(), ("--cache", "it.safetensors")])
def test_a_prompt_of_one_token_is_enough(folder, tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert generate(folder, "Mary", *flags, "--max-new-tokens", "3") == 0
        assert len(capsys.readouterr().out.split()) == 3


def test_a_text_that_goes_on_has_no_start_token(tmp_path, capsys):
    folder, file = Path(__file__).parents[2] / "models" / "lm2-tiny-qa1", tmp_path / "it.safetensors"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    story, question = " Mary went to the garden. John moved to the office.", " Where is Mary?"
    generate(folder, story, "--cache", str(file), "--max-new-tokens", "0")
    n = len(tokenizer(story).input_ids)
    assert capsys.readouterr().err.endswith(f"it.safetensors has read {n} tokens (new)\n")
    generate(folder, question, "--cache", str(file), "--max-new-tokens", "1")
    captured = capsys.readouterr()
    assert captured.out.strip() == "garden"
    assert f"tokens (went on from {n} tokens; remove it to begin anew)" in captured.err
    model = LM2ForCausalLM.from_pretrained(folder)
    assert LM2Cache.load(file, model).seen == len(tokenizer(story + question).input_ids) + 1


def test_a_further_message_is_written_as_in_the_whole_conversation(folder, tokenizer, tmp_path, capsys):
    """A system's message comes once; an answer ends with the token that ended it."""
    chat = copy.deepcopy(tokenizer)
    chat.eos_token = "."
    chat.chat_template = (
        "John is in the kitchen . {% for m in messages %}{{ 'Where' if m['role'] == 'user' else 'Sandra' }} "
        "{{ m['content'] }}. {% endfor %}{% if add_generation_prompt %}Sandra {% endif %}"
    )
    shutil.copytree(folder, tmp_path / "chat")
    chat.save_pretrained(tmp_path / "chat")
    file = tmp_path / "talk.safetensors"
    turns = ["Mary ", "Daniel "]
    said = [{"role": "user", "content": turns[0]}, {"role": "assistant", "content": "garden "}]
    whole = chat.apply_chat_template([*said, {"role": "user", "content": turns[1]}], add_generation_prompt=True)
    first, second = (encode(chat, turn, chat=True, begins=not i)[0].tolist() for i, turn in enumerate(turns))
    answer = chat("garden .", add_special_tokens=False).input_ids
    assert first + answer + second == whole["input_ids"]
    for _ in range(2):
        assert generate(tmp_path / "chat", "Mary ", "--chat", "--cache", str(file), "--max-new-tokens", "2") == 0
    n = len(encode(chat, "Mary ", chat=True, begins=False)[0])
    assert f"has read {len(first) + 2 + n + 2} tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "flags", "message"),
    [
        ("", [], "the prompt is empty"),
        (" \n", [], "the prompt is empty"),
        (PROMPT, ["--max-new-tokens", "0"], "--max-new-tokens is 0, which only reads: give --cache FILE"),
        (PROMPT, ["--max-new-tokens", "-1", "--cache", "it"], "--max-new-tokens is -1: it must be 1 or more"),
        (PROMPT, ["--cache", "nope/it.safetensors"], "there is no folder nope: make it first"),
        (PROMPT, ["--cache", "."], "--cache is ., which is a folder: give a file"),
        (PROMPT, ["--read-only"], "--read-only needs a memory that was kept, and --cache is not given"),
        (PROMPT, ["--read-only", "--cache", "no.safetensors"], "and --cache is no.safetensors"),
        (PROMPT, ["--temperature", "-1"], "--temperature is -1.0: it must be 0"),
        (PROMPT, ["--temperature", "nan"], "--temperature is nan: it must be 0"),
        (PROMPT, ["--seed", "-1"], "--seed is -1: it must be 0 or more, and below 2^32"),
        ("Mary \ud83d", [], r"the prompt: \ud83d is half of a character: repair the line"),
        (
            "Mary \udcff",
            [],
            r"the prompt: \udcff is the byte 0xff, which is not UTF-8, or half of a character: convert",
        ),
        (PROMPT, ["--chat"], "has no chat format: leave out --chat"),
    ],
)
def test_bad_options_are_one_line(folder, prompt, flags, message, capsys):
    assert generate(folder, prompt, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("lm2: error: ")
    assert message in error


def test_folders_that_are_no_lm2_model(folder, tmp_path, capsys):
    assert generate(tmp_path / "none", PROMPT) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err
    assert generate(tmp_path, PROMPT) == 2
    assert "has no config.json" in capsys.readouterr().err
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama"}))
    assert generate(tmp_path, PROMPT) == 2
    assert "'llama', not 'lm2': run `lm2 convert" in capsys.readouterr().err
    config.write_text(json.dumps({"model_type": "lm2_rmt"}))  # which a memory cannot be added to
    assert generate(tmp_path, PROMPT) == 2
    assert "'lm2_rmt', not 'lm2': give the folder of a model that `lm2 convert`" in capsys.readouterr().err
    config.write_text('{"model_type": ')
    assert generate(tmp_path, PROMPT) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_folder_that_is_not_whole_is_one_line(folder, tmp_path, capsys):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert generate(other, PROMPT) == 2
    assert "has damaged or incomplete weights" in capsys.readouterr().err
    (other / "model.safetensors").write_bytes(weights)
    (other / "tokenizer.json").unlink()
    assert generate(other, PROMPT) == 2
    assert "holds no tokenizer: save the model's own there" in capsys.readouterr().err
    (other / "trainer_state.json").touch()
    assert generate(other, PROMPT) == 2
    assert f"`lm2 export {other} OUT --tokenizer TOKENIZER` makes a model of it" in capsys.readouterr().err


def test_a_tokenizer_of_more_tokens_than_the_model_is_one_line(folder, tokenizer, tmp_path, capsys):
    other, larger = Path(shutil.copytree(folder, tmp_path / "other")), copy.deepcopy(tokenizer)
    larger.add_tokens(["Alma"])
    larger.save_pretrained(other)
    assert generate(other, PROMPT) == 2
    assert "other: the tokenizer writes ids up to 14, and the model has embeddings of 14 " in capsys.readouterr().err


def test_a_prompt_goes_on_behind_no_end_token(tokenizer):
    """Whatever the tokenizer puts behind a text, and behind its start token."""
    words = copy.deepcopy(tokenizer)
    words.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    around = [("<s>", words.bos_token_id), ("</s>", words.eos_token_id)]
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    mary, went = words("Mary went", add_special_tokens=False).input_ids
    assert encode(words, "Mary went", chat=False, begins=True).tolist() == [[words.bos_token_id, mary, went]]
    assert encode(words, "Mary went", chat=False, begins=False).tolist() == [[mary, went]]


def test_a_cache_of_another_model_is_refused_and_kept(folder, tmp_path, capsys):
    file, other = tmp_path / "talk.safetensors", tmp_path / "other"
    generate(folder, PROMPT, "--cache", str(file))
    before = file.read_bytes()
    shutil.copytree(folder, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert generate(other, PROMPT, "--cache", str(file)) == 2
    assert "belongs to another model" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_full_disk_leaves_the_old_cache_and_no_part(folder, tmp_path, monkeypatch, capsys):
    file = tmp_path / "talk.safetensors"
    generate(folder, PROMPT, "--cache", str(file))
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert generate(folder, PROMPT, "--cache", str(file)) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
