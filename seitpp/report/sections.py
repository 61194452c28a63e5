"""What the page holds, in its order: questions, and under each the sections that answer it.

To add a section: a function from `Given` to a list of dicts, which have their tables under "tables"; a template
`templates/sections/NAME.html.j2`, which gets that list as NAME and is `<section id="ANCHOR"><h2>…`; and a line here.
A section without data is left out, and so is a question without sections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seitpp.report.ablation import ablation_sections
from seitpp.report.adversarial import adversarial_sections
from seitpp.report.comparisons import comparison_sections
from seitpp.report.evaluations import evaluation_sections
from seitpp.report.fine_grained import fine_grained_sections
from seitpp.report.found_runs import Found
from seitpp.report.looks import looks_sections
from seitpp.report.page_results import dataset_sections
from seitpp.report.page_stages import pretraining_sections, storage_sections, tokenizer_sections, view_sections
from seitpp.report.provenance import attribution_section, command_section, environment_section
from seitpp.report.reported_tables import ablation_reported, results_reported, robustness_reported, storage_reported
from seitpp.report.robustness import robustness_sections
from seitpp.report.segmentation import segmentation_sections
from seitpp.report.storage_curve import storage_curve_sections
from seitpp.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Given:
    """What sections are made of.

    Attributes:
        found: the runs and stores.
        results: rows of all runs, as from `seitpp.report.found_results.all_results`.
        images: the folder that was tokenised, if it was named.
        folders: those that were given.
    """

    found: Found
    results: pd.DataFrame
    images: str | Path | None = None
    folders: Sequence[str | Path] = ()


def _anything(data: Any) -> bool:
    return bool(data)


def _no_tables(says: str) -> Sequence[Table]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section.

    Attributes:
        name: of its data on the page, and of its template.
        anchor: `id` of its place on the page.
        title: in the table of contents.
        gather: its data.
        there: whether there is anything to show.
        reported: what the papers report of the same, shown below it;
            its captions begin with the text that it is given.
    """

    name: str
    anchor: str
    title: str
    gather: Callable[[Given], Any]
    there: Callable[[Any], bool] = _anything
    reported: Callable[[str], Sequence[Table]] = _no_tables


@dataclass(frozen=True, kw_only=True)
class Question:
    """What some sections answer: `anchor` is its place on the page."""

    anchor: str
    title: str
    sections: Sequence[Section]


def _measured(data):
    return any(each["scores"] or each["not_improved"] for each in data)


def _always(data):
    return True


QUESTIONS = (
    Question(
        anchor="bytes", title="How few bytes?",
        sections=(
            Section(name="storage", anchor="storage", title="Storage",
                    gather=lambda given: storage_sections(given.found, given.images), reported=storage_reported),
            Section(name="tokenizers", anchor="tokenizer", title="Reconstructions",
                    gather=lambda given: tokenizer_sections(given.found)),
            Section(name="storage_curves", anchor="storage-curve", title="Accuracy against bytes",
                    gather=lambda given: storage_curve_sections(given.found)),
        ),
    ),
    Question(
        anchor="features", title="How good are the features?",
        sections=(
            Section(name="pretrainings", anchor="pretraining", title="Completions and curves",
                    gather=lambda given: pretraining_sections(given.found)),
            Section(name="datasets", anchor="results", title="Results",
                    gather=lambda given: dataset_sections(given.found, given.results), there=_measured,
                    reported=results_reported),
            Section(name="fine_grained", anchor="fine-grained", title="Other data sets",
                    gather=lambda given: fine_grained_sections(given.found)),
            Section(name="evaluations", anchor="evaluation", title="Evaluation",
                    gather=lambda given: evaluation_sections(given.results)),
            Section(name="looks", anchor="looks", title="Classes and feature space",
                    gather=lambda given: looks_sections(given.found)),
        ),
    ),
    Question(
        anchor="other-images", title="How robust?",
        sections=(
            Section(name="robustness", anchor="robustness", title="Robustness",
                    gather=lambda given: robustness_sections(given.results), reported=robustness_reported),
            Section(name="adversarial", anchor="adversarial", title="Adversarial attacks",
                    gather=lambda given: adversarial_sections(given.found)),
        ),
    ),
    Question(
        anchor="pixels", title="What is where?",
        sections=(
            Section(name="segmentations", anchor="segmentation", title="Segmentation",
                    gather=lambda given: segmentation_sections(given.found)),
        ),
    ),
    Question(
        anchor="ingredients", title="Which ingredient?",
        sections=(
            Section(name="views", anchor="views", title="Augmented views",
                    gather=lambda given: view_sections(given.found)),
            Section(name="ablations", anchor="ablation", title="Ablation",
                    gather=lambda given: ablation_sections(given.found), reported=ablation_reported),
        ),
    ),
    Question(
        anchor="made", title="How was it made?",
        sections=(
            Section(name="comparisons", anchor="compared", title="Runs compared",
                    gather=lambda given: comparison_sections(given.found)),
            Section(name="commands", anchor="commands", title="Commands",
                    gather=lambda given: command_section(given.found), there=lambda data: bool(data["rows"])),
            Section(name="own", anchor="own", title="Your own images", gather=lambda given: [], there=_always),
            Section(name="environments", anchor="environment", title="Environment",
                    gather=lambda given: environment_section(given.found)),
            Section(name="attributions", anchor="licences", title="Licences",
                    gather=lambda given: attribution_section(given.images, given.folders)),
        ),
    ),
)  # fmt: skip


def gather(given: Given) -> dict[str, Any]:
    """The data of every section, by its name."""
    return {section.name: section.gather(given) for question in QUESTIONS for section in question.sections}


def shown(page: dict[str, Any]) -> list[Question]:
    """The questions, each with the sections that have something to show."""
    questions = []
    for question in QUESTIONS:
        sections = [section for section in question.sections if section.there(page[section.name])]
        if sections:
            questions.append(Question(anchor=question.anchor, title=question.title, sections=sections))
    return questions
