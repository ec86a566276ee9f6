"""The Hugging Face Trainer with the few things it lacks here.

* Rows by arithmetic: the batch of a pass is a function of its number, so a resumed run reads the very next rows.
* Optimisers: see `lm2.training.optimizers`.
* Checkpoints are written beside and renamed, and hold `lm2_run.json`; a run with other settings does not resume them.
* It checks that the parallelism that was asked for is real, after construction and again when the model is wrapped
  (Accelerate drops FSDP on CPUs silently).
* Broken gradients, speed, lanes and what the memory does have modules of their own.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from accelerate.utils import broadcast
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, rotate_checkpoints
from transformers.utils import logging as hf_logging

from lm2.files import write_json
from lm2.held import held
from lm2.modeling import LM2ForCausalLM
from lm2.processes import is_first, share
from lm2.progress import TimeLeft
from lm2.training.callbacks import AtBegin, Every, JsonlLog, LogWithCheckpoint, ShowProgress, Stop, Watching
from lm2.training.config import RunConfig, differences
from lm2.training.gradients import SkippedSteps, group_norms
from lm2.training.lanes import Lanes
from lm2.training.optimizers import make_optimizer
from lm2.training.passes import Passes, StillToDo, whole_step
from lm2.training.sharding import check_in_force, policy
from lm2.training.speed import Speed
from lm2.training.trackers import check_trackers
from lm2.training.watching import has_segments

RUN_FILE = "lm2_run.json"
LOG_FILE, WATCH_FILE = "log.jsonl", "watch.jsonl"
SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "trapezoid": "warmup_stable_decay",
}
TRAPEZOID_FALL = 0.3


def train(
    run: RunConfig, *, resume: bool = False, stop_at: float | None = None, stop_after: int | None = None
) -> LM2Trainer:
    """Do a run, from its last checkpoint if `resume` and there is one. The trained model is `.model` of the result.

    Args:
        stop_at: a moment of `time.monotonic` after which the run ends with a checkpoint, to be resumed later, at the
            next line of the log; of several processes the first one's clock counts.
        stop_after: a step after which it does, whatever the moment; a run that is there does one step more.

    Raises:
        ValueError: the folder holds a checkpoint and `resume` is False, its checkpoint is of another run, or another
            process trains there.
    """
    with held(run.output_dir) if is_first() else nullcontext():
        return _train(run, resume, stop_at, stop_after)


def _train(run: RunConfig, resume: bool, stop_at: float | None, stop_after: int | None) -> LM2Trainer:
    checkpoint = last_checkpoint(run.output_dir)
    if checkpoint is not None and not resume:
        raise ValueError(f"{run.output_dir} already holds {checkpoint.name}: resume it, or choose another output_dir.")
    if checkpoint is not None:
        check_same_run(checkpoint, run)
    torch.manual_seed(run.seed)
    trainer = LM2Trainer(run, run.model())
    if stop_at is not None:
        trainer.add_callback(Stop(lambda step: step % run.log_every == 0 and trainer.is_past(stop_at)))
    if stop_after is not None:
        trainer.add_callback(Stop(lambda step: step >= stop_after))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in a run's folder; None if there is none."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if found is None else Path(found)


class LM2Trainer(Trainer):
    """Trains any causal language model on a `RunConfig`.

    `training_forward(model, batch, step)` makes the output with the loss of one pass; override it, or give one to the
    run, to train on other states than a fresh row's.

    Raises:
        ValueError: rows that do not divide into passes and processes, or parallelism that cannot be had.
    """

    def __init__(self, run: RunConfig, model: PreTrainedModel):
        self.run = run
        self._checkpoint_root: Path | None = None
        _check_sharding_can_start(run)
        check_trackers(run.report_to)
        super().__init__(model=model, args=_arguments(run, model))
        self.model_accepts_loss_kwargs = True  # every model here divides by num_items_in_batch itself
        _check_parallelism(run, self)
        if run.fsdp:
            plugin: Any = self.accelerator.state.fsdp_plugin
            plugin.mixed_precision_policy = policy(run.bf16)
        self.remove_callback(PrinterCallback)
        self.add_callback(AtBegin(self._check_in_force))
        self.add_callback(JsonlLog(run.output_dir / LOG_FILE))
        self._progress = TimeLeft(disable=not self.is_world_process_zero(), transient=True)
        self.add_callback(ShowProgress(self._progress))
        self.add_callback(LogWithCheckpoint())
        self.add_callback(self._measurements())
        if self.args.should_save:
            write_json(run.output_dir / RUN_FILE, _run_record(run))
        self._speed = Speed(run, model, self.args.world_size)
        self._skipped, self._norms = SkippedSteps(run.max_skipped_steps), {}
        self._lanes = Lanes(_lanes_config(model), run.accumulation) if run.lanes else None

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the Trainer's, with its progress and the time left on the error stream."""
        with self._progress:
            return super().train(*args, **kwargs)

    def is_past(self, moment: float) -> bool:
        """Whether a moment of `time.monotonic` has passed, the same for all processes: each has a clock of its own."""
        past = torch.tensor(int(time.monotonic() >= moment), device=self.args.device)
        return bool(broadcast(past))

    def _check_in_force(self) -> None:
        assert isinstance(self.model_wrapped, nn.Module)
        check_in_force(self.model_wrapped, self.run.fsdp, self.args.world_size)

    def _measurements(self) -> Every:
        run, measurements = self.run, Every()
        assert self.model is not None
        if run.evaluation is not None and run.evaluation_every is not None:
            measurements.add(run.evaluation_every, partial(self._measure, run.evaluation, "eval_"))
        if run.held_out is not None and run.watch_every is not None:
            if not has_segments(self.model):
                raise ValueError(f"held_out needs a model with segments, got {type(self.model).__name__}: set it None.")
            watching = Watching(self, run.held_out, run.output_dir / WATCH_FILE)
            measurements.add(run.watch_every, partial(self._measure, watching, "watch_"))
        return measurements

    def get_train_dataloader(self) -> DataLoader:
        """Batches from the pass after the last finished step on, made for this process alone."""
        passes = Passes(self.run, self.args.process_index, self.args.world_size)
        still_to_do = StillToDo(self.run, lambda: self.state.global_step)
        return DataLoader(passes, sampler=still_to_do, batch_size=None, num_workers=self.run.data_workers)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            assert model is not None
            self.optimizer = make_optimizer(model, self.run)
        return self.optimizer

    def training_forward(self, model: nn.Module, batch: dict[str, Any], step: int) -> Any:
        """One pass: an output whose `loss` is the sum over labels divided by `batch["num_items_in_batch"]`."""
        if self._lanes is not None:
            return self._lanes.forward(model, batch, step)
        if self.run.training_forward is not None:
            return self.run.training_forward(model, batch, step)
        return model(**batch, use_cache=False)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        batch = {**inputs, "num_items_in_batch": num_items_in_batch}
        outputs = self.training_forward(model, batch, self.state.global_step)
        # The count is over all processes, while gradients are averaged over them.
        loss = outputs.loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        self._speed.count(*inputs["input_ids"].shape)
        self._skipped.begin(self.state.global_step, self._tr_loss)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and self._has_line(self.state.global_step + 1):
            self._norms = group_norms(model)  # before they are scaled down
        return loss

    def _has_line(self, step: int) -> bool:
        """Whether the log has a line of this step (counted from 1)."""
        return step % self.run.log_every == 0 or step % self.run.save_every == 0 or step == self.run.steps

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        skips = self._skipped.check(model, norm, self._tr_loss, self.state.global_step)
        if skips and self._lanes is not None:
            self._lanes.undo()
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._skipped.log(logs)
            logs.update({name: norm.item() for name, norm in self._norms.items()})
            self._norms = {}  # a step where a run is stopped has none of its own
            self._speed.log(logs)
            self._describe_rows(logs, self.state.global_step - 1)
        for uncounted in ("total_flos", "train_samples_per_second"):  # rows and operations that HF did not see
            logs.pop(uncounted, None)
        super().log(logs, start_time)

    def _describe_rows(self, logs: dict[str, float], step: int) -> None:
        """Their number of segments and, where what makes the batches can tell, the share of columns that are pads."""
        request = whole_step(self.run, step)
        logs["segments"] = request.segments
        if (pad_share := getattr(self.run.make_batch, "pad_share", None)) is not None:
            logs["pad_share"] = round(pad_share(request), 4)

    def _measure(self, measurement: Callable[[Any, int], Mapping[str, float]], prefix: str) -> None:
        """Measure and log, leaving random numbers, training mode and the speed measurement as they were."""
        model = self.model
        assert model is not None
        began, was_training, python_state = time.perf_counter(), model.training, random.getstate()
        with torch.random.fork_rng(), torch.no_grad():
            metrics = measurement(model.eval(), self.state.global_step)
        random.setstate(python_state)
        model.train(was_training)
        log_is_due = self.control.should_log
        self.log({prefix + name: float(value) for name, value in metrics.items()})
        self.control.should_log = log_is_due  # logging clears it, but the step's own log is still to come
        self._speed.leave_out(time.perf_counter() - began)

    def floating_point_ops(self, inputs) -> int:
        """Not counted: it would walk all parameters in every step."""
        return 0

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._lanes is not None:
            self._lanes.save(self._lanes_file(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if self._lanes is not None and checkpoint is not None:
            self._lanes.load(self._lanes_file(checkpoint), self.args.device)

    def _lanes_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"lanes-{self.args.process_index}.safetensors"

    def _get_output_dir(self, trial) -> str:
        return super()._get_output_dir(trial) if self._checkpoint_root is None else str(self._checkpoint_root)

    def _save_checkpoint(self, model, trial) -> None:
        """Write the checkpoint in a hidden folder beside, then rename it, so that one that exists is whole."""
        folder, name = self.run.output_dir, f"checkpoint-{self.state.global_step}"
        self._checkpoint_root = folder / ".partial"
        if self.args.should_save:
            shutil.rmtree(self._checkpoint_root, ignore_errors=True)  # what a killed process left
        self.accelerator.wait_for_everyone()
        try:
            with _without_bars():
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                written = self._checkpoint_root / name
                (written / "training_args.bin").unlink(missing_ok=True)  # a pickle; lm2_run.json says it readably
                write_json(written / RUN_FILE, _run_record(self.run))
                shutil.rmtree(folder / name, ignore_errors=True)
                os.replace(written, folder / name)
                rotate_checkpoints(str(folder), save_total_limit=self.run.keep_checkpoints)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"{folder / name} could not be written ({error}): free space, or choose another folder; the "
                "checkpoint before is whole"
            ) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(self._checkpoint_root, ignore_errors=True)
            self._checkpoint_root = None
        self.accelerator.wait_for_everyone()


def _lanes_config(model: PreTrainedModel) -> Any:
    if not isinstance(model, LM2ForCausalLM):
        raise ValueError(f"lanes=True needs an LM2 model, whose banks go on, got {type(model).__name__}: set it False.")
    return model.config


def _arguments(run: RunConfig, model: PreTrainedModel) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run.output_dir),
        max_steps=run.steps,
        per_device_train_batch_size=1,  # rows come in whole passes
        gradient_accumulation_steps=run.accumulation,
        learning_rate=run.learning_rate,
        max_grad_norm=run.max_grad_norm,
        lr_scheduler_type=SCHEDULES[run.schedule],
        lr_scheduler_kwargs=_schedule_settings(run),
        warmup_steps=run.warmup_steps,
        bf16=run.bf16,
        use_cpu=not torch.accelerator.is_available(),
        activation_checkpointing=run.activation_checkpointing,
        fsdp=cast("str | None", run.fsdp or None),  # a bool since 5.23; its annotation says str
        ddp_find_unused_parameters=False,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,  # hides divergence, and waits for the device in every step
        save_steps=run.save_every,
        report_to=list(run.report_to) or "none",
        project="lm2",
        run_name=run.output_dir.name,
        remove_unused_columns=False,
        ignore_data_skip=True,  # StillToDo starts at the right pass
        disable_tqdm=True,  # ShowProgress instead
        use_cache=getattr(model.config, "use_cache", False),  # what the saved configuration says
        seed=run.seed,
    )


def _schedule_settings(run: RunConfig) -> dict[str, Any]:
    if run.schedule != "trapezoid":
        return {}
    fall = min(round(TRAPEZOID_FALL * run.steps), run.steps - run.warmup_steps)
    return {"num_decay_steps": fall, "decay_type": "linear"}


def _check_sharding_can_start(run: RunConfig) -> None:
    _, processes = share()
    if run.fsdp and processes < 2:
        raise ValueError(
            f"fsdp=True was asked for, but there is {processes} process: start it with torchrun, or set fsdp=False."
        )


def _check_parallelism(run: RunConfig, trainer: LM2Trainer) -> None:
    if run.fsdp and not trainer.is_fsdp_enabled:
        raise ValueError(
            f"fsdp=True was asked for, but on {trainer.args.device.type} the trainer runs "
            f"{trainer.accelerator.distributed_type.value}: start it with torchrun on GPUs, or set fsdp=False."
        )
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"One process sees {trainer.args.n_gpu} GPUs: start one process per GPU with "
            f"`torchrun --nproc-per-node={trainer.args.n_gpu}`, or show it one with CUDA_VISIBLE_DEVICES."
        )
    parts = run.accumulation * trainer.args.world_size
    for stage in run.stages:
        if stage.rows % parts:
            raise ValueError(
                f"A stage's rows must divide into passes and processes: {stage.rows} rows, {run.accumulation} passes, "
                f"{trainer.args.world_size} processes. Use a multiple of {parts} rows."
            )


def check_same_run(checkpoint: Path, run: RunConfig) -> None:
    """Raises ValueError if a checkpoint is not one of this run, with what differs."""
    path = checkpoint / RUN_FILE
    if not path.exists():
        raise ValueError(f"{checkpoint} has no {RUN_FILE}, so it is not a checkpoint of this trainer: remove it.")
    changed = differences(json.loads(path.read_text(encoding="utf-8"))["run"], json.loads(json.dumps(run.describe())))
    if changed:
        raise ValueError(
            f"{checkpoint} belongs to another run ({'; '.join(changed)}): use the same settings, or another output_dir."
        )


@contextmanager
def _without_bars() -> Generator[None]:
    """Silence the bar that writing a model draws over ours."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _run_record(run: RunConfig) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["transformers"] = transformers.__version__
    return {"run": run.describe(), "versions": versions}
