"""The model inside what people use: Trainer, PEFT and the evaluation harness."""

import warnings

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.baselines.cases import tiny as baseline
from tests.contract.cases import assert_same, random_ids, tiny_model

# Other people's packages warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")


def test_trainer_trains_and_evaluates(tmp_path):
    pytest.importorskip("accelerate")
    model = tiny_model("fewer slots than tokens")
    rows = [{"input_ids": row, "labels": row} for row in random_ids(8, 20)]
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, args, train_dataset=rows, eval_dataset=rows)
    assert trainer.model_accepts_loss_kwargs  # or each pass would have a mean of its own
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
@torch.no_grad()
def test_label_smoothing_is_about_the_next_token(kind, tmp_path):
    """The Trainer then computes the loss itself, of logits and labels that it has to shift."""
    pytest.importorskip("accelerate")
    model = tiny_model("fewer slots than tokens") if kind == "lm2" else baseline(kind)
    ids = random_ids(2, 20) % 20
    args = TrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=1e-9, report_to=[], use_cpu=True)
    smoothed = Trainer(model, args).compute_loss(model, {"input_ids": ids, "labels": ids.clone()})
    assert float(smoothed) == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=1e-5)


def test_lora_starts_as_the_model_and_trains():
    peft = pytest.importorskip("peft")
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    expected = model(ids).logits.detach()
    config = peft.LoraConfig(
        r=2, target_modules=["self_attn.q_proj", "memory.v_proj", "forget_gate"], task_type="CAUSAL_LM"
    )
    tuned = peft.get_peft_model(model, config)
    assert_same(tuned(ids).logits.detach(), expected)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = tuned(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert tuned.generate(input_ids=ids, max_new_tokens=3, pad_token_id=0).shape == (2, 23)


def test_lora_on_all_linear_layers_stays_finite():
    peft = pytest.importorskip("peft")
    model, ids = tiny_model("fewer slots than tokens"), random_ids(4, 30)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(25):
        losses.append(tuned(input_ids=ids, labels=ids).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]
    memory = tuned.get_base_model().model.layers[1].memory
    rho = memory.rho(torch.randn(3, 7, 24))
    assert ((rho >= 0) & (rho <= 1)).all()
    expected = tuned.eval()(ids).logits
    assert_same(tuned.merge_and_unload()(ids).logits.detach(), expected.detach())


def test_the_harness_scores_what_the_model_scores():
    """lm-eval's HFLM right-pads a batch and passes no mask; what comes after a token does not matter to it."""
    tokenizers = pytest.importorskip("tokenizers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval")
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, **{f"w{i}": i for i in range(2, 61)}}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="<s>")
    model = tiny_model("fewer slots than tokens")
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu", max_length=64)
    pairs = [("w5 w9 w4 w33 w8 w7 w6", " w3 w11"), ("w2", " w59"), ("w40 w41 w42 w43 w44 w45 w46 w47 w48", " w2 w3 w4")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    for (context, answer), (score, _) in zip(pairs, harness.loglikelihood(requests, disable_tqdm=True), strict=True):
        ids = torch.tensor([tokenizer(context + answer)["input_ids"]])
        count = len(answer.split())
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)[-count:]
        assert score == pytest.approx(logprobs.gather(1, ids[0, -count:, None]).sum().item(), abs=1e-3)
