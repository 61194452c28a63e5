"""The top of the report: a paragraph with the key figures, the same as tiles, and the way of the data."""

from typing import Any

from seitpp.report import words
from seitpp.report.findings import summary_sentence
from seitpp.report.page_results import COLOURS
from seitpp.report.words import TIMES

STEPS = (
    ("images", "Images", "read once"),
    ("tokenizers", "Tokenizer", "pixels to codes"),
    ("storage", "Token store", "all that is kept"),
    ("views", "Augment", "views made of tokens"),
    ("pretrainings", "MTM", "fills in hidden tokens, no labels"),
    ("datasets", "Probe, fine-tune", "with labels"),
    ("robustness", "Robustness", "other images"),
)


def summary_sentences(page: dict[str, Any]) -> list[str]:
    """The paragraphs at the top: only what the sections have numbers for.

    Args:
        page: the sections, as in `seitpp.report.report.page_of`.
    Returns: list of sentences.
    """
    sentences = []
    for section in page["storage"][:1]:
        manifest = section["manifest"]
        size = f" of {_by(section['size'])} pixels" if section["size"] else ""
        tokens, _, *others = section["rows"]
        against = " and ".join(
            f"{row['per_image']:,.0f} as {row['kind'].replace('PNG files', 'PNG').replace(', quality', ' of quality')}"
            for row in others
            if row["kind"] in ("PNG files", "PNG", "JPEG, quality 75")
        )
        against = f", against {against}" if against else ""
        sentences.append(
            f"{section['images']:,} images{size} became {_by(manifest['grid'])} tokens each, once: "
            f"{tokens['per_image']:,.0f} bytes per image, {tokens['kind'].split()[0]}{against}."
        )
    for section in page["pretrainings"][:1]:
        if section["sentence"]:
            learned = "a transformer learned to fill in hidden tokens (masked token modelling, MTM)"
            sentences.append(f"From these alone, without labels, {learned}: {section['sentence']}")
    sentences += [summary_sentence(section["dataset"], section["scores"]) for section in page["datasets"]]
    return [sentence for sentence in sentences if sentence]


def tiles(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Key figures: [{figure, unit, text}]."""
    found = []
    for section in page["storage"][:1]:
        jpeg = f"as JPEG of quality 75: {section['jpeg']:,.0f}" if section["jpeg"] else section["rows"][0]["kind"]
        figure = f"{section['rows'][0]['per_image']:,.0f}"
        found.append({"figure": figure, "unit": "bytes per image", "text": jpeg})
    for section in page["tokenizers"][:1]:
        if section["psnr"] is not None:
            known = section["codes_used"] is not None and section["codebook_size"] is not None
            used = f"; {section['codes_used']:,} of {section['codebook_size']:,} codes used" if known else ""
            found.append({"figure": f"{section['psnr']:.1f}", "unit": "dB PSNR", "text": f"decoded images{used}"})
    for section in page["pretrainings"][:1]:
        if section["eval_cross_entropy"] is not None:
            known = section["position_baseline"]
            text = "" if known is None else f"context-free baseline: {known:.2f}"
            found.append(
                {"figure": f"{section['eval_cross_entropy']:.2f}", "unit": "nats per hidden token", "text": text}
            )
    for section in page["datasets"][:1]:
        for difference in section["differences"][:1]:
            figure = f"{100 * difference.scratch.mean:.1f} \u2192 {100 * difference.pretrained.mean:.1f}"
            after = words.from_start(difference.pretrained.method.init)
            text = f"from scratch \u2192 {after}: {difference.text}; {difference.pretrained.test_images:,} test images"
            found.append({"figure": figure, "unit": "% accuracy", "text": text})
    return found


def steps(page: dict[str, Any]) -> list[dict[str, Any]]:
    """The way of the data: [{title, text, picture, figure, there}], one for each of STEPS."""
    tokenizer_rows = _rows(page["tokenizers"])
    pictures = {
        "images": tokenizer_rows[0].cell if tokenizer_rows else None,
        "tokenizers": tokenizer_rows[1].cell if tokenizer_rows else None,
        "views": rows[4].cell if (rows := _rows(page["views"])) else None,
        "pretrainings": rows[1].cell if (rows := _rows(page["pretrainings"])) else None,
    }
    figures = {}
    texts = dict.fromkeys(key for key, _, _ in STEPS)
    for section in page["storage"][:1]:
        figures["storage"] = f"{section['rows'][0]['per_image']:,.0f} B"
        texts["storage"] = "per image: all that is kept"
        size = f" of {_by(section['size'])}" if section["size"] else ""  # imported stores do not know it
        texts["images"] = f"{section['images']:,}{size}, read once"
        texts["tokenizers"] = (
            f"{_by(section['manifest']['grid'])} codes out of {section['manifest']['codebook_size']:,}"
        )
    for section in page["datasets"][:1]:
        trained = [score for score in section["scores"] if COLOURS[score.kind] == "mtm"]
        if trained:
            main = min(trained, key=lambda score: score.method.standing)
            figures["datasets"] = f"{100 * main.mean:.0f} %"
            texts["datasets"] = f"accuracy on {section['dataset']}, {words.from_start(main.method.init)}"
    measured = [each.name for section in page["datasets"] for each in section["sets"] if each.shift]
    measured = list(dict.fromkeys(measured))
    if measured:
        figures["robustness"] = f"{len(measured)} sets"
        more = f" and {len(measured) - 3} more" if len(measured) > 4 else ""
        texts["robustness"] = ", ".join(measured[:3] if more else measured) + more
    there = {key: bool(page.get(key)) for key, _, _ in STEPS} | {
        "images": bool(page["storage"] or page["tokenizers"]),
        "robustness": bool(measured),
    }
    return [
        {
            "title": title, "text": texts[key] or text, "picture": pictures.get(key), "figure": figures.get(key),
            "there": there[key],
        }
        for key, title, text in STEPS
    ]  # fmt: skip


def _rows(sections):
    return sections[0]["rows"] if sections else []


def _by(sizes):
    return f" {TIMES} ".join(str(size) for size in sizes)
