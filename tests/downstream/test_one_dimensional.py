"""One-dimensional tokens through every stage: what needs places in the image is refused, the rest works."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import tiny_pretraining
from seitpp.downstream.straight_through import AttackedPath
from seitpp.finetune import evaluation, import_model, pixels, probe, train
from seitpp.finetune.formats.network import FromIds, FromImages
from seitpp.finetune.formats.program import traced
from seitpp.finetune.load import load
from seitpp.finetune.predict import predict
from seitpp.mtm import pretrain, reconstruct
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.tokenadapt import train as train_token_adapt
from seitpp.tokenizers import reduce_codebook, store_budget, store_export, store_import, tokenize
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens import code_store
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import write_subset

TOKENS = 7
MODEL = replace(
    tiny_pretraining.MODEL, encoder=EncoderConfig(width=24, depth=1, heads=3, patch_size=1, embedding_std=0.5)
)
PLAIN = AugmentConfig(crop=False)
ALL = AugmentConfig(
    crop=False, color_adapt=0.3, noise=0.3, mix=MixConfig(mixup=0.5), eda=EdaConfig(synonyms=0.3, swap=0.0)
)


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, test_images):
    """Tokenizer `titok`, its stores `train` and `test` of images, a pre-training `mtm`, a classifier `classifier`."""
    folder = tmp_path_factory.mktemp("one_dimensional")
    tiny.make_titok(folder / "titok")
    for name, source in (("train", images), ("test", test_images)):
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(source), tokenizer=str(folder / "titok"), output_dir=str(folder / name), rows_per_shard=20
            )
        )
    pretrain.pretrain(pretraining(folder, folder / "mtm", eval_store=str(folder / "test"), augment=ALL))
    train.finetune(finetuning(folder, folder / "classifier"))
    return folder


def pretraining(world, output, **fields):
    fields = {"steps": 3, "model": MODEL, "tokenizer": str(world / "titok"), **fields}
    return tiny_pretraining.make_config(world, output, **fields)


def finetuning(world, output, **fields):
    fields = {"augment": replace(PLAIN, mix=MixConfig(mixup=0.8)), "weights": str(world / "mtm"), **fields}
    return train.FinetuneConfig(
        store=str(world / "train"), eval_store=str(world / "test"), output_dir=str(output), steps=2, batch_size=8,
        mixed_precision="no", **fields,
    )  # fmt: skip


def refused(call, *parts):
    """The one line that refuses a call, checked to give the reason."""
    with pytest.raises(UserError) as error:
        call()
    line = tiny.one_line(str(error.value))
    for part in ("one-dimensional tokens, whose places are no places in the image", *parts):
        assert part in line
    return line


def nothing_in(folder):
    """Whether a stage has written nothing; locks and their folders go with its process."""
    return not [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


# Stores


def test_a_store_says_that_its_tokens_have_no_geometry(world, images, capsys):
    store = TokenStore(world / "train")
    tokenizer = load_tokenizer(world / "titok")
    assert (store.grid, store.geometry, len(store)) == ((1, TOKENS), "none", 30)
    assert read_json(world / "train" / "store.json")["tokenizer"] == {
        "name": "titok", "fingerprint": tokenizer.fingerprint, "geometry": "none",
    }  # fmt: skip
    source = open_image_folder(images)
    ids = tokenizer.encode(read_all(source, list(range(30)), tokenizer.image_size, tokenizer.resize))
    assert torch.equal(store.ids(range(30)), ids)
    assert len({tuple(row.flatten().tolist()) for row in ids}) > 10
    store.verify()


def test_stores_that_are_made_of_it_say_so_too(world, tmp_path):
    store = TokenStore(world / "train")
    where = str(world / "train")
    write_subset(tmp_path / "subset", store, np.arange(0, 30, 2), how={})
    reduce_codebook.main(
        reduce_codebook.ReduceCodebookConfig(
            store=where, tokenizer=str(world / "titok"), codes=9, output_dir=str(tmp_path / "reduced")
        )
    )
    store_export.main(store_export.ExportConfig(store=where, format="parquet", out=str(tmp_path / "exported")))
    store_import.main(
        store_import.ImportConfig(source="parquet", data=str(tmp_path / "exported"), output_dir=str(tmp_path / "again"))
    )
    for name in ("subset", "reduced", "again"):
        made = TokenStore(tmp_path / name)
        assert made.geometry == "none", name
        made.verify()
    assert torch.equal(TokenStore(tmp_path / "again").ids(range(30)), store.ids(range(30)))
    assert load_tokenizer(tmp_path / "reduced" / "tokenizer").geometry == "none"


def test_coded_rows_of_a_row_of_tokens_are_read_back(tmp_path):
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.choice(37, size=(300, 1, 32), p=[0.9, *[0.1 / 36] * 36]))
    folder = tiny.make_store(tmp_path / "store", ids, rows_per_shard=200)
    manifest = read_json(folder / "store.json")
    manifest["tokenizer"]["geometry"] = "none"
    (folder / "store.json").write_text(json.dumps(manifest))
    store = TokenStore(folder)
    code_store.main(code_store.CodeStoreConfig(store=str(store.folder), output_dir=str(tmp_path / "coded")))
    coded = TokenStore(tmp_path / "coded")
    assert (coded.manifest["coding"], coded.geometry) == ("rans", "none")
    assert coded.size.tokens < 0.8 * store.size.tokens
    assert torch.equal(coded.ids(range(300)), ids)


def test_a_store_that_does_not_say_has_a_grid(tmp_path):
    folder = tiny.make_store(tmp_path / "store", tiny.random_ids(5, tiny.CODES, (1, TOKENS)))
    assert TokenStore(folder).geometry == "grid"
    assert Augment(AugmentConfig(), store=TokenStore(folder), view=(1, TOKENS), device="cpu").config.crop


@pytest.mark.parametrize("geometry", ["helix", 1, None])
def test_a_geometry_that_is_not_known_is_refused(tmp_path, geometry):
    folder = tiny.make_store(tmp_path / "store", tiny.random_ids(5, tiny.CODES, (1, TOKENS)))
    manifest = read_json(folder / "store.json")
    manifest["tokenizer"]["geometry"] = geometry
    (folder / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="geometry"):
        TokenStore(folder)


def test_what_a_budget_costs_and_decoded_images(world, tmp_path, capsys):
    titok = str(world / "titok")
    store_budget.main(
        store_budget.BudgetConfig(store=str(world / "train"), bytes="50%", tokenizer=titok, json=True)
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["ways"][0]["name"] == "as it is"
    store_export.main(
        store_export.ExportConfig(
            store=str(world / "test"), format="imagefolder", tokenizer=titok, out=str(tmp_path / "decoded")
        )
    )
    assert len(list((tmp_path / "decoded").rglob("*.png"))) == 12


# Training


def test_a_token_is_a_patch_and_the_view_is_whole(world):
    model = load(world / "mtm")
    assert (model.encoder.view, model.encoder.patch_grid) == ((1, TOKENS), (1, TOKENS))
    positions = model.encoder.pos_embed
    assert len({tuple(row) for row in positions.tolist()}) == TOKENS
    with Image.open(world / "mtm" / "completions.png") as picture:
        height, width = tiny.IMAGE_SIZE
        assert picture.size == (12 * width + 11 * 2, 2 * height + 2)  # no row of grey: nothing hidden has a place


GEOMETRIC = {
    "crops": ({"crop": True}, "--augment.crop false"),
    "TokenAdapt": ({"token_adapt": "nowhere"}, "leave out --augment.token_adapt"),
    "swaps of squares": ({"eda": EdaConfig(swap=0.25)}, "--augment.eda.swap 0"),
    "CutMix": ({"mix": MixConfig(cutmix=1.0, mixup=0.8)}, "--augment.mix.cutmix 0 (Mixup works)"),
}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_augmentation_is_refused_before_anything_is_written(world, tmp_path, name, monkeypatch):
    fields, advice = GEOMETRIC[name]
    augment = replace(PLAIN, **fields)
    refused(lambda: Augment(augment, store=TokenStore(world / "train"), view=(1, TOKENS), device="cpu"), name, advice)
    if name == "TokenAdapt":
        augment = replace(augment, token_adapt=None, crop=True)
    output = tmp_path / "run"
    refused(lambda: pretrain.pretrain(pretraining(world, output, augment=augment)))
    refused(lambda: train.finetune(finetuning(world, output, augment=augment)))
    refused(lambda: probe.probe(probing(world, output, augmented=True, augment=augment)))
    assert nothing_in(output)


def test_all_that_is_geometric_is_named_in_one_line(world):
    both = replace(PLAIN, crop=True, mix=MixConfig(cutmix=1.0))
    line = refused(lambda: Augment(both, store=TokenStore(world / "train"), view=(1, TOKENS), device="cpu"))
    assert line.endswith("in crops and CutMix: --augment.crop false, --augment.mix.cutmix 0 (Mixup works)")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"view": (1, 4)}, "a view of (1, 4)"),
        ({"model": replace(MODEL, encoder=replace(MODEL.encoder, patch_size=2))}, "patches of 2 tokens"),
    ],
)
def test_parts_of_a_row_and_larger_patches_are_refused(world, tmp_path, fields, part):
    output = tmp_path / "run"
    refused(lambda: pretrain.pretrain(pretraining(world, output, **fields)), part, "patch_size to 1, and no --view")
    assert nothing_in(output)


def test_a_stem_adapter_is_refused(world, tmp_path):
    stem = {"weights": None, "stem": "adapter", "encoder": replace(MODEL.encoder, patch_size=2)}
    refused(lambda: train.finetune(finetuning(world, tmp_path / "run", **stem)), "patches of 2 tokens")
    assert nothing_in(tmp_path / "run")


def test_appearance_mixup_and_synonyms_change_views(world):
    store = TokenStore(world / "train")
    ids = store.ids(range(16))
    views = Augment(ALL, store=store, view=(1, TOKENS), device="cpu").views(ids, seed=0)
    assert views.shape == ids.shape
    assert 0.1 < (views != ids).float().mean() < 1


def probing(world, output, **fields):
    return probe.ProbeConfig(
        store=str(world / "train"), eval_store=str(world / "test"), weights=str(world / "mtm"), neighbours=(1,),
        output_dir=str(output), mixed_precision="no", inverse_regularisation=(0.1,), **fields,
    )  # fmt: skip


def test_probes_measure_the_encoder_and_the_codes(world, tmp_path):
    probe.probe(probing(world, tmp_path / "run", features=("mtm", "random", "bag-of-tokens")))
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 5  # linear of three features, and k-NN of two


def test_images_are_evaluated_and_predicted(world, test_images, tmp_path, own_accelerator):
    files = [str(path) for path in sorted(test_images.glob("*/*.png"))]
    evaluation.evaluate(
        evaluation.EvaluateConfig(
            classifier=str(world / "classifier"), images=str(test_images), tokenizer=str(world / "titok"),
            output_dir=str(tmp_path / "run"), mixed_precision="no", worst=2,
        )
    )  # fmt: skip
    assert (tmp_path / "run" / "results.csv").is_file()
    answers = predict(world / "classifier", files, tokenizer=world / "titok", top=1)
    assert len(answers.names) == len(files)


def test_a_gradient_passes_the_tokenizer(world):
    path = AttackedPath(load_tokenizer(world / "titok"), load(world / "classifier"), temperature=0.15, neighbours=8)
    shown = torch.rand(2, 3, *tiny.IMAGE_SIZE)
    assert path.gradient(torch.tensor([0, 1]))(shown).abs().max() > 0
    assert torch.allclose(path.logits(shown), path.classify(path.ids(shown)), atol=1e-4)


def test_a_program_of_images_takes_any_number_of_them(world):
    network = FromImages(load_tokenizer(world / "titok"), FromIds(load(world / "classifier").eval()))
    program = traced(network)
    for count in (1, 3):
        images = network.example(count)
        for found, expected in zip(program.module()(images), network(images), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)


# What has no meaning


def test_token_adapt_is_not_trained(world, images, tmp_path):
    for name in ("titok", "reduced/tokenizer"):
        if name != "titok":
            reduce_codebook.main(
                reduce_codebook.ReduceCodebookConfig(
                    store=str(world / "train"), tokenizer=str(world / "titok"), codes=9,
                    output_dir=str(tmp_path / "reduced"),
                )
            )  # fmt: skip
        tokenizer = (world if name == "titok" else tmp_path) / name
        config = train_token_adapt.TrainTokenAdaptConfig(
            images=str(images), tokenizer=str(tokenizer), output_dir=str(tmp_path / "run"), steps=2
        )
        refused(lambda config=config: train_token_adapt.main(config), "TokenAdapt: take a tokenizer of a grid")
        assert nothing_in(tmp_path / "run")


def test_there_are_no_windows_of_a_segmentation_store(world, images, tmp_path):
    config = tokenize.TokenizeConfig(
        images=str(images), targets="masks", tokenizer=str(world / "titok"), output_dir=str(tmp_path / "store")
    )
    refused(lambda: tokenize.main(config), "windows of a segmentation store")
    assert not (tmp_path / "store").exists()


def test_a_published_token_adapt_is_not_taken_for_it(world, tmp_path):
    config = import_model.ImportModelConfig(
        kind="tokenadapt", checkpoint=str(tmp_path / "nowhere.pth"), store=str(world / "train"),
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    refused(lambda: import_model.main(config), "TokenAdapt: give the store or tokenizer of a grid")
    assert nothing_in(tmp_path / "run")


def test_pixels_have_no_patches_of_the_tokens(world, images, test_images, tmp_path):
    config = pixels.PixelsConfig(
        store=str(world / "train"), eval_store=str(world / "test"), images=str(images), eval_images=str(test_images),
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    refused(lambda: pixels.train_on_pixels(config), "patches of pixels")
    assert nothing_in(tmp_path / "run")


def test_hidden_tokens_lie_anywhere(world, tmp_path):
    fields = {name: str(world / folder) for name, folder in {"store": "test", "weights": "mtm"}.items()}
    out = tmp_path / "picture.png"
    fields |= {"tokenizer": str(world / "titok"), "out": str(out), "images": 3, "measured": 7, "steps": 2}
    for mask in ("right", "centre"):
        config = reconstruct.ReconstructConfig(**fields, mask=mask)
        refused(lambda config=config: reconstruct.main(config), f"the {mask}: --mask random")
        assert not out.exists()
    reconstruct.main(reconstruct.ReconstructConfig(**fields, mask="random"))
    with Image.open(out) as picture:
        assert picture.size == (3 * tiny.IMAGE_SIZE[1] + 4, 3 * tiny.IMAGE_SIZE[0] + 4)
