"""The processes of a launch as a team: they wait for each other however long it takes, and notice who died."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from seitpp.runtime.command import explain
from seitpp.runtime.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


_FOREVER = timedelta(days=365)


class Processes:
    """All processes of a launch, this one among them; a single process is a team of one.

    They talk over gloo, on GPUs too: NCCL gives up on one that needs half an hour longer than the others, and waits
    for one that is dead.

    Args:
        accelerator: Accelerate's.

    Attributes:
        rank: number of this process.
        count: how many there are.
    """

    def __init__(self, accelerator: "Accelerator"):
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.group: Any = dist.new_group(backend="gloo", timeout=_FOREVER) if self.count > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that speaks."""
        return self.rank == 0

    def agree(self, function: Callable[[], Any]) -> Any:
        """Call `function` on every process and go on only if it succeeds on all.

        Returns: its result on this process.
        Raises: its error; on the others a UserError with the first one's message, so that the main process can tell.
        """
        if self.group is None:
            return function()
        result, problem = None, None
        try:
            result = function()
        except Exception as error:
            problem = error
        said = [None] * self.count
        dist.all_gather_object(said, problem and explain(problem), group=self.group)
        if problem is not None:
            raise problem
        for rank, message in enumerate(said):
            if message is not None:
                raise UserError(f"process {rank}: {message}")
        return result

    def from_main(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the main process; its result, or its error, is everyone's."""
        result = self.agree(function if self.is_main else lambda: None)
        if self.group is None:
            return result
        box = [result]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def wait(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until every process is here.

        Args:
            meanwhile: called again and again.
        Raises: UserError if one ended before.
        """
        if self.group is None:
            return
        barrier = dist.barrier(group=self.group, async_op=True)
        try:
            while not barrier.is_completed():
                time.sleep(0.05)
                meanwhile()
            barrier.wait()
        except RuntimeError as error:
            raise UserError(
                "another process ended before its work was done, for a reason that it gave itself: "
                "to resume, rerun the same command"
            ) from error
