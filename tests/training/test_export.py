"""`lm2 export`: a trainer's checkpoint becomes a model folder, its weights bit for bit; what is wrong is named."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

import lm2_command as cli
from lm2 import LM2Config, LM2ForCausalLM
from lm2.training import train
from lm2.training.export import export
from tests.gguf_files import byte_tokenizer
from tests.training.test_trainer import SHAPE, T, a_run, lm2, rmt


def tied() -> LM2ForCausalLM:
    return LM2ForCausalLM(
        LM2Config(**SHAPE, segment_length=T, memory_slots=3, memory_heads=2, tie_word_embeddings=True)
    )


@pytest.mark.parametrize("model", [lm2, tied, rmt])
def test_a_checkpoint_becomes_a_model(tmp_path, model, capsys):
    run = a_run(tmp_path / "run", model, max_grad_norm=0.5)
    trained = train(run).model.eval()
    checkpoint, out = run.output_dir / "checkpoint-6", tmp_path / "out"
    assert cli.main(["export", str(checkpoint), str(out)]) == 0
    assert "each weight was read back" in capsys.readouterr().out
    expected, written = load_file(checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    assert expected.keys() == written.keys()
    assert all(torch.equal(expected[name], written[name]) for name in expected)
    ids = torch.arange(1, 12)[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(out)(ids).logits, trained(ids).logits)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_errors_name_what_is_wrong(tmp_path, capsys):
    built = lm2()
    built.save_pretrained(tmp_path / "good")
    weights = tmp_path / "good" / "model.safetensors"

    def error_of(source, out="out") -> str:
        assert cli.main(["export", str(tmp_path / source), str(tmp_path / out)]) == 2
        return capsys.readouterr().err

    assert "good already exists" in error_of("good", "good")
    assert "none has no config.json" in error_of("none")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged file" in error_of("good")
    weights.unlink()
    assert "is incomplete: of model.embed_tokens.weight it has 0 of 272 numbers" in error_of("good")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_shape_are_refused(tmp_path):
    lm2().save_pretrained(tmp_path / "good")
    path = tmp_path / "good" / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].T.contiguous()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"is incomplete: of model\.embed_tokens\.weight it has 272 of 272 numbers"):
        export(tmp_path / "good", tmp_path / "out")


def test_a_weight_that_is_not_written_as_it_is_leaves_nothing(tmp_path, monkeypatch):
    lm2().save_pretrained(tmp_path / "good")
    own = PreTrainedModel.save_pretrained

    def failing(model, folder, state_dict):
        own(model, folder, state_dict={**state_dict, "model.norm.weight": state_dict["model.norm.weight"] + 1})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", failing)
    with pytest.raises(OSError, match=r"model\.norm\.weight was not written as it is"):
        export(tmp_path / "good", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_generation_settings_and_a_tokenizer_go_along(tmp_path):
    words, out = byte_tokenizer(), tmp_path / "out"
    shape = {**SHAPE, "vocab_size": len(words)}
    model = LM2ForCausalLM(LM2Config(**shape, segment_length=T, memory_slots=3, memory_heads=2))
    model.generation_config.update(do_sample=True, temperature=0.3, eos_token_id=[4, 7])
    model.save_pretrained(tmp_path / "good")
    words.save_pretrained(tmp_path / "words")
    assert cli.main(["export", str(tmp_path / "good"), str(out), "--tokenizer", str(tmp_path / "words")]) == 0
    before, after = (GenerationConfig.from_pretrained(folder).to_dict() for folder in (tmp_path / "good", out))
    assert after == before
    assert AutoTokenizer.from_pretrained(out).get_vocab() == words.get_vocab()


def test_a_tokenizer_of_more_tokens_than_the_model_does_not_go_along(tmp_path, capsys):
    lm2().save_pretrained(tmp_path / "good")
    byte_tokenizer().save_pretrained(tmp_path / "words")
    flags = ("--tokenizer", str(tmp_path / "words"))
    assert cli.main(["export", str(tmp_path / "good"), str(tmp_path / "out"), *flags]) == 2
    assert "words: the tokenizer writes ids up to 96, and the model has embeddings of 17 " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "words"]
