"""The layouts by the names that the table of sets has for them."""

from seitpp.downstream.benchmarks.layout import Layout
from seitpp.downstream.benchmarks.layouts import (
    aircraft,
    caltech101,
    cars,
    cifar,
    cub,
    dtd,
    flowers,
    food101,
    inaturalist,
    pets,
    sun397,
)

LAYOUTS: dict[str, Layout] = {
    "cub": cub.LAYOUT,
    "flowers": flowers.LAYOUT,
    "cars": cars.LAYOUT,
    "aircraft": aircraft.LAYOUT,
    "pets": pets.LAYOUT,
    "food101": food101.LAYOUT,
    "dtd": dtd.LAYOUT,
    "sun397": sun397.LAYOUT,
    "caltech101": caltech101.LAYOUT,
    "inat2018": inaturalist.layout_of(2018),
    "inat2019": inaturalist.layout_of(2019),
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
}
