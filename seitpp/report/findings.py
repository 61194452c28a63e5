"""What results say, in sentences computed from their numbers that are true for either sign."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import math

import pandas as pd

from seitpp.report import words
from seitpp.report.scores import Difference, Score, ShiftScores, differences

_ONE_STD = "one standard deviation over seeds"
_SURE = 2.0
"""Times its deviation that a difference has to be, so that it is not said to seem so."""


def summary_sentence(dataset: str, found: list[Score]) -> str:
    """One sentence on a data set for the top of the page: from scratch, from MTM, the best simple baseline.

    The start that is compared is the main one by `Method.standing`, not the one that does best on the test set; the
    others are named beside it.

    Args:
        dataset: its name.
        found: its Scores, best first.
    Returns: the sentence; "" where there is nothing to compare.
    """
    pairs = differences(found)
    if not pairs:
        return ""
    difference, pretrained = pairs[0], pairs[0].pretrained
    others = [each.pretrained for each in pairs[1:] if each.pretrained.method.same_labels(pretrained.method)]
    before, after = (_with_start(each, augmentation=bool(others)) for each in (difference.scratch, pretrained))
    seems = "" if difference.ratio >= _SURE else "seems to "
    rises, falls = ("rise", "fall") if seems else ("rises", "falls")
    sentence = {
        "better": f"Accuracy on {dataset} {seems}{rises} from {before} to {after}",
        "worse": f"Accuracy on {dataset} {seems}{falls} from {before} to {after}",
        "even": f"Accuracy on {dataset} is {after} and {before}, which differ by at most {_ONE_STD}",
        "unknown": f"Accuracy on {dataset} is {after} and {before}, with one seed",
    }[difference.verdict]
    sentence += f", on {pretrained.test_images:,} test images"
    sentence += "".join(f"; {words.method(each.method, augmentation=True)} reaches {each.text} %" for each in others)
    baseline = next((score for score in found if score.kind == "baseline"), None)
    if baseline is None:
        return f"{sentence}."
    ahead = baseline.mean - pretrained.mean
    more = ", which is higher" if ahead > 0 else ", which is as high" if ahead == 0 else ""
    return f"{sentence}; the best simple baseline ({baseline.name}) reaches {baseline.text} %{more}."


def difference_sentence(difference: Difference) -> str:
    """Whether pre-training helped, and how sure that is.

    With several seeds: more than two standard deviations of the difference, more than one, or no effect. With one seed:
    whether the difference is more than two standard errors, which the test images alone would give.
    """
    scratch, pretrained = difference.scratch, difference.pretrained
    change = f"{_capital(pretrained.name)} {pretrained.text} %, {scratch.name} {scratch.text} %: {difference.text}"
    if difference.verdict == "unknown":
        error = f"{100 * difference.standard_error:.1f} points"
        images = f"one standard error of the difference is {error} on {pretrained.test_images:,} test images"
        if abs(difference.value) > _SURE * difference.standard_error:
            return f"{change}. With one seed there is no standard deviation; {images}, yet another seed may differ."
        return f"{change}. With one seed there is no standard deviation, and {images}, so this may be chance."
    if difference.verdict == "even":
        return f"{change}, within one standard deviation over {_seeds(difference)}: no effect of pre-training is shown."
    ratio = difference.ratio
    size = f"{ratio:.2f} times its standard deviation" if math.isfinite(ratio) else "with a standard deviation of 0"
    effect = "help" if difference.verdict == "better" else "hurt"
    effect = f"Pre-training {effect}s here" if ratio >= _SURE else f"Pre-training seems to {effect} here"
    return f"{change}, {size} over {_seeds(difference)}. {effect}."


def baseline_sentences(found: list[Score]) -> list[str]:
    """Which simple baselines the networks beat, from which they are not told apart, and which they do not beat.

    Only those that learned from as many labels are compared.
    """
    baselines = [score for score in found if score.kind == "baseline"]
    groups = {}
    for score in found:
        rivals = [each for each in baselines if each.method.same_labels(score.method)]
        if score.kind != "baseline" and rivals:
            compared = [(each, Difference(pretrained=score, scratch=each)) for each in rivals]
            unbeaten = tuple(each for each, ahead in compared if ahead.value <= 0)
            close = tuple(each for each, ahead in compared if ahead.value > 0 and ahead.ratio <= 1)
            groups.setdefault((unbeaten, close, rivals[0]), []).append(score.name)
    sentences = []
    for (unbeaten, close, best), names in groups.items():
        verb, has = ("does", "is") if len(names) == 1 else ("do", "are")
        who = _capital("; ".join(names))
        if unbeaten:
            sentences.append(f"{who} {verb} not beat: {'; '.join(score.name for score in unbeaten)}.")
        if close:
            others = "; ".join(score.name for score in close)
            sentences.append(f"{who} {has} ahead by no more than one standard deviation of: {others}.")
        if not unbeaten and not close:
            sentences.append(
                f"Better than every simple baseline, the best of which is {_names([best])}: {'; '.join(names)}."
            )
    return sentences


def not_improved(dataset: str, found: list[Score], sets: list[ShiftScores]) -> list[str]:
    """What pre-training does not improve, a list of phrases.

    Args:
        dataset: its name.
        found: its Scores on plain test images.
        sets: its Scores under shifts.
    """
    phrases = []
    for difference in differences(found):
        phrases += _no_better(f"{dataset}, {difference.pretrained.name} against from scratch", difference)
    for score in [score for score in found if score.kind == "frozen"]:
        control = next((each for each in found if each.method == score.method.control), None)
        if control is not None and score.mean <= control.mean:
            phrases.append(f"{dataset}, {score.name} ({score.text} %) against {_names([control])}")
    for each in [each for each in sets if each.shift]:
        for difference in differences(each.scores):
            phrases += _no_better(f"{dataset} on {each.name} images, {difference.pretrained.name}", difference)
    return phrases


def _no_better(phrase, difference):
    """[phrase] where a difference is not in favour of pre-training, else []."""
    if difference.verdict == "better":
        return []
    doubt = "; one seed, so not known" if difference.verdict == "unknown" and difference.value > 0 else ""
    return [f"{phrase} ({difference.text}{doubt})"]


def robustness_sentences(sets: list[ShiftScores]) -> list[str]:
    """Where the pre-trained classifier is better than the one from scratch, and where not.

    Args:
        sets: Scores under each shift, clean images among them or not.
    """
    by_verdict = {}
    for each in sets:
        for difference in differences(each.scores):
            by_verdict.setdefault(difference.verdict, []).append(f"{each.name} ({difference.text})")
    openings = {
        "better": f"Pre-training is better than training from scratch by more than {_ONE_STD} on",
        "even": f"The difference is at most {_ONE_STD} on",
        "worse": f"Pre-training is worse by more than {_ONE_STD} on",
        "unknown": "With one seed there is no standard deviation. The differences are on",
    }
    return [f"{text} {', '.join(by_verdict[verdict])}." for verdict, text in openings.items() if verdict in by_verdict]


def entropy_sentence(summary: dict[str, float]) -> str:
    """How the cross-entropy of hidden tokens stands against the context-free baselines."""
    paid = summary["eval_cross_entropy"]
    names = {"unigram_baseline": "token frequencies", "position_baseline": "token frequencies at each position"}
    known = {key: name for key, name in names.items() if key in summary}
    sentence = f"its cross-entropy is {paid:.2f} nats per hidden token"
    if known:
        baselines = " and ".join(f"{summary[key]:.2f} ({name})" for key, name in known.items())
        sentence += f"; context-free baselines reach {baselines}"
    unbeaten = [name for key, name in known.items() if paid >= summary[key]]
    if len(unbeaten) == len(names):
        sentence += ", so it beats neither"
    elif unbeaten:
        sentence += f", so it does not beat {unbeaten[0]}"
    return f"{sentence}."


def view_sentences(agreement: pd.DataFrame) -> list[str]:
    """Whether TokenAdapt's tokens are nearer to the true ones than those of the naive ways.

    Args:
        agreement: DataFrame of fractions, a row a geometry ("all" among them), a column a method.
    """
    naive = [name for name in ("naive embedding", "naive id") if name in agreement]
    if "TokenAdapt" not in agreement or not naive:
        return []
    best = agreement[naive].max(axis=1)
    sentences = []
    if "all" in agreement.index:
        own, other = (f"{100 * value:.1f} %" for value in (agreement["TokenAdapt"]["all"], best["all"]))
        better = agreement["TokenAdapt"]["all"] > best["all"]
        sentences.append(
            f"Over all geometries together, as in training, TokenAdapt gets {own} of the tokens right, the better of "
            f"the two naive ways {other}{'' if better else ': TokenAdapt is no better here'}."
        )
    behind = [name for name in agreement.index if name != "all" and agreement["TokenAdapt"][name] <= best[name]]
    if behind:
        sentences.append(f"Taken one by one, a naive way agrees as well or better for: {', '.join(behind)}.")
    return sentences


def _with_start(score, *, augmentation):
    return f"{score.text} % ({words.from_start(score.method.init, score.method.augmentation if augmentation else '')})"


def _seeds(difference):
    return f"{min(difference.pretrained.seeds, difference.scratch.seeds)} seeds"


def _capital(text):
    return text[:1].upper() + text[1:]


def _names(found):
    """Methods with their accuracies in brackets."""
    return "; ".join(f"{score.name} ({score.text} %)" for score in found)
