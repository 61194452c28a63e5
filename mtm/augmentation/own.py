"""A view of one's own, found by its import path: what comes last, after all views that the suite makes.

    seitpp pretrain --store stores/train --augment.own holes:Holes --output_dir runs/mtm

The class is made without arguments. Its object is called with ids (b, h, w) int64 and the Draws of the batch, and
returns ids of the same shape. It must be a function of these two alone, or a resumed run is another.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from seitpp.runtime.errors import UserError
from seitpp.runtime.own_code import import_own, make_own, short
from seitpp.training.random_streams import Draws


class OwnView:
    """A user's view, tried on a batch of four before anything is written.

    Args:
        spec: import path of the class, package.module:Class.
        view: (h, w) of the ids that it gets.
        codes: how many codes there are.
        device: where they are.
    Raises: UserError if there is no such class, or it gives something else than ids.
    """

    def __init__(self, spec: str, *, view: tuple[int, int], codes: int, device: torch.device | str) -> None:
        self.spec = spec
        found = import_own(spec)
        if not (isinstance(found, type) and callable(found)):
            raise UserError(f"--augment.own {spec}: there is no such class, expected package.module:Class")
        self.view: Callable[[Tensor, Draws], Tensor] = make_own(found, spec)
        places = torch.arange(4, device=device)
        tried = torch.arange(4 * view[0] * view[1], device=device).reshape(4, *view) % codes
        try:
            given = self(tried, Draws(0, 0, places))
        except UserError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise UserError(f"--augment.own {spec} fails on four maps of {view} ids ({short(error)})") from error
        if int(given.min()) < 0 or int(given.max()) >= codes:
            raise UserError(f"--augment.own {spec} gives ids that are not 0 to {codes - 1}, the codes that there are")

    def __call__(self, ids: Tensor, draws: Draws) -> Tensor:
        """Views (b, h, w) int64 of the same shape."""
        views = self.view(ids, draws)
        if not (isinstance(views, Tensor) and views.shape == ids.shape and views.dtype == ids.dtype):
            given = f"{tuple(views.shape)} {views.dtype}" if isinstance(views, Tensor) else type(views).__name__
            raise UserError(f"--augment.own {self.spec} gives {given}, expected {tuple(ids.shape)} {ids.dtype}")
        return views
