"""The write rules that the bake-off compares: each part overrides one or two methods of `LM2Memory`.

Parts combine by inheritance: "mean+convex" is a class with both as bases.

Shape suffixes as in `lm2.memory`: R rows, S segments, T tokens, N slots, D width, H memory heads, E head width.
"""

import math

import torch
from torch import Tensor, nn

from lm2.configuration import LM2Config
from lm2.memory import OFFER_EPS, LM2Memory
from lm2.modeling import LM2DecoderLayer, LM2ForCausalLM
from lm2.training.walks import memories

STEEP_EPS = 1e-6
HORIZON = 1024
"""Spread forget biases give half-lives up to about this many segments."""


class Rule(LM2Memory):
    """A memory that may change its starting weights for a block that it is put into."""

    def start(self, block: LM2DecoderLayer) -> None:
        """Called once, after the default's starting weights were copied."""

    def weighted(self, weight_RHTN: Tensor, mass_RHN: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        """The mass spread over the heads' columns, and the average of the offers under the weights."""
        total_RHNE = weight_RHTN.transpose(2, 3) @ self._split(u_RTD)
        offer_RHNE = total_RHNE / (weight_RHTN.sum(2)[..., None] + OFFER_EPS)
        mass_RHNE = mass_RHN[..., None].expand_as(offer_RHNE)
        return mass_RHNE.transpose(1, 2).flatten(-2), offer_RHNE.transpose(1, 2).flatten(-2)


class Mean(Rule):
    """m = sum_t rho_t A_tn, p = 1 - exp(-m), and C the average under these weights, in any order of the tokens."""

    def offer(self, alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        weight_RHTN = alignment_RHTN * rho_RTH.transpose(1, 2)[..., None]
        return self.weighted(weight_RHTN, -torch.expm1(-weight_RHTN.sum(2)), u_RTD)


class Steep(Rule):
    """C divides by p + 1e-6: an exact average, whose slope has almost no bound."""

    def offer(self, alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        mass_RND, offer_RND = super().offer(alignment_RHTN, rho_RTH, u_RTD)
        return mass_RND, offer_RND * (mass_RND + OFFER_EPS) / (mass_RND + STEEP_EPS)


class Transposed(Rule):
    """Slots query the tokens: A = softmax over tokens, p = 1. rho has no part in it."""

    def align(self, q_RTD: Tensor, norm_RND: Tensor) -> Tensor:
        return self._scores(self._split(q_RTD), self.keys(norm_RND)).softmax(2)

    def offer(self, alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        return self.weighted(alignment_RHTN, alignment_RHTN.sum(2), u_RTD)


class TransposedNull(Transposed):
    """The same beside a null token of logit b + ln T, so that a slot may take nothing: p = 1 - A_null."""

    def __init__(self, config: LM2Config):
        super().__init__(config)
        self.null_H = nn.Parameter(torch.zeros(self.heads))

    def align(self, q_RTD: Tensor, norm_RND: Tensor) -> Tensor:
        scores_RHTN = self._scores(self._split(q_RTD), self.keys(norm_RND))
        null_H1 = self.null_H[:, None] + math.log(q_RTD.shape[1])
        null_RH1N = null_H1.expand(len(q_RTD), -1, self.slots)[:, :, None]
        return torch.cat([scores_RHTN, null_RH1N], 2).softmax(2)[:, :, :-1]


class Convex(Rule):
    """M_s = clip((1 - i) M_{s-1} + i tanh(C)),  i = p sigmoid(z_in)."""

    def update(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> Tensor:
        input_RND = mass_RND * self.input_gate(torch.cat([offer_RND, norm_RND], -1)).sigmoid()
        new_RND = (1 - input_RND) * bank_RND + input_RND * offer_RND.tanh()
        return new_RND * new_RND.square().mean(-1, keepdim=True).clamp_min(1).rsqrt()


class NoClip(Rule):
    """The default's update without the bound on a row."""

    def update(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> Tensor:
        kept_RND, restored_RND, added_RND = self.parts(bank_RND, norm_RND, start_ND, mass_RND, offer_RND)
        return kept_RND + restored_RND + added_RND


class NoMass(Rule):
    """p = 1: every slot is open in every segment."""

    def offer(self, alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
        mass_RND, offer_RND = super().offer(alignment_RHTN, rho_RTH, u_RTD)
        return torch.ones_like(mass_RND), offer_RND


class Addresses(Rule):
    """K = norm(M^ W_K) + e_n, in reading and in writing; e_n is an address that no write changes."""

    def __init__(self, config: LM2Config):
        super().__init__(config)
        self.address_KNE = nn.Parameter(torch.randn(self.key_value_heads, self.slots, self.width // self.heads))

    def keys(self, norm_RND: Tensor) -> Tensor:
        return super().keys(norm_RND) + self.address_KNE


class NoRho(Rule):
    """rho = 1."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, rho, u = super().project(x)
        return q, torch.ones_like(rho), u


class SpreadForget(Rule):
    """Forget biases log U(1, HORIZON): each column starts with a half-life of its own."""

    def start(self, block: LM2DecoderLayer) -> None:
        super().start(block)
        with torch.no_grad():
            self.forget_gate.bias.uniform_(1, HORIZON).log_()


class GatesOfferOnly(Rule):
    """Gates without the term of M^."""

    def update(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> Tensor:
        return super().update(bank_RND, torch.zeros_like(norm_RND), start_ND, mass_RND, offer_RND)


class ToZero(Rule):
    """What is forgotten goes to zero, not back to the row's start."""

    def update(
        self, bank_RND: Tensor, norm_RND: Tensor, start_ND: Tensor, mass_RND: Tensor, offer_RND: Tensor
    ) -> Tensor:
        return super().update(bank_RND, norm_RND, torch.zeros_like(start_ND), mass_RND, offer_RND)


RULES: dict[str, type[Rule]] = {
    "no-mass": NoMass,
    "steep": Steep,
    "gates-offer-only": GatesOfferOnly,
    "to-zero": ToZero,
    "spread-forget": SpreadForget,
    "no-rho": NoRho,
    "addresses": Addresses,
    "mean": Mean,
    "transposed": Transposed,
    "transposed-null": TransposedNull,
    "convex": Convex,
    "no-clip": NoClip,
}
"""In the order in which parts are combined: those that go on to the next part's method stand first."""


def rule_of(variant: str) -> type[Rule]:
    """The class of a variant's rule; measures and "default" change nothing of it."""
    parts = variant.split("+")
    bases = tuple(rule for name, rule in RULES.items() if name in parts)
    return type("Variant", bases, {}) if len(bases) > 1 else (*bases, Rule)[0]


def use_rule(model: LM2ForCausalLM, variant: str) -> LM2ForCausalLM:
    """Replace every memory of a model by the variant's, with the same starting weights where both have them."""
    for index, old in memories(model):
        block = model.model.layers[index]
        assert isinstance(block, LM2DecoderLayer)
        memory = rule_of(variant)(model.config)
        memory.load_state_dict(old.state_dict(), strict=False)
        memory.start(block)
        block.memory = memory.to(model.device)
    return model
