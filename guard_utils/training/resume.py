"""A training that can be killed at any moment and goes on from its last saved state.

torchtune saves between epochs only. But when its training loop asks for the next batch, the step before is complete:
weights updated, gradients empty, loss logged. `Resumable` stands between dataloader and loop and saves there. A state
is a folder `states/step_<n>` in the config's `output_dir`; the file written last says that it is whole, and only then
is the state before it deleted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torchtune.utils import get_world_size_and_rank

from guard_utils.files import write_text

STATES = "states"
_WHOLE = "whole.json"


@dataclass(frozen=True)
class State:
    """Where a saved run stands.

    Attributes:
        folder: Holds one `rank_<n>.pt` a process.
        step: Optimizer steps done.
        epoch: Of the step to come, from 0.
        batches: Of that epoch that are done, in each process.
        seconds: Spent on all steps up to this one.
    """

    folder: Path
    step: int
    epoch: int
    batches: int
    seconds: float


def saved_state(output_dir: Path) -> State | None:
    """The last whole state of a run, if there is one."""
    marks = (output_dir / STATES).glob(f"step_*/{_WHOLE}")
    states = [State(mark.parent, **json.loads(mark.read_text())) for mark in marks]
    return max(states, key=lambda state: state.step, default=None)


class _Batches:
    """A recipe's dataloader whose batches pass through a function."""

    def __init__(self, loader: Any, through: Callable[[Any], Iterator[dict[str, Any]]]) -> None:
        self._loader = loader
        self._through = through

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._through(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_Recipe: Any = object


class Resumable(_Recipe):
    """Put before one of torchtune's recipes among a class's bases: saves its state and takes it up again.

    Two keys of the config rule it: `save_every_n_steps` (absent: once an epoch), and `resume_from_checkpoint`, which
    starts from the last whole state in `output_dir`. It does not ask whether that state is of the same config and
    data; `guard_utils.training.launch` does. Saving writes the trained weights and the optimizer's state from where they lie,
    without a copy of them in memory.
    """

    _dataloader: Any

    def __init__(self, cfg: DictConfig) -> None:
        self._output = Path(cfg.output_dir)
        self._resume, self._save_every = cfg.resume_from_checkpoint, cfg.get("save_every_n_steps")
        self._started = time.monotonic()
        self._saved_step = self._batches_behind = 0
        self._rng: tuple[torch.Tensor, list[torch.Tensor]] | None = None
        # torchtune's own resuming reads files of an epoch's end, which are not written here.
        super().__init__(OmegaConf.merge(cfg, {"resume_from_checkpoint": False}))

    def setup(self, cfg: DictConfig) -> None:
        """Sets up torchtune's recipe and loads the state that it is to go on from.

        Raises:
            FileNotFoundError: The config says to resume and there is no state.
        """
        super().setup(cfg=cfg)
        self._dataloader = _Batches(self._dataloader, self._batches)
        if client := getattr(self, "_checkpoint_client", None):
            # The full distributed recipe saves through it, not through `save_checkpoint`.
            save, last = client.save_checkpoint, self.total_epochs - 1
            client.save_checkpoint = lambda **parts: save(**parts) if parts["epoch"] == last else None
        if self._resume:
            self._load_state()

    def save_checkpoint(self, epoch: int) -> None:
        """Lets torchtune write the model at the end of training; until then there are states."""
        if epoch + 1 == self.total_epochs:
            super().save_checkpoint(epoch)

    def _batches(self, loader: Any) -> Iterator[dict[str, Any]]:
        behind, self._batches_behind = self._batches_behind, 0
        loader.sampler.load_state_dict({"yielded": behind * loader.batch_size})
        batches = iter(loader)
        # Only now: making the iterator draws a number that the interrupted run drew before its state was saved.
        if self._rng is not None:
            torch.set_rng_state(self._rng[0])
            torch.cuda.set_rng_state_all(self._rng[1])
            self._rng = None
        for done, batch in enumerate(batches, behind):
            steps, within = divmod(done, self._gradient_accumulation_steps)
            if steps == self.max_steps_per_epoch:  # the loop itself counts from where it resumed
                return
            if within == 0 and self._is_to_save():
                self._save_state(done)
            yield batch

    def _is_to_save(self) -> bool:
        # Never twice: at an epoch's start, gradients of a step that the epoch before left unfinished may be waiting.
        every = self._save_every or self._steps_per_epoch
        return bool(self.global_step != self._saved_step and self.global_step % every == 0)

    def _parts(self) -> tuple[list[torch.Tensor], Any, Any]:
        """The trained weights in order, and what else has a `state_dict` to keep."""
        weights = [weight.detach() for weight in self._model.parameters() if weight.requires_grad]
        return weights, self._optim_ckpt_wrapper if self._optimizer is None else self._optimizer, self._lr_scheduler

    def _save_state(self, batches: int) -> None:
        self._saved_step = self.global_step
        processes, rank = get_world_size_and_rank()
        folder = self._output / STATES / f"step_{self.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        weights, optimizer, scheduler = self._parts()
        state = {
            "weights": weights,
            "optimizer": optimizer.state_dict(),
            # With optimizer_in_bwd torchtune hangs a function on the scheduler.
            "scheduler": scheduler and {k: v for k, v in scheduler.state_dict().items() if not callable(v)},
            "rng": (torch.get_rng_state(), torch.cuda.get_rng_state_all()),
        }
        torch.save(state, folder / f"rank_{rank}.pt")
        if processes > 1:
            torch.distributed.barrier()
        if rank == 0:
            mark = {"step": self.global_step, "epoch": self.epochs_run, "batches": batches}
            write_text(folder / _WHOLE, json.dumps(mark | {"seconds": time.monotonic() - self._started}) + "\n")
            for other in folder.parent.iterdir():
                if other != folder:
                    shutil.rmtree(other)

    def _load_state(self) -> None:
        found = saved_state(self._output)
        if found is None:
            raise FileNotFoundError(
                f"resume_from_checkpoint is True and {self._output / STATES} holds no whole state; set it to False"
            )
        _, rank = get_world_size_and_rank()
        state = torch.load(found.folder / f"rank_{rank}.pt", map_location="cpu")
        weights, optimizer, scheduler = self._parts()
        for weight, saved in zip(weights, state["weights"], strict=True):
            weight.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        if scheduler:
            scheduler.load_state_dict(state["scheduler"])
        self.global_step = self._saved_step = found.step
        self.epochs_run, self._batches_behind, self._rng = found.epoch, found.batches, state["rng"]
        self._started -= found.seconds
