"""lm-evaluation-harness around any of our models: nothing is cut in silence, and progress is shown.

The harness scores a batch padded on the right and without a mask. That is right for every model here, because what
follows a token does not change what the model says at it; LM2 included, whose open segment is written only when it is
complete, after the last real token of that row has been scored.

What all inputs of a task begin with, such as its worked examples, is run once; each input goes on from a copy of that
state, and its logits are those of the tokens behind. The harness finds them, since it counts from their end.

Some tokenizers put an end token behind a text, and the harness would find that where it looks for the answer, or have
the model go on behind it: here it is left out.

It would cut inputs from the left to the configuration's maximum length. Models with a memory have none; for the others
an input that does not fit stops the run.

Only this module imports `lm_eval`, an optional package, so import it inside functions.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from lm2.baselines.segments import SegmentedForCausalLM
from lm2.data.tokenizer import closing
from lm2.errors import in_a_line
from lm2.evaluation.runners.attention import max_positions, reads_in_parts
from lm2.evaluation.runners.decoding import shared_start

UNLIMITED = 2**31
"""The harness wants a number."""

# B = rows, L = columns of a batch


class HarnessModel(HFLM):
    """A model as the harness sees it.

    Attributes:
        longest: tokens of the longest input so far (the answer's last token is not an input).

    Args:
        advance: called with the number of inputs finished since the last call.
        max_length: tokens that the model takes; None asks the model, and models with a memory take any number.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 1,
        advance: Callable[[int], None] = lambda rows: None,
        max_length: int | None = None,
    ):
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,  # ty: ignore[invalid-argument-type]  (any tokenizer does)
            backend="causal",
            batch_size=batch_size,
            max_length=max_length or max_positions(model) or UNLIMITED,
        )
        self.advance, self.longest = advance, 0
        self._closing = closing(tokenizer)
        self._head: tuple[int, Cache] | None = None
        self._in_parts = reads_in_parts(model)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list, *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        self._check_lengths([len(context) + len(answer) - 1 for _, context, answer in requests])
        self._head = self._read_head([context for _, context, _ in requests])
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, *args: Any, **kwargs: Any) -> list[int]:
        if add_special_tokens is None and self.prefix_token_id is None:
            add_special_tokens = True  # as by default, but the harness looks for no text of a token that is not there
        ids = super().tok_encode(string, add_special_tokens, *args, **kwargs)
        return ids[:-1] if self._closing and ids[-1:] == self._closing else ids

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Prompts to generate from; here the harness would cut to `left_truncate_len`."""
        ids_BL, mask_BL = super().tok_batch_encode(strings, padding_side)
        if self._closing and padding_side == "left" and (ids_BL[:, -1] == self._closing[0]).all():
            ids_BL, mask_BL = ids_BL[:, :-1], mask_BL[:, :-1]
        self._check_lengths(mask_BL.sum(1).tolist(), left_truncate_len)
        return ids_BL, mask_BL

    def _check_lengths(self, lengths: Sequence[int], limit: int | None = None) -> None:
        limit = limit or self.max_length
        cut = sum(length > limit for length in lengths)
        if cut:
            raise ValueError(
                f"{cut} of {len(lengths)} inputs have more tokens than the model takes ({max(lengths):,} against "
                f"{limit:,}), and the harness would cut them from the left: use fewer --shots, or a model that takes "
                "longer inputs"
            )
        self.longest = max(self.longest, *lengths)

    @torch.no_grad()
    def _read_head(self, contexts: Sequence[list[int]]) -> tuple[int, Cache] | None:
        """The number of tokens that all contexts begin with, short of the last of any, and the state after them."""
        shared = min(shared_start(*contexts), min(map(len, contexts)) - 1)
        if shared < 1 or len(contexts) == 1 or not self._in_parts:
            return None
        ids_BL = torch.tensor([contexts[0][:shared]], device=self.device)
        state = self.model(ids_BL, use_cache=True, logits_to_keep=1).past_key_values
        return (shared, state) if isinstance(state, Cache) else None

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        logits = super()._model_call(inps) if self._head is None else self._go_on(inps, *self._head)
        self.advance(len(inps))
        return logits

    @torch.no_grad()
    def _go_on(self, ids_BL: Tensor, read: int, state: Cache) -> Tensor:
        state = deepcopy(state)
        state.batch_repeat_interleave(len(ids_BL))
        return self.model(ids_BL[:, read:], past_key_values=state, use_cache=True).logits

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        if isinstance(self.model, SegmentedForCausalLM):
            mask_BL = generation_kwargs["attention_mask"]
            answer = self.model.generate_answer(
                context, mask_BL, max_new_tokens=max_length - context.shape[1], eos_token_id=self.eot_token_id
            )
            output = torch.cat([context, answer], dim=1)
        else:
            output = super()._model_generate(context, max_length, stop, **generation_kwargs)
        self.advance(len(context))
        return output


def task_manager(folder: str, **metadata: Any) -> TaskManager:
    """The harness's own tasks in a folder of its collection; `metadata` reaches the functions that make their data.

    The whole collection is 14,000 files, which take it some 20 seconds to read.
    """
    tasks = Path(lm_eval.__file__).parent / "tasks" / folder
    return TaskManager(include_path=[tasks], include_defaults=False, metadata=metadata)


def load_tasks(manager: TaskManager, names: Sequence[str], changes: Sequence[dict[str, Any]] = ()) -> list[Any]:
    """Tasks with their data, in order; `changes` replaces parts of each one's definition.

    Raises:
        ValueError: the data cannot be had; the text has the reason.
    """
    members = [{"task": name, **change} for name, change in zip(names, changes or [{}] * len(names), strict=True)]
    try:
        with quiet():  # only as members of a group can registered tasks be changed
            tasks = manager.load([{"group": "lm2", "task": members}])["tasks"]
    except (OSError, RuntimeError, KeyError, ImportError) as error:
        raise ValueError(f"the data of {', '.join(names[:3])} cannot be loaded ({in_a_line(error)[:300]})") from error
    return [tasks[name] for name in names]


def run_task(model: HarnessModel, task: Any, shots: int, limit: int | None) -> list[dict[str, Any]]:
    """Evaluate one task, and return the harness's own record of each question, in order."""
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=0)
    tasks = {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}}
    with quiet():
        results = evaluate(model, tasks, limit=limit, bootstrap_iters=0)
    assert results is not None
    return sorted(results["samples"][task.task_name], key=lambda sample: sample["doc_id"])


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the harness's bars and notices off the terminal; ours goes to the stream it was made with."""
    hidden = io.StringIO()
    with contextlib.redirect_stderr(hidden), contextlib.redirect_stdout(hidden), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
