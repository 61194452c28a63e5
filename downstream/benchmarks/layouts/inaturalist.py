"""iNaturalist 2018 and 2019: COCO's form of JSON, with paths such as train_val2018/Aves/2761/….jpg.

The labels of the test images are not published: the field measures on the validation images.
"""

from functools import partial
from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import json_of
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import anything, integer, listing, record, text

_SCHEMA = record(
    {
        "images": listing(record({"id": integer(0), "file_name": text()})),
        "annotations": listing(record({"image_id": integer(0), "category_id": integer(0)})),
        "categories": listing(record({"id": integer(0), "name": anything})),
    }
)


def read(year: int, root: Path) -> SplitImages:
    """The images of a folder with train_val2018/ and two JSON files."""
    names: dict[int, str] = {}
    train, test = (_rows(root / f"{part}{year}.json", names) for part in ("train", "val"))
    place = {number: index for index, number in enumerate(sorted(names))}
    train, test = ([(image, place[number]) for image, number in part] for part in (train, test))
    texts = [str(names[number]) for number in sorted(names)]
    unique = len(set(texts)) == len(texts)
    classes = texts if unique else [str(number) for number in sorted(names)]
    return split_images(root, classes, train, test, f"train{year}.json")


def _rows(file, names):
    """(path, number of its category) of each image; `names` gets the categories."""
    content = json_of(file, _SCHEMA)
    names |= {each["id"]: each["name"] for each in content["categories"]}
    category = {each["image_id"]: each["category_id"] for each in content["annotations"]}
    for each in content["images"]:
        if category.get(each["id"]) not in names:
            raise UserError(f"{file}: image {each['id']} has no category that the file names: get it anew")
    return [(each["file_name"], category[each["id"]]) for each in content["images"]]


def layout_of(year: int) -> Layout:
    """The layout of the competition of a year."""
    lists = {f"{part}{year}.json": f"{part}{year}.json.tar.gz" for part in ("train", "val")}
    return Layout(parts={f"train_val{year}": f"train_val{year}.tar.gz", **lists}, read=partial(read, year))
