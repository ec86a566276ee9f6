"""What `generate` needs to know about an `LM2Cache`: three hooks around Hugging Face's own methods."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin

from lm2.cache import LM2Cache
from lm2.configuration import LM2Config


class LM2GenerationMixin(GenerationMixin):
    """`generate` for LM2.

    With `past_key_values=cache` and no mask, `input_ids` are new tokens only. With a mask as long as `input_ids`, these
    are the whole text, and the part that the cache holds is skipped, as in Hugging Face; `inputs_embeds` always are.

    Raises:
        ValueError: an empty prompt, one that ends with a pad, nothing new in a whole text, `use_cache=False` with a
            cache, or another kind of cache asked for.
    """

    config: LM2Config

    def _prepare_cache_for_generation(  # ty: ignore
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        _check_ends(model_kwargs.get("attention_mask"))
        if (kind := generation_config.cache_implementation) is not None:
            raise ValueError(f"cache_implementation is {kind!r}, and this model's state is an LM2Cache: leave it out")
        given = model_kwargs.get("past_key_values") is not None
        if generation_config.use_cache is False and given:
            raise ValueError(
                "use_cache is False with a cache to go on from, which would read all again at each token: leave "
                "use_cache out, or where a base was saved so, set model.generation_config.use_cache = True"
            )
        if generation_config.use_cache is not False and not given:
            model_kwargs["past_key_values"] = LM2Cache(self.config)
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # ty: ignore

    def _prepare_attention_mask_for_generation(  # ty: ignore
        self, inputs_tensor: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Tensor:
        """Only called without a mask from the caller. It then covers the cache too, which says that the ids are new."""
        mask = super()._prepare_attention_mask_for_generation(inputs_tensor, generation_config, model_kwargs)
        cache = model_kwargs.get("past_key_values")
        return mask if cache is None else F.pad(mask, (cache.get_seq_length(), 0), value=1)

    def prepare_inputs_for_generation(  # ty: ignore
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Hugging Face looks into this signature for `inputs_embeds`, which take the place of the first `input_ids`."""
        length = (inputs_embeds if inputs_embeds is not None and is_first_iteration else input_ids).shape[1]
        if length < 1:
            raise ValueError("the prompt is empty (it has 0 tokens): pass at least one token")
        if next_sequence_length is not None and next_sequence_length < 1:
            raise ValueError(
                f"with a mask as long as input_ids these are the whole text, and of its {length} tokens the cache "
                f"already holds {length - next_sequence_length}: add a token, or pass only new tokens and no mask"
            )
        given = {"inputs_embeds": inputs_embeds, "is_first_iteration": is_first_iteration, **kwargs}
        return super().prepare_inputs_for_generation(input_ids, next_sequence_length, **given)  # ty: ignore


def _check_ends(mask_BL: Tensor | None) -> None:
    """Raises ValueError if a row of a prompt ends with a pad: of what comes after a pad a model says nothing."""
    if mask_BL is not None and not (last_B := mask_BL[:, -1].bool()).all():
        rows = (~last_B).nonzero().flatten().tolist()
        raise ValueError(
            f"rows {rows} of the prompt end with a pad, and the first token would be made of it: pad on the left "
            "(tokenizer.padding_side = 'left')"
        )
