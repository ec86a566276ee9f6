"""Names and plans of the bake-off."""

from pathlib import Path

import pytest

from lm2.study.config import EXCLUSIVE, MEASURES, RIVALS, RULE_PARTS, StudyConfig, check_variant, describe, plan


@pytest.mark.parametrize("name", [*RULE_PARTS, *MEASURES, *RIVALS, "default", "mean+convex+carried"])
def test_every_variant_is_known_and_described(name):
    check_variant(name)
    assert all(len(text) > 5 for text in describe(name).split("; "))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maen", "'maen': perhaps you meant 'mean'"),
        ("xyzzy", "'xyzzy': choose among mean"),
        ("mean+rmt", "no variant 'rmt'"),
        ("convex+convex", "'convex\\+convex' (names a part twice|change the same)"),
        ("carried+burn-in", "carried and burn-in in 'carried\\+burn-in' change the same thing"),
    ],
)
def test_wrong_variants_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        StudyConfig(variants=(name,))


@pytest.mark.parametrize(("field", "value"), [("jobs", 0), ("steps", 0), ("samples", -1), ("width", 12)])
def test_numbers_out_of_range(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .* {value}"):
        StudyConfig(**{field: value})


def test_exclusive_parts_exist():
    assert {part for group in EXCLUSIVE for part in group} <= {*RULE_PARTS, *MEASURES}


def test_the_plan_has_each_run_once_and_needs_before_users():
    jobs = plan(StudyConfig(variants=("rmt-equal-time", "mean"), tasks=("once", "qa1"), seeds=(0, 1), out=Path("x")))
    assert len(set(jobs)) == len(jobs) == 2 * 2 * 5
    for i, job in enumerate(jobs):
        assert all(job.other(need) in jobs[:i] for need in job.needs)
    assert len({job.result for job in jobs}) == len(jobs)
