"""`seitpp reconstruct`: which part is hidden, the picture, the line it prints, and what it refuses."""

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

import tiny
from seitpp.mtm.generate import generate
from seitpp.mtm.masking import Masks
from seitpp.mtm.model import load_model
from seitpp.mtm.pictures import completion_picture, completion_rows
from seitpp.mtm.reconstruct import ReconstructConfig, evenly, hidden_patches, main, report
from seitpp.runtime.errors import UserError
from seitpp.runtime.pictures import image_grid
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws

VIEW = (2, 4)  # of grids of 4 x 6 tokens


def draws_of(samples):
    return Draws(0, 0, torch.arange(samples))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store, a tokenizer and a model that sees less than whole grids."""
    folder = tmp_path_factory.mktemp("world")
    tiny.make_tokenizer(folder / "tokenizer")
    fingerprint = load_tokenizer(folder / "tokenizer").fingerprint
    ids = tiny.random_ids(20, tiny.CODES, tiny.GRID)
    tiny.make_store(folder / "store", ids, fingerprint=fingerprint)
    tiny.make_mtm(folder / "mtm", view=VIEW, fingerprint=fingerprint)
    return folder


def config_of(world, out, **changes):
    """A configuration for three images of the world."""
    values = {name: str(world / folder) for name, folder in {"store": "store", "weights": "mtm"}.items()}
    values |= {"tokenizer": str(world / "tokenizer"), "out": str(out), "images": 3, "measured": 7, "steps": 2}
    return ReconstructConfig(**{**values, **changes})


def cells_of(path, rows, images):
    """The images of a picture, (rows, images, height, width, 3)."""
    with Image.open(path) as picture:
        pixels = np.pad(np.asarray(picture), ((0, 2), (0, 2), (0, 0)))
    height, width = tiny.IMAGE_SIZE
    cells = rearrange(pixels, "(r y) (n x) c -> r n y x c", r=rows, n=images)
    assert cells.shape[2:4] == (height + 2, width + 2)
    return cells[:, :, :height, :width]


def drawn(tokenizer, ids, view=None):
    """Pixels of grids, with the ids of a view in the middle where one is given."""
    ids = ids.clone()
    if view is not None:
        ids[:, 1:3, 1:5] = view
    return (rearrange(tokenizer.decode(ids), "n c y x -> n y x c").numpy() * 255).round()


# What is hidden


@pytest.mark.parametrize(
    ("kind", "ratio", "rows"),
    [
        ("right", 0.5, ["...###", "...###", "...###", "...###"]),
        ("right", 0.1, [".....#", ".....#", ".....#", ".....#"]),
        ("centre", 0.25, ["......", ".###..", ".###..", "......"]),
        ("centre", 1.0, ["######", "######", "######", "######"]),
    ],
)
def test_the_right_and_the_centre_are_as_drawn(kind, ratio, rows):
    hidden = hidden_patches(kind, ratio, (4, 6), draws_of(2))
    drawn = ["".join(".#"[place] for place in row) for row in rearrange(hidden[1], "(h w) -> h w", h=4).tolist()]
    assert drawn == rows
    assert torch.equal(hidden[0], hidden[1])


def test_random_patches_are_as_many_in_each_sample_and_not_the_same():
    hidden = hidden_patches("random", 0.3, (4, 6), draws_of(5))
    assert hidden.sum(dim=1).tolist() == [8] * 5  # 0.3 of 24 patches, rounded up
    assert len({tuple(row) for row in hidden.tolist()}) == 5


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"), [(10, 5, [0, 2, 4, 6, 8]), (3, 5, [0, 1, 2]), (7, 3, [0, 2, 4])]
)
def test_rows_are_spaced_evenly(count, wanted, chosen):
    assert evenly(count, wanted) == chosen


# The picture


@pytest.mark.parametrize("kind", ["right", "centre", "random"])
def test_the_picture_has_four_rows_and_is_grey_where_ids_are_hidden(world, tmp_path, kind):
    main(config_of(world, tmp_path / "picture.png", mask=kind))
    with Image.open(tmp_path / "picture.png") as picture:
        pixels = np.asarray(picture)
    height, width = tiny.IMAGE_SIZE
    assert pixels.shape == (4 * height + 3 * 2, 3 * width + 2 * 2, 3)
    original, covered = (pixels[row * (height + 2) :][:height, :width] for row in range(2))
    grey = (covered == 153).all(axis=-1)
    assert grey.sum() == 8 * 8  # one of two patches of 2 x 2 tokens of 4 x 4 pixels
    assert grey[4:12, 4:20].sum() == grey.sum()  # and in the view, which is the centre
    assert (covered[~grey] == original[~grey]).all()


@torch.no_grad()
def test_grids_are_decoded_whole_with_the_view_put_into_them(world):
    class WholeGridsOnly:
        """A decoder that knows one size only, as that of a ViT-VQGAN: each token a grey pixel."""

        def decode(self, ids):
            assert tuple(ids.shape[1:]) == tiny.GRID
            return rearrange(ids / tiny.CODES, "b h w -> b 1 h w").repeat(1, 3, 1, 1)

    model, _ = load_model(world / "mtm")
    ids = open_store(world / "store").ids([4, 9])
    completed = (centre(ids, VIEW) + 1) % tiny.CODES
    masked = torch.tensor([[True, False], [False, True]])
    original, covered, filled = completion_rows(model, WholeGridsOnly(), ids, masked, [completed])
    expected = original.clone()
    expected[:, :, 1:3, 1:5] = completed[:, None] / tiny.CODES
    assert torch.equal(filled, expected)
    expected = original.clone()
    expected[0, :, 1:3, 1:3] = expected[1, :, 1:3, 3:5] = 0.6
    assert torch.equal(covered, expected)


def test_a_picture_of_completions_takes_whole_grids_or_views(world, tmp_path):
    model, _ = load_model(world / "mtm")
    tokenizer = load_tokenizer(world / "tokenizer")
    ids = open_store(world / "store").ids(range(5))
    for each, (height, width) in ((ids, tiny.IMAGE_SIZE), (centre(ids, VIEW), (8, 16))):
        completion_picture(model, tokenizer, each, tmp_path / "picture.png", ratio=0.6)
        with Image.open(tmp_path / "picture.png") as picture:
            assert picture.size == (5 * width + 4 * 2, 3 * height + 2 * 2)


@torch.no_grad()
def test_the_last_row_shows_what_the_model_makes_of_what_is_grey(world, tmp_path):
    model, _ = load_model(world / "mtm")
    tokenizer, ids = load_tokenizer(world / "tokenizer"), open_store(world / "store").ids(range(5))
    completion_picture(model, tokenizer, ids, tmp_path / "picture.png", ratio=0.5)
    original, covered, completed = cells_of(tmp_path / "picture.png", 3, 5)
    grey = (covered == 153).all(axis=-1)
    masked = torch.from_numpy(np.stack([grey[:, 4:12, 4:12].all((1, 2)), grey[:, 4:12, 12:20].all((1, 2))], axis=1))
    assert masked.sum(dim=1).tolist() == [1] * 5
    filled = model.complete(centre(ids, VIEW), Masks(masked, masked, 1, 1))
    assert (original == drawn(tokenizer, ids)).all()
    assert (completed == drawn(tokenizer, ids, filled)).all()
    assert not (completed == original).all()


@torch.no_grad()
def test_the_last_rows_show_what_one_pass_and_what_several_fill_in(world, tmp_path):
    main(config_of(world, tmp_path / "picture.png", ratio=1.0))
    model, _ = load_model(world / "mtm")
    tokenizer, ids = load_tokenizer(world / "tokenizer"), open_store(world / "store").ids([0, 5, 11])
    original, _, once, steps = cells_of(tmp_path / "picture.png", 4, 3)
    view, masked = centre(ids, VIEW), torch.ones(3, 2, dtype=torch.bool)
    assert (original == drawn(tokenizer, ids)).all()
    assert (once == drawn(tokenizer, ids, model.complete(view, Masks(masked, masked, 2, 2)))).all()
    expected = generate(model, view, masked, draws_of(3), steps=2, temperature=0.0, choice_noise=0.0)
    assert (steps == drawn(tokenizer, ids, expected)).all()
    assert not (steps == once).all()


# The command


def test_the_line_tells_how_many_hidden_ids_both_ways_restore(world, tmp_path, capsys):
    main(config_of(world, tmp_path / "picture.png"))
    line = tiny.one_line(capsys.readouterr().out)
    assert "of 28 hidden ids in 7 images one pass restores" in line
    assert "2 steps" in line
    assert "the most frequent id is right for" in line


def test_the_shares_in_the_line_are_those_of_hidden_ids():
    class TwoPatches:
        def targets(self, ids):
            return rearrange(ids, "b h (n w) -> b n (h w)", n=2)

    ids = torch.tensor([[[1, 2, 3, 3]], [[5, 3, 8, 9]]])
    masked = torch.tensor([[False, True], [True, False]])  # hidden: 3 3 and 5 3
    once, steps = torch.tensor([[[0, 0, 3, 0]], [[0, 0, 8, 9]]]), torch.tensor([[[1, 2, 3, 3]], [[5, 0, 0, 0]]])
    config = ReconstructConfig(store="", weights="", tokenizer="", out="p.png", steps=4)
    assert report(TwoPatches(), ids, masked, once, steps, config) == (
        "p.png: of 4 hidden ids in 2 images one pass restores 25.0%, 4 steps 75.0%; "
        "the most frequent id is right for 75.0%"
    )


def test_the_same_seed_makes_the_same_picture(world, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(config_of(world, tmp_path / name, seed=seed, mask="random", temperature=1.0))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_folder_in_the_place_of_the_picture_is_refused_before_anything_is_read(tmp_path):
    config = ReconstructConfig(store="nothing", weights="nothing", tokenizer="nothing", out=str(tmp_path))
    with pytest.raises(UserError, match=f"^--out {tmp_path} is a folder: name a file in it, such as {tmp_path}/pict"):
        main(config)


def test_a_picture_of_another_is_not_replaced(tmp_path):
    file = tmp_path / "holiday.png"
    Image.new("RGB", (3, 2)).save(file)
    before = file.read_bytes()
    config = ReconstructConfig(store="nothing", weights="nothing", tokenizer="nothing", out=str(file))
    with pytest.raises(UserError, match=r"holiday.png is there already and is not a picture of seitpp"):
        main(config)
    assert file.read_bytes() == before
    image_grid([torch.zeros(1, 3, 2, 2)], file)
    with pytest.raises(UserError, match="nothing is not a token store"):  # it went on to read
        main(config)


def test_a_model_of_another_tokenizer_is_refused(world, tmp_path):
    tiny.make_mtm(tmp_path / "mtm", view=VIEW, fingerprint="b" * 64)
    with pytest.raises(UserError, match="belongs to tokenizer bbbbbbbbbbbb"):
        main(config_of(world, tmp_path / "picture.png", weights=str(tmp_path / "mtm")))


def test_a_model_of_another_grid_is_refused(world, tmp_path):
    fingerprint = load_tokenizer(world / "tokenizer").fingerprint
    tiny.make_mtm(tmp_path / "mtm", view=VIEW, grid=(4, 8), fingerprint=fingerprint)
    with pytest.raises(UserError, match=r"grids of \(4, 8\), but those of .* are \(4, 6\)"):
        main(config_of(world, tmp_path / "picture.png", weights=str(tmp_path / "mtm")))


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": 0.0}, {"ratio": 1.1}, {"steps": 0}, {"temperature": -1.0}, {"images": 0}, {"measured": 2}, {"seed": -1}],
)
def test_impossible_settings_are_refused(world, tmp_path, wrong):
    with pytest.raises(UserError, match=f"ReconstructConfig: {next(iter(wrong))}"):
        config_of(world, tmp_path / "picture.png", **wrong)


def test_a_store_without_rows_is_refused(world, tmp_path):
    fingerprint = load_tokenizer(world / "tokenizer").fingerprint
    empty = tiny.make_store(tmp_path / "store", tiny.random_ids(0, tiny.CODES, tiny.GRID), fingerprint=fingerprint)
    with pytest.raises(UserError, match="store has no rows: there is nothing to fill"):
        main(config_of(world, tmp_path / "picture.png", store=str(empty)))
