"""RULER's tasks: which run here, and what their texts need."""

TASKS = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe")
ESSAYS = "its text is a set of essays fetched from the hub"
NOT_RUN = {
    "niah_single_2": ESSAYS,
    "niah_single_3": ESSAYS,
    "niah_multikey_1": ESSAYS,
    "niah_multivalue": ESSAYS,
    "niah_multiquery": ESSAYS,
    "ruler_qa_squad": "its questions are fetched from the SQuAD site",
    "ruler_qa_hotpot": "its questions are fetched from the hub",
}
SHORTEST = 1024
"""Below it the harness looks for a text short enough and never finds one; so it does for tokenizers of small pieces."""
SAMPLES = 500
"""What the harness makes for each task and length."""
