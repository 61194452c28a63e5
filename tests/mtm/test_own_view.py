"""A view of one's own, by its import path: called last with the batch's draws, tried before a training."""

import pytest
import torch

import tiny
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.runtime.errors import UserError
from seitpp.training.random_streams import Draws

MODULE = """
import torch

class Shifted:
    def __call__(self, ids, draws):
        return (ids + (draws.uniform("mine: shift", 1) * 5).long()[..., None]) % {codes}

class Smaller:
    def __call__(self, ids, draws):
        return ids[:, 1:]

class Beyond:
    def __call__(self, ids, draws):
        return ids + {codes}

class Fails:
    def __call__(self, ids, draws):
        return ids + 1 / 0

class Asks:
    def __init__(self, side):
        self.side = side

number = 3
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "my_views.py").write_text(MODULE.format(codes=tiny.CODES))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tiny.make_store(tmp_path / "store", tiny.random_ids(8, tiny.CODES, tiny.GRID))


def make(store, spec, **words):
    from seitpp.tokens.store import open_store

    return Augment(AugmentConfig(own=spec, **words), store=open_store(store), view=tiny.GRID, device="cpu")


def test_it_comes_after_all_other_views_and_leaves_the_targets_as_they_are(store):
    others = {"color_adapt": 0.5, "mix": MixConfig(cutmix=1.0)}
    ids, labels = tiny.random_ids(8, tiny.CODES, tiny.GRID, seed=3), torch.arange(8)
    draws = Draws(2, 5, torch.arange(8))
    views, targets = make(store, "my_views:Shifted", **others).mixed(ids, labels, draws, classes=8)
    without, same = make(store, None, **others).mixed(ids, labels, draws, classes=8)
    shift = (draws.uniform("mine: shift", 1) * 5).long()
    expected = torch.stack([(each + by) % tiny.CODES for each, by in zip(without, shift[:, 0], strict=True)])
    assert torch.equal(views, expected)
    assert torch.equal(targets, same)
    assert len(shift.unique()) > 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_views:Nothing", "--augment.own my_views:Nothing: there is no such class, expected package.module:Class"),
        ("my_views:number", "there is no such class"),
        ("not_there:View", "not_there:View: not_there can't be imported (ModuleNotFoundError"),
        ("my_views:Asks", "my_views:Asks can't be made without arguments"),
        ("my_views:Smaller", "--augment.own my_views:Smaller gives (4, 3, 6) torch.int64, expected (4, 4, 6)"),
        ("my_views:Beyond", "gives ids that are not 0 to 36, the codes that there are"),
        ("my_views:Fails", "fails on four maps of (4, 6) ids (ZeroDivisionError: division by zero)"),
    ],
)
def test_what_is_no_view_is_refused_in_one_line_before_anything_begins(store, spec, message):
    with pytest.raises(UserError) as error:
        make(store, spec)
    assert message in tiny.one_line(str(error.value))
