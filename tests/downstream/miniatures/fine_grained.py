"""Every benchmark in little: two or three classes, a few images, in files of the names and forms as published.

Each function writes one set below a folder and returns what is in it: class names, and (file, class name) of the
training and test images in the order of the official lists.
"""

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.io import savemat

from seitpp.downstream.benchmarks.sets import COLUMNS, official_table, read_sets

SIZE = (16, 24)


@dataclass(frozen=True)
class Written:
    """What a miniature holds."""

    folder: str
    classes: list
    train: list
    test: list

    @property
    def counts(self):
        return len(self.classes), len(self.train), len(self.test)


def picture(file, hue, seed=0):
    """An image whose colour tells its class, with stripes of its own."""
    random = np.random.default_rng(seed)
    pixels = np.full((*SIZE, 3), 60 + random.integers(60), np.uint8)
    pixels[..., hue % 3] += 100
    top = random.integers(SIZE[0] - 3)
    pixels[top : top + 3] = random.integers(256, size=3)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def pictures(root, rows, classes):
    for number, (key, name) in enumerate(rows):
        picture(root / key, classes.index(name), seed=number)


def text(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def counted(per_class):
    """(class, number within it) of so many images a class."""
    return [(name, number) for name, count in per_class.items() for number in range(1, count + 1)]


def cub(data):
    root, classes = data / "CUB_200_2011", ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    rows = [
        (f"images/{name}/Bird_{number:04d}_{number}.jpg", name)
        for name, number in counted({classes[0]: 9, classes[1]: 7})
    ]
    trained = [place % 3 != 0 for place in range(len(rows))]
    pictures(root, rows, classes)
    text(root / "images.txt", [f"{n} {key.removeprefix('images/')}" for n, (key, _) in enumerate(rows, 1)])
    text(root / "image_class_labels.txt", [f"{n} {classes.index(name) + 1}" for n, (_, name) in enumerate(rows, 1)])
    text(root / "train_test_split.txt", [f"{n} {int(each)}" for n, each in enumerate(trained, 1)])
    text(root / "classes.txt", [f"{n} {name}" for n, name in enumerate(classes, 1)])
    train, test = ([row for row, each in zip(rows, trained, strict=True) if each == part] for part in (True, False))
    return Written("CUB_200_2011", classes, train, test)


def flowers(data):
    root, labels = data / "flowers-102", [2, 1, 3, 1, 2, 3, 1, 2, 3, 3, 1, 2]
    ids = {"trnid": [4, 1, 6], "valid": [2, 5, 3], "tstid": [12, 7, 8, 9, 10, 11]}
    rows = {number: (f"jpg/image_{number:05d}.jpg", str(labels[number - 1])) for number in range(1, 13)}
    pictures(root, list(rows.values()), ["1", "2", "3"])
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(root / "setid.mat", {name: np.array([each], np.uint16) for name, each in ids.items()})
    train = [rows[number] for number in (*ids["trnid"], *ids["valid"])]
    return Written("flowers-102", ["1", "2", "3"], train, [rows[number] for number in ids["tstid"]])


def cars(data):
    root, classes = data / "stanford_cars", ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]
    parts = []
    for part, labels in (("train", [2, 1, 3, 1, 2, 3, 1]), ("test", [1, 3, 2, 2, 1])):
        rows = [(f"cars_{part}/{n:05d}.jpg", classes[label - 1]) for n, label in enumerate(labels, 1)]
        pictures(root, rows, classes)
        box = [(name, "O") for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")]
        annotations = np.zeros((1, len(rows)), [*box, ("class", "O"), ("fname", "O")])
        for place, ((key, _), label) in enumerate(zip(rows, labels, strict=True)):
            annotations[0, place] = (1, 1, 20, 12, label, key.split("/")[1])
        name = "devkit/cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
        (root / "devkit").mkdir(exist_ok=True)
        savemat(root / name, {"annotations": annotations})
        parts.append(rows)
    names = np.empty((1, len(classes)), "O")
    names[0] = classes
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    return Written("stanford_cars", classes, *parts)


def aircraft(data):
    root, classes = data / "fgvc-aircraft-2013b", ["707-320", "F/A-18", "DHC-8 300"]
    parts = []
    for part, names in (("trainval", [1, 0, 2, 0, 1, 2, 0, 1]), ("test", [2, 0, 1, 1])):
        numbers = range(1_000_000 * (len(parts) + 1), 1_000_000 * (len(parts) + 1) + len(names))
        rows = [(f"data/images/{n}.jpg", classes[each]) for n, each in zip(numbers, names, strict=True)]
        pictures(root, rows, classes)
        text(root / f"data/images_variant_{part}.txt", [f"{key[12:-4]} {name}" for key, name in rows])
        parts.append(rows)
    text(root / "data/variants.txt", classes)
    return Written("fgvc-aircraft-2013b", classes, *parts)


def pets(data):
    root, classes = data / "oxford-iiit-pet", ["Abyssinian", "american_bulldog", "Birman"]
    parts = []
    for part, first, counts in (("trainval", 100, (3, 4, 2)), ("test", 200, (2, 1, 3))):
        rows = [
            (f"images/{name}_{first + number}.jpg", name)
            for name, number in counted(dict(zip(classes, counts, strict=True)))
        ]
        pictures(root, rows, classes)
        species = {"Abyssinian": "1 1", "american_bulldog": "2 1", "Birman": "1 2"}
        lines = [f"{key[7:-4]} {classes.index(name) + 1} {species[name]}" for key, name in rows]
        text(root / f"annotations/{part}.txt", lines)
        parts.append(rows)
    for key, _ in parts[0]:
        name = key[7:-4]
        xml = f"<annotation><filename>{name}.jpg</filename><object><name>cat</name></object></annotation>"
        text(root / f"annotations/xmls/{name}.xml", [xml])
    return Written("oxford-iiit-pet", classes, *parts)


def food101(data):
    root, classes = data / "food-101", ["apple_pie", "waffles"]
    parts = []
    for part, first, counts in (("train", 1000, (5, 4)), ("test", 2000, (2, 3))):
        rows = [
            (f"images/{name}/{first + n}.jpg", name) for name, n in counted(dict(zip(classes, counts, strict=True)))
        ]
        pictures(root, rows, classes)
        lines = [key[7:-4] for key, _ in rows]
        text(root / f"meta/{part}.txt", lines)
        listed = {name: [each for each in lines if each.startswith(f"{name}/")] for name in classes}
        (root / f"meta/{part}.json").write_text(json.dumps(listed))
        parts.append(rows)
    text(root / "meta/classes.txt", classes)
    text(root / "meta/labels.txt", ["Apple pie", "Waffles"])
    return Written("food-101", classes, *parts)


def dtd(data):
    root, classes = data / "dtd" / "dtd", ["banded", "zigzagged"]
    parts = {}
    for split in (1, 2):
        for part, first, counts in (("train", 0, (3, 2)), ("val", 10, (2, 2)), ("test", 20, (1, 3))):
            first += 30 * (split - 1)
            rows = [
                (f"images/{name}/{name}_{first + n:04d}.jpg", name)
                for name, n in counted(dict(zip(classes, counts, strict=True)))
            ]
            pictures(root, rows, classes)
            text(root / f"labels/{part}{split}.txt", [key.removeprefix("images/") for key, _ in rows])
            parts[f"{part}{split}"] = rows
    return Written("dtd/dtd", classes, parts["train1"] + parts["val1"], parts["test1"])


def sun397(data):
    root, classes = data / "SUN397", ["a/abbey", "a/athletic_field/outdoor", "z/zen_garden"]
    text(root / "ClassName.txt", [f"/{name}" for name in classes])
    parts = []
    for part, first, count in (("Training", "a", 3), ("Testing", "b", 2)):
        rows = [(f"{name}/sun_{first}{number}.jpg", name) for name, number in counted(dict.fromkeys(classes, count))]
        pictures(root, rows, classes)
        text(root / f"{part}_01.txt", [f"/{key}" for key, _ in rows])
        parts.append(rows)
    picture(root / "a/abbey/sun_unlisted.jpg", 0)
    return Written("SUN397", classes, *parts)


def caltech101(data):
    """Classes of 31 and 33 images: one and three are left to measure on."""
    root, classes = data / "caltech101", ["BACKGROUND_Google", "accordion"]
    counts = {"BACKGROUND_Google": 33, "accordion": 31}
    rows = [(f"101_ObjectCategories/{name}/image_{number:04d}.jpg", name) for name, number in counted(counts)]
    pictures(root, rows, classes)
    text(root / "101_ObjectCategories/BACKGROUND_Google/tmp", [])
    return Written("caltech101", classes, [None] * 60, [None] * 4)


def inaturalist(data, year):
    root, names = data / f"inat{year}", {0: "Aves a", 3: "Aves b", 7: "Plantae c"}
    parts, number = [], 0
    for part, counts in (("train", (4, 3, 3)), ("val", (2, 1, 2))):
        images, annotations, rows = [], [], []
        for (category, name), count in zip(names.items(), counts, strict=True):
            for _ in range(count):
                number += 1
                key = f"train_val{year}/{name.split()[0]}/{category}/{number:032x}.jpg"
                images.append({"id": number, "file_name": key, "width": 24, "height": 16, "license": 3})
                annotations.append({"id": number, "image_id": number, "category_id": category})
                rows.append((key, name))
        categories = [{"id": each, "name": name, "supercategory": name.split()[0]} for each, name in names.items()]
        pictures(root, rows, list(names.values()))
        content = {"info": {}, "images": images, "annotations": annotations[::-1], "categories": categories}
        (root / f"{part}{year}.json").write_text(json.dumps(content))
        parts.append(rows)
    return Written(f"inat{year}", list(names.values()), *parts)


def _cifar(folder, files, labels, header, classes):
    """Binary files of records; image r of a file is of colour (label, r, 7)."""
    rows, label = [], iter(labels)
    for name, count in files.items():
        records = []
        for row in range(count):
            number = next(label)
            planes = np.repeat(np.array([number, row, 7], np.uint8), 32 * 32)
            records.append(np.concatenate([np.array([9] * (header - 1) + [number], np.uint8), planes]))
            rows.append((f"{name}/{row:05d}", classes[number]))
        (folder / name).write_bytes(np.concatenate(records).tobytes())
    return rows


def cifar10(data):
    folder, classes = data / "cifar-10-batches-bin", ["airplane", "automobile", "bird"]
    folder.mkdir(parents=True)
    text(folder / "batches.meta.txt", [*classes, ""])
    files = {f"data_batch_{number}.bin": 3 if number == 2 else 2 for number in range(1, 6)}
    train = _cifar(folder, files, [0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 1], 1, classes)
    test = _cifar(folder, {"test_batch.bin": 4}, [2, 1, 0, 1], 1, classes)
    return Written("cifar-10-batches-bin", classes, train, test)


def cifar100(data):
    folder, classes = data / "cifar-100-binary", ["apple", "aquarium_fish", "baby"]
    folder.mkdir(parents=True)
    text(folder / "fine_label_names.txt", classes)
    text(folder / "coarse_label_names.txt", ["aquatic_mammals", "fish"])
    train = _cifar(folder, {"train.bin": 9}, [0, 1, 2, 2, 1, 0, 0, 1, 2], 2, classes)
    test = _cifar(folder, {"test.bin": 4}, [2, 1, 0, 1], 2, classes)
    return Written("cifar-100-binary", classes, train, test)


MAKERS = {
    "cub": cub, "flowers": flowers, "cars": cars, "aircraft": aircraft, "pets": pets, "food101": food101, "dtd": dtd,
    "sun397": sun397, "caltech101": caltech101, "inat2018": lambda data: inaturalist(data, 2018),
    "inat2019": lambda data: inaturalist(data, 2019), "cifar10": cifar10, "cifar100": cifar100,
}  # fmt: skip


def table_of(file, written):
    """A table of sets as the official one, but with the counts of miniatures; returns the file."""
    lines = [",".join(COLUMNS)]
    for name, each in read_sets(official_table()).items():
        if name in written:
            classes, train, test = written[name].counts
            lines.append(
                f"{name},{each.title},{each.layout},{';'.join(each.folders)},{each.metric},{classes},{train},{test},,,,"
            )
    file.write_text("\n".join(lines) + "\n")
    return str(file)
