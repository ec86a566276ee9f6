"""A trace is the model's own reading, told in parts that add up."""

from dataclasses import replace

import pytest
import torch

from lm2 import LM2Cache
from lm2.analysis import trace as module
from lm2.analysis.provenance import NO_TOKEN, Sources, head_norms
from lm2.analysis.trace import Read, Trace, blocks_of, closed, follow
from lm2.memory import LM2Memory, initial_bank, normalise
from lm2.training.write_cost import watched_gates
from tests.contract.cases import CASES, FEW, random_ids, tiny_model


def followed(model, ids_L, reads: bool = False, cuts: tuple[int, ...] = ()) -> Trace:
    """A trace of the tokens, read in pieces that end at the cuts."""
    trace = Trace.begin(model)
    for piece in ids_L.tensor_split(cuts):
        trace = follow(model, piece, trace, reads)
    return trace


@pytest.mark.parametrize("case", CASES)
def test_the_writes_are_those_of_the_model(case, monkeypatch):
    model, writes = tiny_model(case), []
    own = module.write_of
    monkeypatch.setattr(module, "write_of", lambda *parts: writes.append(own(*parts)) or writes[-1])
    ids_L, cache = random_ids(1, 4 * model.config.segment_length - 1)[0], LM2Cache(model.config)
    trace = followed(model, ids_L)
    with torch.no_grad():
        model(ids_L[None], past_key_values=cache)
    blocks = blocks_of(model)
    assert len(writes) == 3 * len(blocks)
    for block, write in zip(blocks, writes[-len(blocks) :], strict=True):
        torch.testing.assert_close(write.bank_ND, cache.states[block.index].bank[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(trace.cache.states[block.index].bank, cache.states[block.index].bank)


@pytest.mark.parametrize("case", CASES)
def test_the_sources_of_a_slot_are_one_together(case):
    model = tiny_model(case)
    for sources in followed(model, random_ids(1, 5 * model.config.segment_length)[0]).sources:
        total_HN = sources.share_HNK.sum(-1) + sources.start_HN + sources.others_HN
        torch.testing.assert_close(total_HN, torch.ones_like(total_HN))
        assert min(part.min() for part in (sources.share_HNK, sources.start_HN, sources.others_HN)) >= 0


@pytest.mark.parametrize("case", FEW)
def test_the_sources_are_those_of_a_table_in_loops(case):
    """The formula of `lm2.analysis.provenance`, token by token."""
    model = tiny_model(case)
    T, ids_L = model.config.segment_length, random_ids(1, 4 * model.config.segment_length)[0]
    trace, block = Trace.begin(model), blocks_of(model)[0]
    memory = block.memory
    bank_ND = initial_bank(memory.slots, memory.width)
    table = torch.zeros(memory.heads, memory.slots, len(ids_L))
    start = torch.ones(memory.heads, memory.slots)
    with torch.no_grad():
        for first in range(0, len(ids_L), T):
            seen = []
            hook = block.norm.register_forward_hook(lambda module, inputs, x, seen=seen: seen.append(x))
            trace = follow(model, ids_L[first : first + T], trace)
            hook.remove()
            q, rho, u = memory.project(seen[0].reshape(1, -1, memory.width)[:, :T])
            norm = normalise(bank_ND[None])
            weight = memory.weigh(memory.align(q, norm), rho)[0][0]
            offered = memory.offer(memory.align(q, norm), rho, u)
            mass = memory.weigh(memory.align(q, norm), rho)[1][0, ..., 0]
            torch.testing.assert_close(trace.masses[first // T][0], mass.amax(0), rtol=1e-4, atol=1e-5)
            parts = memory.parts(bank_ND[None], norm, memory.initial_bank(1, norm.device)[0], *offered)
            a, b, c = (head_norms(part[0], memory.heads) for part in parts)
            for h in range(memory.heads):
                for n in range(memory.slots):
                    if (total := a[h, n] + b[h, n] + c[h, n]) <= 0:
                        continue
                    table[h, n] *= a[h, n] / total
                    start[h, n] = (start[h, n] * a[h, n] + b[h, n]) / total
                    for t in range(T):
                        table[h, n, first + t] += c[h, n] * weight[h, t, n] / weight[h, :, n].sum() / total
            bank_ND = trace.cache.states[block.index].bank[0]
    torch.testing.assert_close(dense(trace.sources[0], len(ids_L)), table, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.sources[0].start_HN, start, rtol=1e-4, atol=1e-5)


def dense(sources: Sources, length: int) -> torch.Tensor:
    """The share of each token of a text, (H, N, L)."""
    share_HNK = sources.share_HNK * (sources.token_HNK != NO_TOKEN)
    table_HNL = torch.zeros(*share_HNK.shape[:2], length)
    return table_HNL.scatter_add(-1, sources.token_HNK.clamp_min(0), share_HNK)


@pytest.mark.parametrize("case", FEW)
def test_what_is_kept_of_few_sources_is_no_other(case, monkeypatch):
    model = tiny_model(case)
    ids_L = random_ids(1, 6 * model.config.segment_length)[0]
    all_of_them = followed(model, ids_L).sources[0]
    monkeypatch.setattr("lm2.analysis.provenance.KEPT", 4)
    few = followed(model, ids_L).sources[0]
    assert few.share_HNK.shape[-1] == 4
    torch.testing.assert_close(few.start_HN, all_of_them.start_HN)
    missing = all_of_them.others_HN + all_of_them.share_HNK.sum(-1) - few.share_HNK.sum(-1)
    torch.testing.assert_close(few.others_HN, missing, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", FEW)
def test_pieces_make_no_difference(case):
    model = tiny_model(case)
    T = model.config.segment_length
    ids_L = random_ids(1, 4 * T + 2)[0]
    whole = followed(model, ids_L, reads=True)
    for cuts in ((1,), (T - 1, T, 2 * T + 1), tuple(range(1, len(ids_L)))):
        cut = followed(model, ids_L, True, cuts)
        assert cut.tokens == whole.tokens == len(ids_L)
        for one, other in zip(cut.sources, whole.sources, strict=True):
            torch.testing.assert_close(dense(one, len(ids_L)), dense(other, len(ids_L)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(torch.cat(cut.written, 1), torch.cat(whole.written, 1), rtol=1e-3, atol=1e-4)
        for one, other in zip(Read.of_calls(cut.reads), Read.of_calls(whole.reads), strict=True):
            torch.testing.assert_close(one, other[..., : one.shape[-1]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_one_together_and_of_complete_segments_before(case):
    model = tiny_model(case)
    T = model.config.segment_length
    trace = followed(model, random_ids(1, 4 * T)[0], reads=True)
    read = Read.of_calls(trace.reads)
    torch.testing.assert_close(read.share_tL.sum(-1) + read.start_t + read.others_t, torch.ones(4 * T))
    for t in range(4 * T):
        assert not read.share_tL[t, t // T * T :].any()
    torch.testing.assert_close(read.start_t[:T], torch.ones(T))


@pytest.mark.parametrize("case", FEW)
def test_sizes_and_rhos_are_those_of_the_model(case, monkeypatch):
    """The norm of all that joins the residual stream, and the greatest rho of a token's heads."""
    model, joined, gate = tiny_model(case), [], LM2Memory.gate
    T = model.config.segment_length
    ids_L, cache = random_ids(1, 2 * T)[0], LM2Cache(model.config)
    monkeypatch.setattr(LM2Memory, "gate", lambda self, read: joined.append(gate(self, read)) or joined[-1])
    with watched_gates(model) as rhos, torch.no_grad():
        for piece in ids_L.split(T):
            model(piece[None], past_key_values=cache)
    monkeypatch.undo()
    trace, blocks = followed(model, ids_L, reads=True), len(blocks_of(model))
    for i, read in enumerate(trace.reads):
        sizes = [one.flatten(0, -2)[:T].norm(dim=-1) for one in joined[i * blocks : (i + 1) * blocks]]
        torch.testing.assert_close(read.size_t, sum(sizes), rtol=1e-3, atol=1e-5)
        own = [rho.flatten(0, -2)[:T].amax(-1) for rho in rhos[i * blocks : (i + 1) * blocks]]
        torch.testing.assert_close(trace.written[i], torch.stack(own), rtol=1e-3, atol=1e-5)


def test_memories_count_by_what_they_give():
    one, half, none = torch.ones(1), torch.full((1,), 0.5), torch.zeros(1)
    large = Read(torch.tensor([[1.0, 0.0]]), none, none, 3 * one)
    small = Read(torch.tensor([[0.0, 0.0]]), half, half, one)
    both = Read.of_memories([large, small])
    torch.testing.assert_close(both, Read(torch.tensor([[0.75, 0.0]]), half / 4, half / 4, 4 * one))
    alone = Read.of_memories([large, small._replace(size_t=none)])
    torch.testing.assert_close(alone, large)


def test_a_slot_is_what_its_columns_hold():
    """Of two heads one has nothing in the slots, and what it would be of is not read."""
    model = tiny_model("fewer slots than tokens")
    memory = blocks_of(model)[0].memory
    sources, bank_ND = Sources.of_start(memory, model.device), torch.randn(memory.slots, memory.width)
    bank_ND[:, : memory.width // memory.heads] = 0
    for tensor, value in (
        (sources.share_HNK[1:, :, 0], 1),
        (sources.token_HNK[1:, :, 0], 3),
        (sources.start_HN[1:], 0),
    ):
        tensor.fill_(value)
    with torch.no_grad():
        read = module._read(memory, torch.randn(5, memory.width), bank_ND, sources, 8)
    assert not read.start_t.any()
    torch.testing.assert_close(read.share_tL, torch.eye(8)[3].expand(5, 8))


def test_following_does_not_change_what_was_followed():
    model = tiny_model("look-back")
    ids_L = random_ids(1, 20)[0]
    trace = followed(model, ids_L)
    before = replace(trace, cache=trace.cache.copy())
    follow(model, ids_L, trace, reads=True)
    assert trace.tokens == before.tokens == 20
    assert len(trace.written) == len(before.written)
    assert not trace.reads


@pytest.mark.parametrize("case", FEW)
def test_a_closed_token_is_written_to_no_slot(case):
    """Rows with other tokens closed are what each is alone, and closing all of them leaves the banks at their start."""
    model = tiny_model(case)
    T = model.config.segment_length
    ids_L, length = random_ids(1, 3 * T + 1)[0], 3 * T + 1
    closed_RL = torch.zeros(4, length, dtype=torch.bool)
    closed_RL[0], closed_RL[1, T : 2 * T], closed_RL[2, 1] = True, True, True
    banks = banks_of(model, ids_L, closed_RL)
    for bank_RND in banks:
        torch.testing.assert_close(bank_RND[0], initial_bank(*bank_RND.shape[1:]))
        assert all((bank_RND[i] - bank_RND[3]).abs().max() > 1e-3 for i in (1, 2))
    for i in range(4):
        for alone, together in zip(banks_of(model, ids_L, closed_RL[i : i + 1]), banks, strict=True):
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    plain = LM2Cache(model.config)
    with torch.no_grad():
        model(ids_L[None], past_key_values=plain)
    for block, bank_RND in zip(blocks_of(model), banks, strict=True):
        torch.testing.assert_close(bank_RND[3], plain.states[block.index].bank[0], rtol=1e-4, atol=1e-5)


def banks_of(model, ids_L, closed_RL) -> list[torch.Tensor]:
    """The banks after a text of which some tokens are closed, read in two pieces."""
    cache = LM2Cache(model.config)
    with torch.no_grad(), closed(model, cache, closed_RL):
        for piece in ids_L.tensor_split([model.config.segment_length + 1]):
            model(piece.expand(len(closed_RL), -1), past_key_values=cache)
    return [cache.states[block.index].bank for block in blocks_of(model)]


def test_a_model_without_a_memory_is_refused():
    model = tiny_model("memory in one block")
    model.model.layers[1].memory = None
    with pytest.raises(ValueError, match="no block of this model has a memory"):
        Trace.begin(model)


def test_where_a_slot_has_nothing_its_source_stays_the_start():
    model = tiny_model("memory in one block")
    for block in blocks_of(model):
        torch.nn.init.constant_(block.memory.write_gate.bias, -30.0)
    for sources in followed(model, random_ids(1, 3 * model.config.segment_length)[0]).sources:
        torch.testing.assert_close(sources.start_HN, torch.ones_like(sources.start_HN))
        assert not sources.others_HN.any()
