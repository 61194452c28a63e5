"""ImageNet's benchmarks in miniature: the folders and files of the official archives, with a few images in them."""

import json

import numpy as np
from PIL import Image

SIZE = (32, 48)
TENCH, GOLDFISH, STINGRAY, GOLDFINCH = "n01440764", "n01443537", "n01498041", "n01531178"
NUMBERS = {TENCH: 0, GOLDFISH: 1, STINGRAY: 6, GOLDFINCH: 11}
KNOWN = [GOLDFINCH, STINGRAY, TENCH, GOLDFISH]
"""A classifier's classes, in an order of its own."""
IN_A, IN_R = [STINGRAY, GOLDFINCH], [GOLDFISH, STINGRAY, GOLDFINCH]
"""Those of them that the benchmark shows, as the papers list them."""
LABELS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark", "tiger shark", "hammerhead"]


def picture(path, seed, *, size=SIZE, border=0):
    """Write one image; its colours are the seed's, its border is red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = np.repeat(random.integers(256, size=(size[0] // 4, size[1] // 4, 3), dtype=np.uint8), 4, 0).repeat(4, 1)
    if border:
        pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)))
        for edge in (pixels[:border], pixels[-border:], pixels[:, :border], pixels[:, -border:]):
            edge[...] = (255, 0, 0)
    Image.fromarray(pixels).save(path)


def class_folders(folder, names, ending="jpg", *, count=2, first="image"):
    """A folder a class, as ImageNet-A, -R and -Sketch come, with the README.txt that lies beside them."""
    for place, name in enumerate(names):
        for number in range(count):
            picture(folder / name / f"{first}_{number}.{ending}", 100 * place + number)
    (folder / "README.txt").write_text("about it\n")
    return folder


def imagenet_v2(folder):
    """imagenetv2-matched-frequency-format-val/NUMBER/HASH.jpeg: folders are class numbers."""
    return class_folders(folder, [str(NUMBERS[name]) for name in KNOWN], "jpeg", first="0a1b")


def imagenet_c(folder, corruptions, *, severities=range(1, 6), names=KNOWN):
    """CORRUPTION/SEVERITY/WNID/ILSVRC2012_val_00000001.JPEG."""
    for name in corruptions:
        for severity in severities:
            for place, wnid in enumerate(names):
                picture(
                    folder / name / str(severity) / wnid / f"ILSVRC2012_val_{place + 1:08d}.JPEG", severity + 7 * place
                )
    return folder


def validation_set(folder, wnids):
    """val/WNID/ILSVRC2012_val_00000001.JPEG, the number of each image its place in `wnids`, from 1."""
    for number, wnid in enumerate(wnids):
        picture(folder / wnid / f"ILSVRC2012_val_{number + 1:08d}.JPEG", number)
    return folder


def real_json(file, lists):
    """real.json: the labels of each validation image, in the order of their numbers."""
    file.write_text(json.dumps(lists))
    return file


def objectnet(folder):
    """Three objects: one is either of two fish, one is the tench, one is nothing that ImageNet has."""
    for place, name in enumerate(("fish_tank_fish", "big_fish", "air_freshener")):
        for number in range(2):
            picture(folder / "images" / name / f"{place}{number}.png", 10 * place + number, border=2)
    mappings = folder / "mappings"
    mappings.mkdir(parents=True)
    content = {
        "folder_to_objectnet_label.json": {
            "fish_tank_fish": "Fish", "big_fish": "Big fish", "air_freshener": "Air freshener"
        },
        "objectnet_to_imagenet_1k.json": {"Fish": "goldfish, Carassius auratus; tench, Tinca tinca",
                                          "Big fish": "tench, Tinca tinca"},
        "pytorch_to_imagenet_2012_id.json": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4},
    }  # fmt: skip
    for name, each in content.items():
        (mappings / name).write_text(json.dumps(each))
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(LABELS) + "\n")
    return folder
