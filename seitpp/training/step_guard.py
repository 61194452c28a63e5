"""After each step all processes know the same: whether the loss was finite, and whether anyone was told to stop.

On a GPU asking for the loss would make the machine wait for the device at every step. There the news of a step is read
while the next one runs. Until it is read nothing can go wrong: the fused optimizer itself skips its update, on the
device, from the first loss on that is not finite, and nothing is logged, evaluated or saved before `check`.
"""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watch:
    """What a step has to tell.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder, whose newest checkpoint an error names.
        optimizer: the prepared optimizer.
        received: list of the signals that this process got; the signal handler appends to it.
        late: whether news is read a step later; None: where the optimizer can skip its update on a device.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        run: RunFolder,
        optimizer: Any,
        received: list[int],
        *,
        late: bool | None = None,
    ):
        self.accelerator = accelerator
        self.run = run
        self.received = received
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        self.late = _skips_on_a_device(self.optimizer, accelerator) if late is None else late
        self.loss: Any = 0.0
        self.bad = None
        self.pending: Any = None
        self.told = 0

    @property
    def signal(self) -> int:
        """The signal that any process is known to have got, else 0; the same on all processes between two steps."""
        if self.accelerator.num_processes == 1:
            return self.received[0] if self.received else 0
        return self.told

    def add(self, loss: torch.Tensor) -> None:
        """Take note of the loss of a micro-step."""
        self.loss = self.loss + loss.detach().float()

    def before_update(self, step: int) -> None:
        """Tell the others, and stop unless the losses of this step (or, read late, of the one before) were finite.

        Raises: UserError on all processes alike.
        """
        # new_full fills on the device; a tensor made from a list would be a copy, and that waits for the device.
        got = [self.loss.new_full((), float(number in self.received)) for number in _SIGNALS]
        news = torch.stack([self.loss, *got])
        self.loss = 0.0
        if self.accelerator.num_processes > 1:
            news = self.accelerator.reduce(news, reduction="sum")
        if not self.late:
            self._read(step, news)
            return
        bad = (~news[0].isfinite()).float()
        self.bad = bad if self.bad is None else torch.maximum(self.bad, bad)
        self.optimizer.found_inf = self.bad
        self.check()
        self.pending = step, *_copied(news)

    def check(self) -> None:
        """Read what is not read yet, waiting for the device.

        Raises: UserError if a loss was not finite.
        """
        if self.pending is not None:
            step, news, copied = self.pending
            self.pending = None
            copied.synchronize()
            self._read(step, news)

    def _read(self, step, news):
        loss, *got = news.tolist()
        self.told = next((number for number, count in zip(_SIGNALS, got, strict=True) if count), 0)
        if not math.isfinite(loss):
            saved = self.run.checkpoints()
            # The newest may be spoilt already, though its loss was finite; and a folder holds one configuration.
            onward = "resume from it or an earlier one with --resume PATH and another --output_dir"
            raise UserError(
                f"the loss is {loss} at step {step}; nothing was updated. Newest checkpoint: "
                f"{saved[-1] if saved else 'none'}; {onward if saved else 'start afresh with --resume none'}, "
                f"at a lower --lr or --blr, or with --clip_grad"
            )


def _skips_on_a_device(optimizer, accelerator):
    """Whether the optimizer obeys `found_inf` itself: torch's fused ones do; not with sharded (DTensor) parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return (
        accelerator.device.type == "cuda"
        and accelerator.scaler is None  # fp16's scaler sets found_inf, and waits for the device anyway
        and all(group.get("fused") for group in optimizer.param_groups)
        and not any(isinstance(parameter, DTensor) for parameter in parameters)
    )


class _Now:
    """The event of a copy that was over at once."""

    def synchronize(self):
        """Nothing to wait for."""


def _copied(news):
    """(news on the CPU, an event to wait for before it is read)."""
    if news.device.type != "cuda":
        return news, _Now()
    copy = torch.empty(news.shape, dtype=news.dtype, pin_memory=True)
    copy.copy_(news, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


@contextmanager
def collected_signals(*, alone: bool) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying in the middle of a step.

    A second Ctrl-C dies at once. Schedulers and launchers may each send a signal for one and the same stop, so another
    SIGTERM changes nothing, and a second SIGINT only kills a process that is `alone`.
    """
    received = []

    def note(number, frame):
        if alone and number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    former = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
