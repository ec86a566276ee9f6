"""The plain model trains on whole rows, and at every fourth step on single segments."""

import pytest
import torch

from lm2.data.rows import IGNORED
from lm2.demo.recipe import new_backbone
from lm2.reproduce.models import contender
from lm2.reproduce.sizes import SMOKE
from lm2.reproduce.turns import by_turns, cut
from lm2.reproduce.work import Work

T = SMOKE.recipe.segment_length


def test_a_row_is_cut_into_its_segments_and_the_last_is_filled_up():
    row_BL = torch.arange(14).reshape(2, 7)
    assert cut(row_BL, 4, fill=-1).tolist() == [[0, 1, 2, 3], [4, 5, 6, -1], [7, 8, 9, 10], [11, 12, 13, -1]]
    assert torch.equal(cut(row_BL, 7, fill=-1), row_BL)
    assert cut(row_BL[:, :3], 7, fill=-1).tolist() == [[0, 1, 2, *4 * [-1]], [7, 8, 9, *4 * [-1]]]


def losses(ids_BL: torch.Tensor, step: int) -> float:
    """The loss of the last ten tokens, all of the second segment."""
    torch.manual_seed(0)
    model = contender("plain", new_backbone(SMOKE.recipe, 50), SMOKE).eval()
    labels_BL = ids_BL.where(torch.arange(ids_BL.shape[1]) >= ids_BL.shape[1] - 10, IGNORED)
    return by_turns(T, pad=0)(model, {"input_ids": ids_BL, "labels": labels_BL}, step).loss.item()


def test_by_turns_a_question_sees_the_whole_row_and_its_segment_alone():
    ids_BL = torch.randint(1, 50, (2, 2 * T - 5), generator=torch.Generator().manual_seed(1))
    other_BL = ids_BL.clone()
    other_BL[:, :T] = (ids_BL[:, :T] + 7) % 50
    for whole in (0, 1, 2, 4):
        assert losses(ids_BL, whole) != losses(other_BL, whole)
    for alone in (3, 7):
        assert losses(ids_BL, alone) == losses(other_BL, alone)
        assert losses(ids_BL, alone) == pytest.approx(losses(ids_BL[:, T:], 0), rel=1e-5)


def test_only_the_plain_model_is_trained_so(finished):
    work = Work(finished.config, finished.sizes)
    rmt, plain = (work._training(name, 1e-3, finished.config.out / name)[0] for name in ("rmt", "plain"))
    assert rmt.training_forward is None
    assert plain.training_forward.keywords == {"segment_length": T, "pad": work.rows().pad}
