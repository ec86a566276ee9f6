"""Contenders have equal numbers of parameters, and those without a trained memory say what the backbone says."""

from dataclasses import replace

import pytest
import torch

from lm2.demo.recipe import new_backbone
from lm2.reproduce.models import contender, widened
from lm2.reproduce.sizes import CONTENDERS, FULL, SMOKE


@pytest.mark.parametrize("sizes", [SMOKE, FULL])
def test_parameters_are_within_two_per_cent(sizes):
    backbone = new_backbone(sizes.recipe, sizes.recipe.vocabulary)
    counts = {name: contender(name, backbone, sizes).num_parameters() for name in CONTENDERS}
    assert max(counts.values()) <= 1.02 * min(counts.values())


def test_a_wider_backbone_says_the_same_and_can_learn_more():
    torch.manual_seed(0)
    backbone = new_backbone(SMOKE.recipe, 50)
    wide = widened(backbone, 2000)
    ids = torch.randint(50, (2, 20))
    torch.testing.assert_close(wide(ids).logits, backbone(ids).logits)
    added = wide.num_parameters() - backbone.num_parameters()
    assert abs(added - 2000) <= 3 * 32 * 2 / 2
    wide(ids, labels=ids).loss.backward()
    new = wide.model.layers[0].mlp.down_proj.weight.grad[:, SMOKE.recipe.intermediate_size :]
    assert (new != 0).all()


def test_the_plain_model_sees_a_whole_row_and_no_further():
    torch.manual_seed(0)
    backbone, whole = new_backbone(SMOKE.recipe, 50), SMOKE.recipe.segment_length * SMOKE.attention_segments
    plain = contender("plain", backbone, SMOKE).eval()
    ids = torch.randint(50, (1, whole + 5))
    torch.testing.assert_close(plain(ids[:, :whole]).logits, backbone(ids[:, :whole]).logits)
    torch.testing.assert_close(plain(ids).logits[:, whole:], backbone(ids[:, whole:]).logits)


def test_a_backbone_has_the_rotary_base_and_the_output_scale_of_its_recipe():
    torch.manual_seed(0)
    plain = new_backbone(replace(SMOKE.recipe, rope_theta=100.0, output_scale=1.0), 50)
    torch.manual_seed(0)
    scaled = new_backbone(replace(SMOKE.recipe, rope_theta=500.0, output_scale=0.25), 50)
    assert scaled.config.rope_parameters["rope_theta"] == 500.0
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        torch.testing.assert_close(after, 0.25 * before if writes else before, rtol=0, atol=0)
