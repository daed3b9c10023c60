"""A training that can be killed at any moment and goes on from its last saved state.

torchtune saves between epochs only. But when its loop asks for the next batch, the step before is complete: weights
updated, gradients empty, loss logged. `Resumable` saves there, to `states/step_<n>` in the config's `output_dir`. The
file written last says that the state is whole; only then is the one before it deleted. Does not: ask whether a state is
of the same config and data (`launch` does).
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torchtune.utils import get_world_size_and_rank

from guard_utils.files import write_text

STATES = "states"
_WHOLE = "whole.json"


class State(NamedTuple):
    """Where a run stands: optimizer steps done, epoch (from 0), batches done in it by each process, seconds so far."""

    step: int
    epoch: int
    batches: int
    seconds: float


def saved_state(output_dir: Path) -> State | None:
    """The last whole state of a run, if there is one."""
    states = [State(**json.loads(mark.read_text())) for mark in (output_dir / STATES).glob(f"step_*/{_WHOLE}")]
    return max(states, key=lambda state: state.step, default=None)


class _Batches:
    """A recipe's dataloader, its batches passed through a function."""

    def __init__(self, loader: Any, through: Callable[[Any], Iterator[dict[str, Any]]]) -> None:
        self._loader, self._through = loader, through

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._through(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_Recipe: Any = object


class Resumable(_Recipe):
    """Base class to put before one of torchtune's recipes: saves its state and resumes from it.

    Keys of the config: `save_every_n_steps` (absent: once per epoch), and `resume_from_checkpoint`, which starts from
    the last whole state. Weights and optimizer state are written from where they are, without a copy in memory.
    """

    _dataloader: Any

    def __init__(self, cfg: DictConfig) -> None:
        self._output, self._started = Path(cfg.output_dir), time.monotonic()
        self._saved_step = self._batches_done = 0
        self._rng: Any = None
        # torchtune's own resuming reads files of an epoch's end, which are not written here.
        super().__init__(OmegaConf.merge(cfg, {"resume_from_checkpoint": False}))

    def setup(self, cfg: DictConfig) -> None:
        """Sets up torchtune's recipe; loads a state (FileNotFoundError if there is none) where the config says so."""
        super().setup(cfg=cfg)
        self._save_every = cfg.get("save_every_n_steps") or self._steps_per_epoch
        self._dataloader = _Batches(self._dataloader, self._batches)
        # The full distributed recipe saves through its client, the others by a method of their own. Both save the
        # model at the end of training only; until then there are states.
        saver: Any = getattr(self, "_checkpoint_client", self)
        save, last = saver.save_checkpoint, self.total_epochs - 1
        saver.save_checkpoint = lambda epoch, **parts: save(epoch=epoch, **parts) if epoch == last else None
        if cfg.resume_from_checkpoint:
            self._load_state()

    def cleanup(self) -> None:
        """Cleans up; one of several processes ends here, without Python's shutdown.

        Threads of gloo outlive the process group, and now and then abort a process that shuts down, as they free a
        tensor then (pytorch pull request 179291): a training that was whole would be reported as failed.
        """
        super().cleanup()
        if "RANK" in os.environ:
            sys.stdout.flush()
            os._exit(0)

    def _batches(self, loader: Any) -> Iterator[dict[str, Any]]:
        first, self._batches_done = self._batches_done, 0
        loader.sampler.load_state_dict({"yielded": first * loader.batch_size})
        batches = iter(loader)
        # Only now: making the iterator draws a number that the interrupted run drew before its state was saved.
        if self._rng is not None:
            torch.set_rng_state(self._rng[0])
            torch.cuda.set_rng_state_all(self._rng[1])
            self._rng = None
        for done, batch in enumerate(batches, first):
            steps, within = divmod(done, self._gradient_accumulation_steps)
            if steps == self.max_steps_per_epoch:  # the loop itself counts from where it resumed
                return
            # Never twice: at an epoch's start, gradients of the last, unfinished step of the epoch before may wait.
            if within == 0 and self.global_step % self._save_every == 0 and self.global_step != self._saved_step:
                self._save_state(done)
            yield batch

    def _parts(self) -> tuple[list[torch.Tensor], Any, Any]:
        """The trained weights in order, the optimizer and the scheduler."""
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
            mark = State(self.global_step, self.epochs_run, batches, time.monotonic() - self._started)
            write_text(folder / _WHOLE, json.dumps(mark._asdict()) + "\n")
            for other in set(folder.parent.iterdir()) - {folder}:
                shutil.rmtree(other)

    def _load_state(self) -> None:
        found = saved_state(self._output)
        if found is None:
            raise FileNotFoundError(f"resume_from_checkpoint is True, but {self._output} has no state; set it to False")
        file = self._output / STATES / f"step_{found.step}" / f"rank_{get_world_size_and_rank()[1]}.pt"
        state = torch.load(file, map_location="cpu")
        weights, optimizer, scheduler = self._parts()
        for weight, saved in zip(weights, state["weights"], strict=True):
            weight.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        if scheduler:
            scheduler.load_state_dict(state["scheduler"])
        self.global_step = self._saved_step = found.step
        self.epochs_run, self._batches_done, self._rng = found.epoch, found.batches, state["rng"]
        self._started -= found.seconds
