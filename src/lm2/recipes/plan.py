"""A plan is what a recipe makes of its options: the phases of a training, one `RunConfig` each.

Each phase trains in a folder of its own, OUT/NAME, from where the phase before ended. When the last is done the model
and its tokenizer go to OUT/model. What is done already is not done again, so the same command goes on.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import lm2.baselines  # noqa: F401  registers RMT and ARMT, as `import lm2` does LM2
from lm2.configuration import LM2Config
from lm2.files import write_json
from lm2.processes import is_first
from lm2.recipes.findings import Findings
from lm2.recipes.parts import Part, merged, only_trained
from lm2.retrofit import save_folder
from lm2.training import RunConfig, train
from lm2.training.trainer import check_same_run, last_checkpoint

PLAN_FILE, MODEL_FOLDER = "recipe.json", "model"


@dataclass(frozen=True, kw_only=True)
class ModelOf:
    """Makes the model of a phase: `start`'s, or the one that the phase before ended with.

    The folder of the phase before is no field: a training may go on when its folder has moved.
    """

    start: Callable[[], PreTrainedModel]
    trains: Part = "all"
    lora_rank: int | None = None
    before: InitVar[Path | None] = None

    def __post_init__(self, before: Path | None):
        vars(self)["_before"] = before

    def __call__(self) -> Any:
        before: Path | None = vars(self)["_before"]
        model = self.start() if before is None else last_model(before)
        return only_trained(model, self.trains, self.lora_rank or 0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe does."""

    recipe: str
    options: Any
    config: LM2Config
    """Shape of the model"""
    phases: dict[str, RunConfig]
    """By the name of the folder, in order"""
    tokenizer: PreTrainedTokenizerBase | None
    """What goes with the finished model"""
    missing: tuple[str, ...] = ()
    """What a dry run has not found"""

    def describe(self) -> dict[str, Any]:
        """The options and every resolved setting, as JSON values."""
        phases = {name: run.describe() for name, run in self.phases.items()}
        described = {"recipe": self.recipe, "options": dataclasses.asdict(self.options)}
        return json.loads(json.dumps(described | {"model": self.config.to_diff_dict(), "phases": phases}, default=str))


def planned(
    recipe: str,
    options: Any,
    findings: Findings,
    config: LM2Config | None,
    tokenizer: PreTrainedTokenizerBase | None,
    phases: dict[str, RunConfig],
) -> Plan:
    """A plan of these phases. Raises ValueError with everything that is wrong, of which a missing shape is a part."""
    findings.problems.raise_all()
    assert config is not None
    return Plan(
        recipe=recipe,
        options=options,
        config=config,
        phases=phases,
        tokenizer=tokenizer,
        missing=findings.missing,
    )


def one_phase(
    recipe: str,
    options: Any,
    findings: Findings,
    config: LM2Config,
    tokenizer: PreTrainedTokenizerBase | None,
    run_of: Callable[[], RunConfig],
) -> Plan:
    """A plan of one run. Raises ValueError with everything that is wrong, found before or by making the run."""
    run = findings.check(run_of)
    return planned(recipe, options, findings, config, tokenizer, {} if run is None else {run.output_dir.name: run})


def last_model(folder: Path) -> PreTrainedModel:
    """The model of the last checkpoint in a phase's folder, in float32."""
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} holds 0 checkpoints: the phase before has to be done first")
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)


def carry_out(plan: Plan, stop_at: float | None = None) -> Path | None:
    """Do what is not done yet of a plan.

    Args:
        stop_at: a moment of `time.monotonic` after which training ends with a checkpoint.

    Returns:
        The folder of the finished model; None when it was stopped before.

    Raises:
        ValueError: the folder holds a training with other settings, or a phase cannot be done.
    """
    out: Path = plan.options.out
    _check_same_phases(plan)
    for run in plan.phases.values():
        if (checkpoint := last_checkpoint(run.output_dir)) is not None:
            check_same_run(checkpoint, run)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLAN_FILE, plan.describe())
    for run in plan.phases.values():
        if not _is_done(run):
            trainer = train(run, resume=True, stop_at=stop_at)
            if trainer.state.global_step < run.steps:
                return None
    if is_first() and not (out / MODEL_FOLDER).exists():  # also where no phase was left that could tell
        save_folder(_finished(run), plan.tokenizer, out / MODEL_FOLDER)
    return out / MODEL_FOLDER


def _check_same_phases(plan: Plan) -> None:
    """What a folder holds of a training with other phases would stand in for this one's, or be its finished model.

    Phases can be added behind those that are done.
    """
    out, names = plan.options.out, list(plan.phases)
    if (out / PLAN_FILE).is_file():
        before = list(json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))["phases"])
        if before != names[: len(before)] and any(last_checkpoint(out / name) is not None for name in before):
            raise ValueError(
                f"{out} belongs to another run, of the phases {', '.join(before)}, and this one has {', '.join(names)}"
                ": use the same settings, or another out"
            )
    left = [name for name, run in plan.phases.items() if not _is_done(run)]
    if left and (out / MODEL_FOLDER).exists():
        raise ValueError(
            f"{out / MODEL_FOLDER} is there, and {', '.join(left)} is not trained to the end: it would stay what it is"
            ", so move it away, or use another out"
        )


def _is_done(run: RunConfig) -> bool:
    return last_checkpoint(run.output_dir) == run.output_dir / f"checkpoint-{run.steps}"


def _finished(run: RunConfig) -> PreTrainedModel:
    adapted = isinstance(run.model, ModelOf) and run.model.trains == "lora"
    return merged(run.model(), str(last_checkpoint(run.output_dir))) if adapted else last_model(run.output_dir)
