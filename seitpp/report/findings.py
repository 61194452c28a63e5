"""What results say, in sentences computed from their numbers that are true for either sign."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import math

import pandas as pd

from seitpp.report import words
from seitpp.report.scores import Difference, Score, ShiftScores, differences

_ONE_STD = "one standard deviation over seeds"


def summary_sentence(dataset: str, found: list[Score]) -> str:
    """One sentence on a data set for the top of the page: from scratch, from MTM, the best simple baseline.

    Args:
        dataset: its name.
        found: its Scores, best first.
    Returns: the sentence; "" where there is nothing to compare.
    """
    difference = next(iter(differences(found)), None)
    if difference is None:
        return ""
    before, after = (_with_start(each) for each in (difference.scratch, difference.pretrained))
    sentence = {
        "better": f"Accuracy on {dataset} rises from {before} to {after}",
        "worse": f"Accuracy on {dataset} falls from {before} to {after}",
        "even": f"Accuracy on {dataset} is {after} and {before}, which differ by at most {_ONE_STD}",
        "unknown": f"Accuracy on {dataset} is {after} and {before}, with one seed",
    }[difference.verdict]
    baseline = next((score for score in found if score.kind == "baseline"), None)
    if baseline is None:
        return f"{sentence}."
    ahead = baseline.mean - difference.pretrained.mean
    more = ", which is higher" if ahead > 0 else ", which is as high" if ahead == 0 else ""
    return f"{sentence}; the best simple baseline ({baseline.name}) reaches {baseline.text} %{more}."


def difference_sentence(difference: Difference) -> str:
    """Whether pre-training helped, and how sure that is."""
    scratch, pretrained = difference.scratch, difference.pretrained
    change = f"{_capital(pretrained.name)} {pretrained.text} %, {scratch.name} {scratch.text} %: {difference.text}"
    if difference.verdict == "unknown":
        return f"{change}. With one seed there is no standard deviation, so this may be chance."
    if difference.verdict == "even":
        return f"{change}, within one standard deviation over {_seeds(difference)}: no effect of pre-training is shown."
    ratio = abs(difference.value) / difference.std if difference.std else math.inf
    size = f"{ratio:.1f} times its standard deviation" if math.isfinite(ratio) else "with a standard deviation of 0"
    effect = "help" if difference.verdict == "better" else "hurt"
    effect = f"Pre-training {effect}s here" if ratio >= 2 else f"Pre-training seems to {effect} here"
    return f"{change}, {size} over {_seeds(difference)}. {effect}."


def baseline_sentences(found: list[Score]) -> list[str]:
    """Which simple baselines the networks beat and which not."""
    baselines = [score for score in found if score.kind == "baseline"]
    groups = {}
    for score in found:
        if score.kind != "baseline" and baselines:
            unbeaten = tuple(each for each in baselines if each.mean >= score.mean)
            groups.setdefault(unbeaten, []).append(score.name)
    sentences = []
    for unbeaten, names in groups.items():
        if unbeaten:
            verb = "does" if len(names) == 1 else "do"
            others = "; ".join(score.name for score in unbeaten)
            sentences.append(f"{_capital('; '.join(names))} {verb} not beat: {others}.")
        else:
            best = _names(baselines[:1])
            sentences.append(f"Better than every simple baseline, the best of which is {best}: {'; '.join(names)}.")
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


def _with_start(score):
    return f"{score.text} % ({words.from_start(score.method.init)})"


def _seeds(difference):
    return f"{min(difference.pretrained.seeds, difference.scratch.seeds)} seeds"


def _capital(text):
    return text[:1].upper() + text[1:]


def _names(found):
    """Methods with their accuracies in brackets."""
    return "; ".join(f"{score.name} ({score.text} %)" for score in found)
