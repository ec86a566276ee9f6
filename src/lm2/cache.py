"""`LM2Cache`: all that a model remembers of the rows it has read, as a value to copy, select, save and load.

Shape suffixes: R rows, K key/value heads, T segment length, P look-back, E head width, D width, N slots.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Cache

from lm2.configuration import LM2Config
from lm2.files import replacing
from lm2.memory import initial_bank

if TYPE_CHECKING:
    from lm2.modeling import LM2PreTrainedModel

SCHEMA = 2

# Fields that say where a model came from or how it is run or trained, not what it computes.
_NOT_IDENTITY = (
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "bptt_segments",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "transformers_version",
    "use_cache",
)

_SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "num_key_value_heads",
    "segment_length",
    "look_back",
    "memory_slots",
    "memory_indices",
)


class LayerState(NamedTuple):
    """One block's state. Tensors are replaced, never changed in place, so states can share them.

    keys, values: (R, K, T, E), the open segment's, by position; beyond a row's count they hold anything.
    pending: (R, T, D), the block inputs of the open segment that its write will need; None without a bank.
    bank: (R, N, D), float32; None without a bank.
    tail_keys, tail_values: (R, K, P, E), those of the P tokens before the open segment, the keys turned to positions -P
        to -1; they hold anything for a row without a complete segment; None without look-back.
    bank_keys, bank_values: (R, K, N, E), what decoding reads of this very bank, so that it is computed once a segment;
        None where nothing was decoded yet. Whoever puts another bank here uses `with_bank`.
    """

    keys: Tensor
    values: Tensor
    pending: Tensor | None
    bank: Tensor | None
    tail_keys: Tensor | None
    tail_values: Tensor | None
    bank_keys: Tensor | None = None
    bank_values: Tensor | None = None

    @property
    def contents(self) -> tuple[Tensor, Tensor] | None:
        """K and V of the bank, where they are known."""
        if self.bank_keys is None or self.bank_values is None:
            return None
        return self.bank_keys, self.bank_values

    def with_bank(self, bank: Tensor | None) -> "LayerState":
        """The same with another bank."""
        return self._replace(bank=bank, bank_keys=None, bank_values=None)

    def map(self, change: Callable[[Tensor], Tensor]) -> "LayerState":
        return LayerState(*(None if tensor is None else change(tensor) for tensor in self))  # ty: ignore


class LM2Cache(Cache):
    """The state of a batch of rows: per block the open segment and the bank, and the rows' token counts.

    `LM2ForCausalLM.forward` updates the cache it is given and returns the same object, as in Hugging Face; its
    tensors are replaced, never changed in place, so `copy()` is a fork that costs nothing. `copy`, `select`,
    `repeat`, `detach` and `to` return a new cache; `reset` and the methods that Hugging Face names (`reorder_cache`,
    `batch_repeat_interleave`, `batch_select_indices`, `crop`) change this one. All of them move the banks.

    Attributes:
        states: one `LayerState` per block, or an empty list before the first call.
        tokens_R: real tokens that each row has read since its start (CPU).
        seen: columns read so far, pads included: the length that `generate` compares with a full attention mask.
    """

    def __init__(self, config: LM2Config):
        super().__init__(layers=[])
        self.config = config
        self.states: list[LayerState] = []
        self.tokens_R = torch.zeros(0, dtype=torch.long, device="cpu")
        self.seen = 0

    def __repr__(self) -> str:
        return f"LM2Cache(rows={self.rows}, seen={self.seen}, open={self.count_R.tolist()})"

    def __len__(self) -> int:
        return len(self.states)

    @property
    def rows(self) -> int:
        """Rows of the batch; 0 before the first call."""
        return len(self.tokens_R)

    @property
    def count_R(self) -> Tensor:
        """Tokens in each row's open segment, between 0 and T - 1 (CPU)."""
        return self.tokens_R % self.config.segment_length

    def check_fits(self, config: LM2Config, rows: int) -> None:
        """Check that a model of `config` can go on from here with an input of `rows` rows.

        Raises:
            ValueError: the shapes differ.
        """
        for name in _SHAPE:
            if (own := getattr(self.config, name)) != (asked := getattr(config, name)):
                raise ValueError(
                    f"the cache belongs to another model: its {name} is {own} and this model's is {asked}; "
                    "make one with LM2Cache(model.config)"
                )
        if self.states and self.rows != rows:
            raise ValueError(
                f"the cache has {self.rows} rows and the input has {rows}: use cache.select(...) or "
                "cache.repeat(...) to bring them together"
            )

    def record(self, states: Sequence[LayerState], tokens_R: Tensor, columns: int) -> None:
        """Take over what a forward call ends with."""
        self.states, self.tokens_R = list(states), tokens_R
        self.seen += columns

    # Values: these return a new cache.

    def copy(self) -> "LM2Cache":
        """A fork: it shares the tensors, and what happens to one does not touch the other."""
        return self._with(lambda tensor: tensor, self.tokens_R)

    def select(self, rows: Sequence[int] | Tensor) -> "LM2Cache":
        """The rows in the given order; a row may be named twice or not at all. A mask of booleans names those it has.

        Raises:
            ValueError: a row is not there.
        """
        index = self._row_index(rows)
        return self._with(lambda tensor: tensor.index_select(0, index.to(tensor.device)), self.tokens_R[index])

    def repeat(self, times: int) -> "LM2Cache":
        """Each row `times` times, copies next to each other: the order of returned sequences and beams."""
        return self.select(torch.arange(self.rows, device="cpu").repeat_interleave(times))

    def detach(self) -> "LM2Cache":
        """The same values without their gradient history."""
        return self._with(torch.Tensor.detach, self.tokens_R)

    def to(self, device: torch.device | str) -> "LM2Cache":
        """The same values on another device."""
        return self._with(lambda tensor: tensor.to(device), self.tokens_R)

    @property
    def nbytes(self) -> int:
        """Bytes held: constant in the number of tokens read."""
        return sum(tensor.nbytes for state in self.states for tensor in state if tensor is not None)

    # These change this cache, as their namesakes in Hugging Face do.

    def reset(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Forget: the named rows start at M_0 with an empty segment, the others are untouched. None forgets all rows.

        Rows are named as for `select`.

        Raises:
            ValueError: a row is not there.
        """
        if rows is None:
            self.states, self.tokens_R, self.seen = [], self.tokens_R.new_zeros(0), 0
            return
        index = self._row_index(rows)
        chosen_R = torch.zeros(self.rows, dtype=torch.bool, device="cpu").index_fill(0, index, True)
        self.tokens_R = self.tokens_R.masked_fill(chosen_R, 0)
        self.states = [self._reset_state(state, chosen_R) for state in self.states]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._become(self.select(beam_idx))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._become(self.repeat(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._become(self.select(indices))

    def crop(self, tokens_to_remove: int) -> None:
        """Removing no token does nothing; a token that was written cannot be taken back.

        Raises:
            ValueError: for any other number.
        """
        if tokens_to_remove:
            raise ValueError(
                f"an LM2 cache cannot be cropped by {tokens_to_remove} tokens, since what a bank has read stays in it: "
                "keep a copy() from before and go on from there"
            )

    # What `generate` asks.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    @property
    def batch_size(self) -> int:
        return self.rows or -1

    @property
    def is_initialized(self) -> bool:
        return bool(self.states)

    @property
    def is_croppable(self) -> bool:
        return False

    # Disk.

    def save(self, path: str | Path, model: "LM2PreTrainedModel") -> None:
        """Write the state to a safetensors file, whole or not at all.

        Args:
            path: the file.
            model: the model that made the state; its fingerprint goes into the file.

        Raises:
            OSError: the folder is missing or the disk is full; no partial file stays.
        """
        header = {
            "format": "lm2-cache",
            "schema": str(SCHEMA),
            "seen": str(self.seen),
            "fingerprint": fingerprint(model),
        }
        with replacing(path) as beside:
            try:
                tensors = {name: tensor.detach().contiguous() for name, tensor in tensors_of(self).items()}
                save_file(tensors, beside, header)
            except SafetensorError as error:  # How the library reports a failing disk.
                raise OSError(f"the cache was not written to {path}: {error}; no partial file was left") from error

    @classmethod
    def load(cls, path: str | Path, model: "LM2PreTrainedModel") -> "LM2Cache":
        """Read a saved state for `model`, onto its device.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another schema, or of another model.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no cache file {path}: check the path, or save a cache there first")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                _check_header(path, header, model)
                tensors = {name: file.get_tensor(name).to(model.device) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or not a cache file ({error}): save the cache again") from error
        tokens_R = tensors.pop("tokens", torch.zeros(0)).reshape(-1).cpu()
        expected = _sizes(model.config, len(tokens_R)) if tensors or tokens_R.numel() else {}
        sizes = {name: (*tensor.shape[:1], *tensor.shape[-2:-1]) for name, tensor in tensors.items()}
        if tokens_R.dtype != torch.long or sizes != expected:
            raise ValueError(f"{path} does not hold the whole state of this model: save the cache again")
        return cache_of(model.config, {**tensors, "tokens": tokens_R}, int(header["seen"]))

    def _with(self, change: Callable[[Tensor], Tensor], tokens_R: Tensor) -> "LM2Cache":
        other = LM2Cache(self.config)
        other.record([state.map(change) for state in self.states], tokens_R, self.seen)
        return other

    def _become(self, other: "LM2Cache") -> None:
        self.states, self.tokens_R = other.states, other.tokens_R

    def _row_index(self, rows: Sequence[int] | Tensor) -> Tensor:
        index = torch.as_tensor(rows, device="cpu").reshape(-1)
        if index.dtype == torch.bool and len(index) != self.rows:
            raise ValueError(f"the cache has {self.rows} rows, and {len(index)} yes or no were given: give one a row")
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.rows):
            raise ValueError(
                f"the cache has {self.rows} rows, and rows {index.tolist()} were named: name rows from 0 on"
            )
        return index

    def _reset_state(self, state: LayerState, chosen_R: Tensor) -> LayerState:
        if state.bank is None:
            return state
        start_ND = initial_bank(*state.bank.shape[1:], device=state.bank.device)
        chosen_R11 = chosen_R.to(state.bank.device)[:, None, None]
        return state.with_bank(torch.where(chosen_R11, start_ND, state.bank))


def banks_of(cache: LM2Cache) -> list[Tensor | None]:
    """The bank of each block, None where it has no memory."""
    return [state.bank for state in cache.states]


def with_banks(cache: LM2Cache, banks: Sequence[Tensor | None]) -> LM2Cache:
    """A copy of a state with other banks."""
    changed = cache.copy()
    changed.states = [state.with_bank(bank) for state, bank in zip(cache.states, banks, strict=True)]
    return changed


def tensors_of(cache: LM2Cache) -> dict[str, Tensor]:
    """What is saved of a state, by name: all that does not follow from the rest."""
    named = ((i, state.with_bank(state.bank)._asdict()) for i, state in enumerate(cache.states))
    found = {f"{i}.{name}": tensor for i, own in named for name, tensor in own.items() if tensor is not None}
    return {**found, "tokens": cache.tokens_R}


def cache_of(config: LM2Config, tensors: dict[str, Tensor], seen: int) -> LM2Cache:
    """The state whose `tensors_of` these are, after so many columns."""
    cache = LM2Cache(config)
    states = [
        LayerState(**{name: tensors.get(f"{i}.{name}") for name in LayerState._fields})  # ty: ignore
        for i in range(config.num_hidden_layers if len(tensors) > 1 else 0)
    ]
    cache.record(states, tensors["tokens"].cpu(), seen)
    return cache


def fingerprint(model: "LM2PreTrainedModel") -> str:
    """SHA-256 over what the model computes: the configuration's identity fields and every weight, bit for bit."""
    fields = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_IDENTITY}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    weights = {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict().items()}  # if compiled
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _sizes(config: LM2Config, rows: int) -> dict[str, tuple[int, int]]:
    """What a file of so many rows holds, and the rows and columns of each."""
    attention = {"keys": config.segment_length, "values": config.segment_length}
    if config.look_back:
        attention |= {"tail_keys": config.look_back, "tail_values": config.look_back}
    memory = attention | {"pending": config.segment_length, "bank": config.memory_slots}
    blocks = ((i, memory if i in config.memory_indices else attention) for i in range(config.num_hidden_layers))
    return {f"{i}.{name}": (rows, columns) for i, block in blocks for name, columns in block.items()}


def _check_header(path: str | Path, header: dict[str, str], model: "LM2PreTrainedModel") -> None:
    if header.get("format") != "lm2-cache":
        raise ValueError(
            f"{path} is not an LM2 cache file (its format is {header.get('format')}): pass a file that save() made"
        )
    if header.get("schema") != str(SCHEMA):
        raise ValueError(
            f"{path} has cache schema {header.get('schema')} and this version reads {SCHEMA}: read the text again, or "
            "use the version of lm2 that saved it"
        )
    if not header.get("seen", "").isdigit():
        raise ValueError(f"{path} does not say how much was read: save the cache again")
    if (saved := header.get("fingerprint", "none")) != (own := fingerprint(model)):
        raise ValueError(
            f"{path} belongs to another model (fingerprint {saved[:12]}, this model's is {own[:12]}): "
            "load the model that made it, weights and configuration unchanged"
        )
