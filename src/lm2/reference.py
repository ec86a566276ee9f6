"""The equations with loops: slow, plain, and what the fast path is tested against. Imported by tests only.

One row, no padding, no cache. Shape suffixes: T tokens of a segment, N slots, D width, E width of a memory head, V
vocabulary. Equation numbers are those of `docs/model.md`; LM2's own (arXiv 2502.06049) stand in brackets.
"""

import torch
from torch import Tensor

from lm2.memory import HEAD_EPS, MOST_SHARE, OFFER_EPS, LM2Memory, initial_bank
from lm2.modeling import LM2DecoderLayer, LM2ForCausalLM


def reference_logits(model: LM2ForCausalLM, ids_L: Tensor) -> Tensor:
    """Logits of one row, (L, V): segment after segment, and in each segment block after block."""
    config = model.config
    banks = [initial_bank(config.memory_slots, config.hidden_size) for _ in model.model.layers]
    before = [torch.zeros(0, config.hidden_size) for _ in model.model.layers]
    out = []
    for ids_T in ids_L.split(config.segment_length):
        h_TD = model.model.embed_tokens(ids_T)
        for i, layer in enumerate(model.model.layers):
            assert isinstance(layer, LM2DecoderLayer)
            x_TD = layer.input_layernorm(h_TD)
            h_TD, banks[i] = _block(model, layer, h_TD, before[i], banks[i])
            before[i] = x_TD[len(x_TD) - config.look_back :]
        out.append(model.lm_head(model.model.norm(h_TD)))
    return torch.cat(out)


def _block(
    model: LM2ForCausalLM, layer: LM2DecoderLayer, h_TD: Tensor, before_PD: Tensor, bank_ND: Tensor
) -> tuple[Tensor, Tensor]:
    """One block over one segment; `before_PD` are its inputs of the P tokens before, at positions -P to -1."""
    tokens, back = len(h_TD), len(before_PD)
    x_TD = layer.input_layernorm(h_TD)
    x_AD = torch.cat([before_PD, x_TD])  # A = P + T
    rotary = model.model.rotary_emb(h_TD, torch.arange(-back, tokens)[None])
    mask_AA = torch.full((back + tokens, back + tokens), -torch.inf)
    for t in range(back + tokens):
        first = 0 if layer.window is None else max(0, t - layer.window + 1)
        mask_AA[t, first : t + 1] = 0
    attended, _ = layer.self_attn(x_AD[None], position_embeddings=rotary, attention_mask=mask_AA[None, None])
    h_TD = h_TD + attended[0, back:]
    if layer.memory is not None:
        h_TD = h_TD + read(layer.memory, x_TD, bank_ND)
        if tokens == model.config.segment_length:
            bank_ND = write(layer.memory, x_TD, bank_ND)
    return h_TD + layer.mlp(layer.post_attention_layernorm(h_TD)), bank_ND


def read(memory: LM2Memory, x_TD: Tensor, bank_ND: Tensor) -> Tensor:
    """g_out * E_mem, (T, D)."""
    rows = []
    values = [_bank_head(memory, memory.v_proj.weight, bank_ND, head) for head in range(memory.heads)]
    for x_D in x_TD:
        heads = []
        for head, value in enumerate(values):
            a_N = alignment(memory, x_D, bank_ND, head, memory.topk)
            heads.append(
                sum((a_N[n] * value[n] for n in range(memory.slots)), torch.zeros(()))
            )  # (4)  E_mem = A V                 [1]
        e_D = torch.cat(heads)
        g_D = torch.sigmoid(memory.output_gate.weight @ e_D + memory.output_gate.bias)  # (5)  g_out              [2]
        rows.append(g_D * e_D)  # (6)  E_next = E_attn + g_out * E_mem                                            [3]
    return torch.stack(rows)


def write(memory: LM2Memory, x_TD: Tensor, bank_ND: Tensor) -> Tensor:
    """M_s from M_{s-1} and a complete segment, (N, D)."""
    rows = []
    start_ND = initial_bank(memory.slots, memory.width)
    a_HTN = [[alignment(memory, x_D, bank_ND, head) for x_D in x_TD] for head in range(memory.heads)]
    for n in range(memory.slots):
        masses, offers = zip(*(_offer(memory, x_TD, a_HTN[head], head, n) for head in range(memory.heads)), strict=True)
        both = torch.cat([*offers, _norm(bank_ND[n])])
        z_in = memory.input_gate.weight @ both + memory.input_gate.bias  # (11)  z_in = C W_in + M^ W'_in + b     [4]
        z_fgt = memory.forget_gate.weight @ both + memory.forget_gate.bias  # (12)  z_fgt, likewise               [5]
        p_D = torch.cat(masses)
        keep_D = torch.sigmoid(z_fgt) ** p_D
        kept_D = keep_D * bank_ND[n] + (1 - keep_D) * start_ND[n]
        row_D = kept_D + p_D * torch.sigmoid(z_in) * torch.tanh(torch.cat(offers))  # (13)  M_s                   [6]
        rms = row_D.square().mean().sqrt()
        rows.append(row_D / rms if rms > 1 else row_D)  # (14)  clip
    return torch.stack(rows)


def alignment(memory: LM2Memory, x_D: Tensor, bank_ND: Tensor, head: int, topk: int | None = None) -> Tensor:
    """A over the slots for one token and head, (N,)."""
    key = [_head_norm(k_E, memory.k_norm.weight) for k_E in _bank_head(memory, memory.k_proj.weight, bank_ND, head)]
    width = len(key[0])
    q_E = (memory.q_proj.weight @ x_D)[head * width : (head + 1) * width]
    q_E = _head_norm(q_E, memory.q_norm.weight)  # (2)  Q = norm(X W_Q), K = norm(M^ W_K)                         [1]
    s_N = torch.stack([q_E @ key[n] / width**0.5 for n in range(memory.slots)])
    if topk is not None:
        s_N = torch.where(s_N >= s_N.sort(descending=True).values[topk - 1], s_N, -torch.inf)
    return torch.exp(s_N - s_N.max()) / torch.exp(s_N - s_N.max()).sum()  # (3)  A = softmax(Q K^T / sqrt(E))     [1]


def _offer(memory: LM2Memory, x_TD: Tensor, a_TN: list[Tensor], head: int, n: int) -> tuple[Tensor, Tensor]:
    """One head's mass for slot n, repeated over its columns, and its offer: (E,) and (E,)."""
    width = memory.width // memory.heads
    offered_E, p = torch.zeros(width), torch.zeros(())
    for x_D, a_N in zip(x_TD, a_TN, strict=True):
        z = memory.write_gate.weight[head] @ x_D + memory.write_gate.bias[head]
        wide = 1.2 * torch.sigmoid(z) - 0.1
        rho = wide + (wide.clamp(0, 1) - wide).detach()  # (7)  rho = clip(wide, 0, 1), with the slope of wide
        a = MOST_SHARE * rho * a_N[n]  # (8)  a_tn = 0.99 rho_t A_tn
        u_E = (memory.u_proj.weight @ x_D)[head * width : (head + 1) * width]
        offered_E = (1 - a) * offered_E + a * u_E
        p = 1 - (1 - p) * (1 - a)  # (9)  p_n = 1 - prod_t (1 - a_tn)
    c_E = offered_E / (p + OFFER_EPS)  # (10)  C_n = (what token after token left) / (p_n + eps)
    return p.expand(width), c_E


def _bank_head(memory: LM2Memory, weight: Tensor, bank_ND: Tensor, head: int) -> list[Tensor]:
    """One head's keys or values, a vector per slot; query heads share them in groups."""
    width = memory.width // memory.heads
    group = head // (memory.heads // memory.key_value_heads)
    return [(weight @ _norm(row_D))[group * width : (group + 1) * width] for row_D in bank_ND]


def _norm(row_D: Tensor) -> Tensor:
    return row_D / (row_D.square().mean() + 1 / len(row_D)).sqrt()  # (1)  M^ = RMSNorm(M), eps = 1/D


def _head_norm(x_E: Tensor, weight_E: Tensor) -> Tensor:
    return weight_E * x_E / (x_E.square().mean() + HEAD_EPS).sqrt()
