"""FGVC-Aircraft by its 100 variants: `images_variant_trainval.txt` has "1025794 707-320" a line; names have blanks."""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import fields_of, lines_of

_TRAIN, _TEST = "data/images_variant_trainval.txt", "data/images_variant_test.txt"


def read(root: Path) -> SplitImages:
    """The images of fgvc-aircraft-2013b/."""
    classes = lines_of(root / "data" / "variants.txt")
    place = {name: index for index, name in enumerate(classes)}
    train, test = (
        [(f"data/images/{image}.jpg", place.get(name, -1)) for image, name in fields_of(root / file, 2, rest=True)]
        for file in (_TRAIN, _TEST)
    )
    return split_images(root, classes, train, test, _TRAIN)


LAYOUT = Layout(
    parts=dict.fromkeys(("data/images", "data/variants.txt", _TRAIN, _TEST), "fgvc-aircraft-2013b.tar.gz"), read=read
)
