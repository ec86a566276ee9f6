"""The memory of one block: a bank of slots that the tokens of a segment read, and that each complete segment writes.

Shape suffixes: R rows, S segments, T tokens of a segment (or any number of tokens that read), N slots, D width of the
block, H memory heads, E width of a head (D = H E). A bank is (R, N, D) and float32, always.

The computation has two halves. The token side (`project`) is one product over all segments. The bank side is float32
under autocast and with bfloat16 weights: the largest bfloat16 below 1 is 0.996, and 0.996^256 = 0.37, so a rounded
forget gate forgets.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from lm2.configuration import LM2Config

HEAD_EPS = 1e-6
# Bounds the slope of C at 1 / eps. One head's C reaches the gates of all heads, also where its own mass is 0, and the
# slope of an exact average has no bound there: gradients of 1e4 and more kept the memory from learning.
OFFER_EPS = 5e-2
# A token replaces at most this share of what a slot was offered before it: log(1 - share) stays finite.
MOST_SHARE = 0.99


def initial_bank(slots: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """M_0: the identity, and below it further fixed orthonormal bases, for slots that start equal stay equal for ever.

    The further bases are the cosine transform (DCT-II) with seeded signs of its columns: closed form, hence the same on
    every machine.

    Returns:
        (N, D), float32, each row of norm 1.

    Source: LM2 (arXiv 2502.06049, section 2.1), the identity start; the rows beyond D are ours.
    """
    # A tensor that stands in for others, of a compiler or of shapes alone, must not be kept for those to come.
    real = type(torch.empty(0, device="cpu")) is Tensor and not torch.compiler.is_compiling()
    further = _kept_cosines if real else _signed_cosines
    bases = [torch.eye(min(slots, width), width, dtype=torch.float32, device=device)]
    for seed in range((slots - 1) // width):
        bases.append(further(width, seed).to(device))
    return torch.cat(bases)[:slots]


def _signed_cosines(width: int, seed: int) -> Tensor:
    row = torch.arange(width, dtype=torch.float64, device="cpu")[:, None]
    column = torch.arange(width, dtype=torch.float64, device="cpu")[None, :]
    basis = torch.cos(torch.pi / width * (column + 0.5) * row) * (2 / width) ** 0.5
    basis[0] *= 0.5**0.5
    generator = torch.Generator("cpu").manual_seed(seed)
    sign = torch.randint(0, 2, (width,), generator=generator, device="cpu") * 2 - 1
    return (basis * sign).float()


_kept_cosines = cache(_signed_cosines)  # every block asks in every call, and those of 2,048 slots take 45 ms


def normalise(bank_RND: Tensor) -> Tensor:
    """M^ = M / sqrt(mean(M^2) + 1/D): RMSNorm without a weight, for rows from the identity's on.

    1/D is the mean square of a row of the identity, so the slope stays bounded where a row is almost empty.
    """
    width = bank_RND.shape[-1]
    return F.rms_norm(bank_RND, (width,), eps=1 / width)


class MemoryLinear(nn.Linear):
    """A linear map of the memory, started at standard deviation 1/sqrt(D).

    It is a class of its own because Hugging Face initialises a module by its class, and because a bare container of
    parameters is skipped when a model from outside its package is loaded.
    """

    def __init__(self, width: int, out_width: int, in_width: int | None = None, bias: bool = False, start: float = 0.0):
        self.width, self.start = width, start
        super().__init__(in_width or width, out_width, bias=bias)

    def reset_parameters(self) -> None:
        init.normal_(self.weight, mean=0.0, std=self.width**-0.5)
        if self.bias is not None:
            init.constant_(self.bias, self.start)


class Float32Linear(MemoryLinear):
    """A linear map computed in float32 whatever the weights' and autocast's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float(), bias)


class OutputGate(Float32Linear):
    """sigmoid(E_mem W_out + b): how much of what was read joins the residual stream (LM2, eq. 2)."""

    def __init__(self, width: int):
        super().__init__(width, width, bias=True)


class WriteGate(Float32Linear):
    """x W_rho + b, of which `Worth` makes rho. That is outside of it, for an adapter adds to what a layer returns."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads, bias=True)


class Worth(nn.Module):
    """rho = clip(1.2 sigmoid(z) - 0.1, 0, 1): whether a token is worth writing, with true zeros and ones.

    Its gradient is that of the unclipped function everywhere, or a token that is dropped once could never come back. A
    module, so that hooks can see and change it.
    """

    def forward(self, z: Tensor) -> Tensor:
        wide = 1.2 * z.sigmoid() - 0.1
        return wide + (wide.clamp(0, 1) - wide).detach()


class HeadRMSNorm(nn.Module):
    """RMSNorm of each head's query or key with a learned scale, in float32: how sharp the alignment can be."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_E: Tensor) -> Tensor:
        return F.rms_norm(x_E.float(), self.weight.shape, self.weight.float(), HEAD_EPS)


class UpdateGate(Float32Linear):
    """z = C W + M^ W' + b, one product over the two inputs side by side; (R, N, D) and (R, N, D) to (R, N, D)."""

    def __init__(self, width: int, start: float = 0.0):
        super().__init__(width, width, in_width=2 * width, bias=True, start=start)


class LM2Memory(nn.Module):
    """Read and write of one block's bank, for a whole batch of segments or for one step.

        read    Q = norm(X W_Q)   K = norm(M^ W_K)   V = M^ W_V   A = softmax over slots (Q K^T / sqrt(E))
                E_mem = A V
                E_next = E_attn + sigmoid(E_mem W_out + b) * E_mem
        write   a_tn = 0.99 rho_t A_tn                           p_n = 1 - prod_t (1 - a_tn)
                C_n = (sum_t a_tn prod_{t' > t} (1 - a_t'n) x_t W_U) / (p_n + eps)
                z_in = C W_in + M^ W'_in + b                     z_fgt = C W_fgt + M^ W'_fgt + b
                f = sigmoid(z_fgt)^p                              rows to RMS <= 1:
                M_s = clip(f * M_{s-1} + (1 - f) * M_0 + p sigmoid(z_in) * tanh(C))

    Tokens of segment s read M_{s-1}, and M_s exists when segment s is complete: causal by construction.

    Where Hugging Face's activation checkpointing is on, each write is recomputed in the backward pass: of the walk over
    the segments only the banks are kept, not the alignments. DDP takes no reentrant checkpoint inside another one.

    Source: LM2 (arXiv 2502.06049), eqs. 1-6; where and why this differs: `docs/model.md`.
    """

    gradient_checkpointing = False  # Hugging Face sets it, and the function that goes with it.
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, config: LM2Config):
        super().__init__()
        assert config.memory_heads is not None
        assert config.memory_key_value_heads is not None
        width = config.hidden_size
        self.slots, self.width, self.topk = config.memory_slots, width, config.memory_topk
        self.heads, self.key_value_heads = config.memory_heads, config.memory_key_value_heads
        key_value_width = width // self.heads * self.key_value_heads
        self.q_proj = MemoryLinear(width, width)
        self.k_proj = Float32Linear(width, key_value_width)
        self.v_proj = Float32Linear(width, key_value_width)
        self.u_proj = MemoryLinear(width, width)
        self.q_norm = HeadRMSNorm(width // self.heads)
        self.k_norm = HeadRMSNorm(width // self.heads)
        self.write_gate, self.worth = WriteGate(width, self.heads), Worth()
        self.output_gate = OutputGate(width)
        self.input_gate = UpdateGate(width, start=2.0)
        self.forget_gate = UpdateGate(width, start=1.0)

    def initial_bank(self, rows: int, device: torch.device) -> Tensor:
        """M_0 for each row: (R, N, D), float32."""
        return initial_bank(self.slots, self.width, device).expand(rows, -1, -1)

    def forward(
        self,
        x_RSTD: Tensor,
        bank_RND: Tensor,
        complete_RS: Tensor,
        cut_RS: Tensor | None = None,
        fresh_RS: Tensor | None = None,
        keep: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Read every segment, and write each complete one into the bank that the next segment reads.

        Args:
            x_RSTD: the block's normed inputs.
            bank_RND: the bank that the first segment reads.
            complete_RS: whether a row's segment has all its T tokens; others are never written. On the CPU.
            cut_RS: where the gradient stops: before segment s the bank is detached. On the CPU.
            fresh_RS: where the bank begins anew: segment s reads M_0. On the CPU.
            keep: whether the bank after the last segment is wanted; without it the last write is left out.

        Returns:
            g_out * E_mem, (R, S, T, D) in the dtype of x, and the last bank.
        """
        q_RSTD, rho_RSTH, u_RSTD = self.project(x_RSTD)
        with torch.autocast(x_RSTD.device.type, enabled=False):
            norm_RSND, bank_RND = self.scan(q_RSTD, rho_RSTH, u_RSTD, bank_RND, complete_RS, cut_RS, fresh_RS, keep)
            out_RSTD = self.gate(self.read(q_RSTD, norm_RSND))
            if x_RSTD.shape[1] == 1 and torch.is_grad_enabled():
                out_RSTD = out_RSTD + zero_from(self)
        return out_RSTD.to(x_RSTD.dtype), bank_RND

    def step(
        self,
        x_RTD: Tensor,
        segment_RTD: Tensor,
        bank_RND: Tensor,
        complete_R: Tensor,
        contents: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Read for some tokens of the open segment, and write that segment where it is now complete.

        Args:
            x_RTD: the new tokens' normed inputs, any number of them.
            segment_RTD: the open segment's normed inputs, new tokens included.
            bank_RND: the bank that the open segment reads.
            complete_R: the rows whose segment is complete. On the CPU.
            contents: of that bank, where they are known; made anew with gradients, or W_K and W_V would have none.

        Returns:
            As `forward`, and that bank's contents: None where it is another now, and with gradients.
        """
        learns = torch.is_grad_enabled()
        with torch.autocast(x_RTD.device.type, enabled=False):
            contents = (None if learns else contents) or self.contents(normalise(bank_RND))
            out_RTD = self.gate(self.look_up(self.query(x_RTD), *contents))
        if complete_R.any():
            parts = self.project(segment_RTD[:, None])
            with torch.autocast(x_RTD.device.type, enabled=False):
                _, bank_RND = self.scan(*parts, bank_RND, complete_R[:, None], None, None, keep=True)
        out_RTD = out_RTD + zero_from(self) if learns else out_RTD
        return out_RTD.to(x_RTD.dtype), bank_RND, None if learns or complete_R.any() else contents

    def query(self, x: Tensor) -> Tensor:
        """Q = RMSNorm per head (X W_Q), float32."""
        return self.q_norm(self.q_proj(x).unflatten(-1, (self.heads, -1))).flatten(-2)

    def keys(self, norm_RND: Tensor) -> Tensor:
        """K = RMSNorm per head (M^ W_K): (R, K, N, E)."""
        return self.k_norm(self._split(self.k_proj(norm_RND)))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The token side, for any leading shape: queries (.., D), rho (.., H) and offers x W_U (.., D), all float32."""
        return self.query(x), self.rho(x), self.u_proj(x).float()

    def rho(self, x: Tensor) -> Tensor:
        """Whether each token is worth writing, per head: (.., H), float32."""
        return self.worth(self.write_gate(x))

    def scan(
        self,
        q_RSTD: Tensor,
        rho_RSTH: Tensor,
        u_RSTD: Tensor,
        bank_RND: Tensor,
        complete_RS: Tensor,
        cut_RS: Tensor | None,
        fresh_RS: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """Walk the bank over the segments. Returns M^ as each segment reads it, (R, S, N, D), and the last bank."""
        norms = []
        segments = q_RSTD.shape[1]
        start_ND = initial_bank(self.slots, self.width, bank_RND.device)
        recompute = self.gradient_checkpointing and self.training
        write = partial(self._gradient_checkpointing_func, self.write, use_reentrant=False) if recompute else self.write
        for s in range(segments):
            if cut_RS is not None:
                bank_RND = _where(cut_RS[:, s], bank_RND.detach(), bank_RND)
            if fresh_RS is not None:
                bank_RND = _where(fresh_RS[:, s], start_ND.expand_as(bank_RND), bank_RND)
            norm_RND = normalise(bank_RND)
            norms.append(norm_RND)
            if (s < segments - 1 or keep) and complete_RS[:, s].any():
                written_RND = write(bank_RND, norm_RND, start_ND, q_RSTD[:, s], rho_RSTH[:, s], u_RSTD[:, s])
                bank_RND = _where(complete_RS[:, s], written_RND, bank_RND)
        return torch.stack(norms, 1), bank_RND

    def write(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, q_RTD: Tensor, rho_RTH: Tensor, u_RTD: Tensor
    ) -> Tensor:
        """M_s from M_{s-1} and the tokens of segment s."""
        alignment_RHTN = self.align(q_RTD, norm_RND)
        mass_RND, offer_RND = self.offer(alignment_RHTN, rho_RTH, u_RTD)
        return self.update(bank_RND, norm_RND, start_ND, mass_RND, offer_RND)

    def align(self, q_RTD: Tensor, norm_RND: Tensor) -> Tensor:
        """A = softmax over slots (Q K^T / sqrt(E)): (R, H, T, N)."""
        return self._scores(self._split(q_RTD), self.keys(norm_RND)).softmax(-1)

    def attend(self, q_RTD: Tensor, norm_RND: Tensor) -> Tensor:
        """A as it is read with: the same, with `memory_topk` over the k best slots only."""
        return self._attend(self._split(q_RTD), self.keys(norm_RND))

    def _attend(self, q_RHTE: Tensor, k_RKNE: Tensor) -> Tensor:
        scores_RHTN = self._scores(q_RHTE, k_RKNE)
        if self.topk is not None:
            kth = scores_RHTN.topk(self.topk, -1).values[..., -1:]
            scores_RHTN = scores_RHTN.masked_fill(scores_RHTN < kth, -torch.inf)
        return scores_RHTN.softmax(-1)

    def offer(self, alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        """What the segment offers to each slot: the mass p, spread over the heads' columns, and the content C.

        In closed form what token after token would leave: a_t = 0.99 rho_t A_tn, O <- (1 - a_t) O + a_t x_t W_U, and
        p = 1 - prod_t (1 - a_t) is the sum of the weights that the tokens end with.
        """
        weight_RHTN, mass_RHN1 = self.weigh(alignment_RHTN, rho_RTH)
        offer_RHNE = weight_RHTN.transpose(2, 3) @ self._split(u_RTD) / (mass_RHN1 + OFFER_EPS)
        return _join(mass_RHN1.expand_as(offer_RHNE)), _join(offer_RHNE)

    def weigh(self, alignment_RHTN: Tensor, rho_RTH: Tensor) -> tuple[Tensor, Tensor]:
        """What each token weighs in what a slot is offered, (R, H, T, N), and their sum p, (R, H, N, 1)."""
        share_RHTN = MOST_SHARE * alignment_RHTN * rho_RTH.transpose(1, 2)[..., None]
        left_RHTN = torch.log1p(-share_RHTN).cumsum(2)
        weight_RHTN = share_RHTN * (left_RHTN[:, :, -1:] - left_RHTN).exp()
        return weight_RHTN, -torch.expm1(left_RHTN[:, :, -1])[..., None]

    def update(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> Tensor:
        """Forget and write in proportion to the mass, then bring each row back to RMS 1 where it is above.

        What is forgotten goes back to the row's start, not to zero, so that slots never become the same.
        """
        kept_RND, restored_RND, added_RND = self.parts(bank_RND, norm_RND, start_ND, mass_RND, offer_RND)
        new_RND = kept_RND + restored_RND + added_RND
        return new_RND * new_RND.square().mean(-1, keepdim=True).clamp_min(1).rsqrt()

    def parts(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a write is the sum of, (R, N, D) each: what stays, what goes back to the start, and what is new."""
        both = torch.cat([offer_RND, norm_RND], -1)
        forget_RND = (mass_RND * F.logsigmoid(self.forget_gate(both))).exp()
        input_RND = mass_RND * self.input_gate(both).sigmoid()
        return forget_RND * bank_RND, (1 - forget_RND) * start_ND, input_RND * offer_RND.tanh()

    def read(self, q_RSTD: Tensor, norm_RSND: Tensor) -> Tensor:
        """E_mem = A V for all segments at once: (R, S, T, D). With `memory_topk` only the k best slots are in A."""
        e_BTD = self.look_up(q_RSTD.flatten(0, 1), *self.contents(norm_RSND.flatten(0, 1)))
        return e_BTD.unflatten(0, q_RSTD.shape[:2])

    def contents(self, norm_RND: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of a bank, (R, K, N, E) each: all that reading needs of it."""
        return self.keys(norm_RND), self._split(self.v_proj(norm_RND))

    def look_up(self, q_RTD: Tensor, k_RKNE: Tensor, v_RKNE: Tensor) -> Tensor:
        """E_mem = A V of a bank's contents: (R, T, D)."""
        q_RHTE = self._split(q_RTD)
        if self.topk is None:
            grouped = self.heads != self.key_value_heads
            return _join(F.scaled_dot_product_attention(q_RHTE, k_RKNE, v_RKNE, enable_gqa=grouped))
        return _join(self._attend(q_RHTE, k_RKNE) @ self._per_query_head(v_RKNE))

    def gate(self, read: Tensor) -> Tensor:
        """g_out * E_mem."""
        return self.output_gate(read).sigmoid() * read

    def _split(self, x_RTD: Tensor) -> Tensor:
        return x_RTD.unflatten(-1, (-1, self.width // self.heads)).transpose(1, 2)

    def _per_query_head(self, x_RKNE: Tensor) -> Tensor:
        return x_RKNE.repeat_interleave(self.heads // self.key_value_heads, dim=1)

    def _scores(self, q_RHTE: Tensor, k_RKNE: Tensor) -> Tensor:
        return q_RHTE @ self._per_query_head(k_RKNE).transpose(-1, -2) * q_RHTE.shape[-1] ** -0.5


def zero_from(memory: nn.Module) -> Tensor:
    """0, reached from every parameter: one segment feels no write, but optimizers and DDP need each gradient."""
    return torch.stack([parameter.float().sum() * 0 for parameter in memory.parameters()]).sum()


def _join(x_RHNE: Tensor) -> Tensor:
    return x_RHNE.transpose(1, 2).flatten(-2)


def _where(choice_R: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Row-wise choice; `choice_R` lives on the CPU, so the usual case of one answer for all rows costs nothing."""
    if choice_R.all():
        return yes
    if not choice_R.any():
        return no
    return torch.where(choice_R.to(yes.device)[:, None, None], yes, no)
