"""The 57 subjects of MMLU, and the two ways to make a table of them.

* The harness's groups (lm-evaluation-harness, task `mmlu`): STEM, humanities, social sciences, other, each an average
  over questions, and so is the whole. Anatomy is STEM there; the original release has it under "other".
* The eight rows of the LM2 paper (arXiv 2502.06049, table 2): the same four groups, then the subjects again by
  difficulty. Its "average" is the plain mean of the eight rows, so every question counts twice. How the paper defines
  "general knowledge" is not written anywhere; here it is the subjects without a difficulty in their name, unless told.
"""

from collections.abc import Sequence

from lm2.errors import each_once

GROUPS: dict[str, tuple[str, ...]] = {
    "STEM": (
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning",
    ),
    "Humanities": (
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
        "prehistory", "professional_law", "world_religions",
    ),
    "Social sciences": (
        "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
        "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
        "public_relations", "security_studies", "sociology", "us_foreign_policy",
    ),
    "Other": (
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management",
        "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
        "professional_medicine", "virology",
    ),
}  # fmt: skip
SUBJECTS = tuple(sorted(subject for group in GROUPS.values() for subject in group))
DIFFICULTIES = {"High school": "high_school_", "College": "college_", "Professional": "professional_"}
GENERAL = tuple(subject for subject in SUBJECTS if not subject.startswith(tuple(DIFFICULTIES.values())))


def check(names: Sequence[str], what: str) -> None:
    """Raises ValueError if there is none, or one is not a subject, or is named twice."""
    if not names:
        raise ValueError(f"{what} names 0 subjects: give at least 1, or leave it out")
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise ValueError(f"{what} names {unknown[0]!r}, which is none of MMLU's 57 subjects: {', '.join(SUBJECTS)}")
    each_once(what, names)


def paper_rows(general: Sequence[str] = GENERAL) -> dict[str, tuple[str, ...]]:
    """The paper's eight rows: the four groups, then by difficulty, the last being `general`."""
    by_difficulty = {
        name: tuple(subject for subject in SUBJECTS if subject.startswith(prefix))
        for name, prefix in DIFFICULTIES.items()
    }
    return {**GROUPS, **by_difficulty, "General knowledge": tuple(general)}
