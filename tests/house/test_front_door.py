"""The library's front door: a dozen names, light to import, that do what their docstrings say."""

import ast
import inspect
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import seitpp
import tiny
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.tokens.loader import TrainingBatches

PIXELS = np.full((20, 30, 3), 200, np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, tokenizer_folder):
    """A store of the tiny images, a pre-trained model and a classifier for their tokenizer."""
    folder = tmp_path_factory.mktemp("front door")
    seitpp.tokenize_images(images, tokenizer_folder, output_dir=folder / "store")
    fingerprint = seitpp.load_tokenizer(str(tokenizer_folder)).fingerprint
    tiny.make_mtm(folder / "mtm", fingerprint=fingerprint)
    tiny.make_token_adapt(folder / "token_adapt", fingerprint=fingerprint)
    torch.manual_seed(3)
    shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
    classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=3)
    for seed in (0, 1):
        place = folder / "finetune" / f"seed-{seed}" / "weights"
        save_classifier(place, classifier, tokenizer=fingerprint, class_names=["ant", "bee", "cow"])
    return folder


@pytest.fixture
def store(world):
    return seitpp.open_store(world / "store")


# The names


def test_importing_it_imports_nothing_heavy():
    program = "import json, sys, seitpp; print(json.dumps([m.split('.')[0] for m in sys.modules]))"
    loaded = set(json.loads(tiny.run("-c", program).stdout))
    assert not loaded & {"torch", "numpy", "pandas", "pyarrow", "timm", "PIL", "jsonargparse"}


def test_the_names_of_editors_and_type_checkers_are_those_of_programs():
    tree = ast.parse(Path(seitpp.__file__).read_text())
    shown = {
        alias.asname: node.module
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == seitpp._PLACES
    assert sorted(shown) == list(seitpp.__all__)
    assert set(seitpp.__all__) <= set(dir(seitpp))


@pytest.mark.parametrize("name", seitpp.__all__)
def test_every_name_is_typed_and_documented(name):
    value = getattr(seitpp, name)
    assert value.__module__ == seitpp._PLACES[name]
    assert len(inspect.getdoc(value)) > 30
    made = value.__init__ if inspect.isclass(value) else value
    if inspect.isfunction(made):
        parameters = [each for each in inspect.signature(made).parameters.values() if each.name != "self"]
        assert [each.name for each in parameters if each.annotation is each.empty] == []


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="tokenise"):
        seitpp.tokenise  # noqa: B018


def test_the_page_of_the_python_api_is_made_of_just_these_docstrings():
    program = "import runpy; print(runpy.run_path('docs/python_api.py')['page'](), end='')"
    page = (tiny.ROOT / "docs" / "python-api.md").read_text()
    assert tiny.run("-c", program).stdout == page
    assert sorted(re.findall(r"^### `seitpp\.(\w+)", page, re.M)) == list(seitpp.__all__)


# Stores


def test_a_dataset_gives_ids_label_and_key_of_a_row(store):
    dataset = seitpp.TokenDataset(store)
    ids, label, key = dataset[5]
    assert len(dataset) == 30
    assert torch.equal(ids, store.ids([5])[0])
    assert (label, key) == (int(store.labels[5]), store.keys()[5])
    assert dataset[-1][2] == store.keys()[-1]
    with pytest.raises(IndexError):
        dataset[30]


def test_a_dataset_takes_other_labels_and_a_transform(world):
    dataset = seitpp.TokenDataset(world / "store", labels=range(30), transform=lambda ids: ids.flip(1))
    plain = seitpp.TokenDataset(world / "store")
    assert [dataset[row][1] for row in (0, 29)] == [0, 29]
    assert torch.equal(dataset[3][0], plain[3][0].flip(1))
    with pytest.raises(seitpp.UserError, match="30 rows"):
        seitpp.TokenDataset(world / "store", labels=[1, 2])


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "spawn"), (2, "fork")])
def test_a_data_loader_gives_every_row_once(store, workers, context):
    dataset = seitpp.TokenDataset(store)
    loader = DataLoader(dataset, batch_size=7, shuffle=True, num_workers=workers, multiprocessing_context=context)
    keys = [key for _, _, batch in loader for key in batch]
    assert sorted(keys) == sorted(store.keys())


def test_a_dataset_is_a_few_bytes_to_another_process(store):
    assert len(pickle.dumps(seitpp.TokenDataset(store))) < 2000


def test_a_loader_makes_the_passes_of_training(store):
    loader, batches = seitpp.TokenLoader(store, 7, seed=3), TrainingBatches(store, 7, seed=3)
    assert len(loader) == 4
    for epoch in (0, 1):
        made = list(loader)
        assert len(made) == 4
        for step, batch in enumerate(made):
            assert torch.equal(batch.ids, batches(4 * epoch + step).ids)
            assert torch.equal(batch.labels, batches(4 * epoch + step).labels)


def test_a_loader_in_order_gives_every_row_once_to_some_process(store):
    parts = [seitpp.TokenLoader(store, 4, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    assert [len(part) for part in parts] == [len(list(part)) for part in parts] == [3, 3, 2]
    positions = sorted(place for part in parts for batch in part for place in batch.positions.tolist())
    assert positions == list(range(30))


def test_a_loader_without_a_whole_batch_is_refused(store):
    with pytest.raises(ValueError, match="30 rows"):
        seitpp.TokenLoader(store, 31)


# Images and tokens


def test_a_store_of_images_is_that_of_the_command(world, images, tokenizer_folder, tmp_path):
    done = tiny.run("-m", "seitpp.cli", "tokenize", "--images", images, "--tokenizer", tokenizer_folder,
                    "--output_dir", tmp_path / "store")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert seitpp.open_store(tmp_path / "store").fingerprint == seitpp.open_store(world / "store").fingerprint


def test_paths_arrays_and_opened_images_become_the_same_ids(tmp_path, tokenizer_folder):
    Image.fromarray(PIXELS).save(tmp_path / "one.png")
    ids = [
        seitpp.tokenize_images(given, tokenizer_folder)
        for given in ([tmp_path / "one.png"], [PIXELS], [Image.fromarray(PIXELS)], [str(tmp_path / "one.png")])
    ]
    assert ids[0].shape == (1, *tiny.GRID)
    assert all(torch.equal(each, ids[0]) for each in ids)


def test_labels_of_a_list_become_classes_of_the_store(tmp_path, tokenizer_folder):
    store = seitpp.tokenize_images([PIXELS] * 3, tokenizer_folder, output_dir=tmp_path / "s", labels=["b", None, "a"])
    assert (store.classes, store.labels.tolist()) == (["a", "b"], [1, -1, 0])


def test_a_folder_that_holds_something_is_not_taken_for_a_store_of_the_same_images(tmp_path, tokenizer_folder):
    seitpp.tokenize_images([PIXELS], tokenizer_folder, output_dir=tmp_path / "store")
    with pytest.raises(seitpp.UserError, match=r"store is not empty"):
        seitpp.tokenize_images([PIXELS // 2], tokenizer_folder, output_dir=tmp_path / "store")


def test_a_data_set_of_hugging_face_keeps_its_classes(tmp_path, tokenizer_folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"photo": [Image.fromarray(PIXELS // each) for each in (1, 2, 3)], "label": [1, 0, 1]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    store = seitpp.tokenize_images(dataset, tokenizer_folder, output_dir=tmp_path / "store")
    assert (store.classes, store.labels.tolist()) == (["cat", "dog"], [1, 0, 1])
    assert torch.equal(store.ids([1]), seitpp.tokenize_images([PIXELS // 2], tokenizer_folder))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "empty"), (7, "int"), ([np.zeros((4, 4, 7), np.uint8)], r"image 00000000 .*\(4, 4, 7\)"),
        ([PIXELS.astype(np.float32)], "float32"), (["nowhere.png"], "nowhere.png"), (["a.png", "a.png"], "a.png twice"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_named(tokenizer_folder, given, said):
    with pytest.raises(seitpp.UserError, match=said):
        seitpp.tokenize_images(given, tokenizer_folder)


def test_decoding_gives_the_tokenizers_images(store, tokenizer_folder):
    tokenizer = seitpp.load_tokenizer(str(tokenizer_folder))
    ids = store.ids(range(5))
    images = seitpp.decode(ids.numpy(), tokenizer_folder, batch_size=2)
    assert images.shape == (5, 3, *tiny.IMAGE_SIZE)
    assert torch.allclose(images, tokenizer.decode(ids), atol=1e-6)
    with pytest.raises(seitpp.UserError, match=r"\(n, 4, 6\)"):
        seitpp.decode(ids[:, :3], tokenizer)
    with pytest.raises(seitpp.UserError, match=f"{tiny.CODES}"):
        seitpp.decode(ids + tiny.CODES, tokenizer)


# Models


def test_load_finds_out_what_a_folder_holds(world, tokenizer_folder):
    kinds = {
        "mtm": "MaskedTokenModel", "token_adapt": "TokenAdapt", "finetune": "Classifier",
        "finetune/seed-1": "Classifier",
    }  # fmt: skip
    for name, kind in kinds.items():
        model = seitpp.load(world / name)
        assert type(model).__name__ == kind
        assert not model.training
    assert type(seitpp.load(tokenizer_folder)).__name__ == "VQTokenizer"
    with pytest.raises(seitpp.UserError, match="store"):
        seitpp.load(world / "store")


def test_another_kind_of_model_is_refused_by_name(world):
    with pytest.raises(seitpp.UserError, match=r"mtm.* MaskedTokenModel"):
        seitpp.load_classifier(world / "mtm")
    with pytest.raises(seitpp.UserError, match=r"token_adapt.* TokenAdapt"):
        seitpp.load_encoder(world / "token_adapt")


def test_features_are_those_of_the_encoder(world, store):
    encoder = seitpp.load_encoder(world / "mtm")
    with torch.no_grad():
        expected = encoder.pooled(store.ids(range(30)))
    for data in (store, world / "store", store.ids(range(30))):
        assert torch.allclose(seitpp.embed(world / "mtm", data, batch_size=7), expected, atol=1e-6)
    assert seitpp.embed(seitpp.load(world / "mtm"), store, pooling="cls").shape == expected.shape


def test_predictions_are_the_classifiers_likeliest_classes(world, store, images, tokenizer_folder):
    classifier = seitpp.load_classifier(world / "finetune")
    assert classifier.class_names == ["ant", "bee", "cow"]
    with torch.no_grad():
        expected = classifier(store.ids(range(30))).softmax(1)
    found = seitpp.predict(world / "finetune", store, top=2)
    assert len(found) == 30
    assert torch.allclose(found.probabilities, expected.topk(2).values, atol=1e-6)
    assert [row[0] for row in found.names] == [classifier.class_names[each] for each in expected.argmax(1)]
    path = Path(images) / store.keys()[4]
    one = seitpp.predict(classifier, [path], tokenizer=tokenizer_folder)[0]
    assert one == pytest.approx(dict(zip(classifier.class_names, expected[4].tolist(), strict=True)), abs=1e-6)


def test_images_need_the_classifiers_own_tokenizer(world, tmp_path):
    with pytest.raises(seitpp.UserError, match="tokenizer="):
        seitpp.predict(world / "finetune", [PIXELS])
    other = tiny.make_tokenizer(tmp_path / "other", seed=5)
    with pytest.raises(seitpp.UserError, match="belongs to tokenizer"):
        seitpp.predict(world / "finetune", [PIXELS], tokenizer=other)


def test_an_augmented_batch_is_a_function_of_seed_and_step(world, store):
    config = seitpp.AugmentConfig(token_adapt=str(world / "token_adapt"), color_adapt=0.5)
    augment = seitpp.Augment(config, store=store, view=store.grid, device="cpu")
    ids = store.ids(range(8))
    views = augment.views(ids, seed=1, step=2)
    assert views.shape == ids.shape
    assert torch.equal(augment.views(ids, seed=1, step=2), views)
    assert not torch.equal(augment.views(ids, seed=1, step=3), views)
    assert not torch.equal(augment.views(ids, seed=2, step=2), views)
