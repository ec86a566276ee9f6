"""Each claim is met exactly from its bar on."""

from dataclasses import replace

import pytest

from lm2.reproduce.claims import Measured, claims, reach

MEASURED = Measured(
    means={"LM2": 0.95, "RMT": 0.9, "plain last 64": 0.5},
    qa1={"LM2": {"1k": 1.0, "128k": 0.95, "4k": 1.0}, "RMT": {"1k": 0.9, "4k": 0.8, "128k": 1.0}},
    p={"RMT": 1e-5, "plain last 64": 1e-9},
    reset=(20, 100),
    plain=(30, 100),
    window="plain last 64",
)


def met(measured: Measured, part: str) -> bool:
    (claim,) = [claim for claim in claims(measured) if part in claim.text]
    return claim.met


def with_means(ours: float, rmt: float = 0.5, plain: float = 0.5) -> Measured:
    return replace(MEASURED, means={"LM2": ours, "RMT": rmt, "plain last 64": plain})


def test_all_are_met_here():
    assert [claim.met for claim in claims(MEASURED)] == [True] * 7


def test_over_plain_is_relative():
    assert met(with_means(0.9315), "cannot see beyond")
    assert not met(with_means(0.9314), "cannot see beyond")
    assert not met(with_means(0.0, plain=0.0), "cannot see beyond")


def test_over_rmt_is_relative_and_half_of_the_errors_where_that_cannot_be():
    assert met(with_means(0.6855, rmt=0.5), "37.1 % or more above RMT")
    assert not met(with_means(0.6854, rmt=0.5), "37.1 % or more above RMT")
    assert met(with_means(1.0, rmt=0.729), "37.1 % or more above RMT")
    assert met(with_means(0.865, rmt=0.73), "half of RMT's errors")
    assert not met(with_means(0.864, rmt=0.73), "half of RMT's errors")


@pytest.mark.parametrize(
    ("by_length", "longest"),
    [
        ({"0k": 0.9, "4k": 0.9, "1k": 1.0}, "4k"),
        ({"0k": 1.0, "1k": 0.89, "4k": 1.0}, "0k"),
        ({"0k": 0.5, "1k": 1.0}, None),
    ],
)
def test_reach_stops_at_the_first_length_below(by_length, longest):
    assert reach(by_length) == longest


def test_four_times_the_length_of_rmt():
    def up_to(ours: str, rmt: str | None) -> Measured:
        lengths = ("0k", "1k", "2k", "4k")
        reached = {name: lengths.index(last) + 1 if last else 0 for name, last in (("LM2", ours), ("RMT", rmt))}
        return replace(
            MEASURED,
            qa1={name: dict(zip(lengths, [0.9] * n + [0.89] * (4 - n), strict=True)) for name, n in reached.items()},
        )

    assert met(up_to("4k", "1k"), "4 times")
    assert not met(up_to("2k", "1k"), "4 times")
    assert met(up_to("1k", "0k"), "4 times")
    assert not met(up_to("0k", "0k"), "4 times")  # four times nothing is nothing
    assert met(up_to("0k", None), "4 times")


def test_a_paired_test_needs_the_better_model_too():
    assert met(replace(MEASURED, p={"RMT": 0.0099}), "better than RMT")
    assert not met(replace(MEASURED, p={"RMT": 0.01}), "better than RMT")
    assert not met(replace(with_means(0.8, rmt=0.9), p={"RMT": 1e-6}), "better than RMT")


def test_reset_must_fall_to_the_level_of_plain_or_below():
    """30 of 100 may be 40, and 50 of 100 may not."""
    assert met(replace(MEASURED, reset=(10, 100)), "reset")
    assert met(replace(MEASURED, reset=(48, 100)), "reset")
    assert not met(replace(MEASURED, reset=(50, 100)), "reset")


def test_the_longest_length_asks_for_95():
    short = replace(MEASURED, qa1={**MEASURED.qa1, "LM2": {"1k": 1.0, "128k": 0.949}})
    assert not met(short, "at 128k")


def test_a_run_without_qa1_and_controls_is_not_judged_by_them():
    few = replace(MEASURED, qa1={name: {} for name in MEASURED.qa1}, reset=(0, 0), plain=(0, 0))
    texts = [claim.text for claim in claims(few)]
    assert len(texts) == len(claims(MEASURED)) - 3
    assert not [text for text in texts if "qa1" in text or "reset" in text]
