"""Reading a saved model, with an error that says what to do when the folder is not one."""

from pathlib import Path
from typing import TYPE_CHECKING

from lm2.folders import check_folder, check_vocabulary, has_tokenizer, read_tokenizer, read_whole, without_tokenizer
from lm2.progress import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lm2 import LM2ForCausalLM


def load(folder: Path) -> "tuple[LM2ForCausalLM, PreTrainedTokenizerBase]":
    """The model of `folder`, in evaluation mode on the GPU if there is one, and its tokenizer.

    Raises:
        ValueError: as `check_folder`, `read_whole`, `read_tokenizer` and `check_vocabulary`; transformers raises
            OSError if there is no file of weights.
    """
    check_folder(folder)
    import torch

    from lm2 import LM2ForCausalLM

    quiet()
    if not has_tokenizer(folder):
        raise ValueError(without_tokenizer(str(folder)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = read_whole(LM2ForCausalLM, folder, str(folder), local_files_only=True).to(device).eval()
    tokenizer = read_tokenizer(folder, str(folder), local_files_only=True)
    check_vocabulary(tokenizer, model.config.vocab_size, str(folder))
    return model, tokenizer
