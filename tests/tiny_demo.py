"""A folder of the demo's shape in a second: untrained networks, real stores."""

import torch

import tiny
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import load_tokenizer


def make_demo(folder, images, test_images, tokenizer_folder):
    """Write tokenizer, store/, tokenadapt, mtm and finetune-categories of the tiny images; returns the folder."""
    (folder / "tokenizer").symlink_to(tokenizer_folder, target_is_directory=True)
    for name, source in (("train", images), ("test", test_images)):
        tokenize_images(source, tokenizer_folder, output_dir=folder / "store" / name)
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    tiny.make_mtm(folder / "mtm", fingerprint=fingerprint)
    tiny.make_token_adapt(folder / "tokenadapt", fingerprint=fingerprint)
    torch.manual_seed(3)
    shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
    classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=3)
    for seed in (0, 1):
        place = folder / "finetune-categories" / f"seed-{seed}" / "weights"
        save_classifier(place, classifier, tokenizer=fingerprint, class_names=["ant", "bee", "cow"])
    return folder
