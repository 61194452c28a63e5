"""What results say, in sentences computed from their numbers that are true for either sign."""

import math

from seitpp.report.scores import differences


def summary_sentence(task, found):
    """One sentence on a task for the top of the page: from scratch, from MTM, the best simple baseline.

    Args:
        task: its name.
        found: its Scores, best first.
    Returns: the sentence; "" where there is nothing to compare.
    """
    difference = next(iter(differences(found)), None)
    if difference is None:
        return ""
    scratch, pretrained = f"{difference.scratch.text} %", f"{difference.pretrained.text} %"
    sentence = {
        "better": f"Accuracy on {task} rises from {scratch} (from scratch) to {pretrained} (from MTM)",
        "worse": f"Accuracy on {task} falls from {scratch} (from scratch) to {pretrained} (from MTM)",
        "even": f"Accuracy on {task} is {pretrained} from MTM, {scratch} from scratch, no further apart than seeds are",
        "unknown": f"Accuracy on {task} is {pretrained} from MTM, {scratch} from scratch, of one seed",
    }[difference.verdict]
    baseline = next((score for score in found if score.kind == "baseline"), None)
    if baseline is None:
        return f"{sentence}."
    ahead = baseline.mean - difference.pretrained.mean
    more = ", which is more" if ahead > 0 else ", as much" if ahead == 0 else ""
    return f"{sentence}; the best simple baseline ({baseline.method}) reaches {baseline.text} %{more}."


def difference_sentence(difference):
    """Whether pre-training helped, and how sure that is."""
    scratch, pretrained = difference.scratch, difference.pretrained
    change = f"{_capital(pretrained.method)} {pretrained.text} %, {scratch.method} {scratch.text} %: {difference.text}"
    if difference.verdict == "unknown":
        return f"{change}. With one seed no deviation is known, so this may be chance."
    if difference.verdict == "even":
        return f"{change}, within the deviation over {_seeds(difference)}: no effect of pre-training is shown."
    ratio = abs(difference.value) / difference.deviation if difference.deviation else math.inf
    size = f"{ratio:.1f} times its deviation" if math.isfinite(ratio) else "without deviation"
    effect = "help" if difference.verdict == "better" else "lose"
    effect = f"Pre-training {effect}s here" if ratio >= 2 else f"Pre-training seems to {effect} here"
    return f"{change}, {size} over {_seeds(difference)}. {effect}."


def baseline_sentences(found):
    """Which simple baselines the networks beat and which not, a list of sentences."""
    baselines = [score for score in found if score.kind == "baseline"]
    groups = {}
    for score in found:
        if score.kind != "baseline" and baselines:
            unbeaten = tuple(each for each in baselines if each.mean >= score.mean)
            groups.setdefault(unbeaten, []).append(score.method)
    sentences = []
    for unbeaten, methods in groups.items():
        if unbeaten:
            verb = "does" if len(methods) == 1 else "do"
            others = "; ".join(score.method for score in unbeaten)
            sentences.append(f"{_capital('; '.join(methods))} {verb} not beat: {others}.")
        else:
            best = _names(baselines[:1])
            sentences.append(f"Ahead of every simple baseline, of which the best is {best}: {'; '.join(methods)}.")
    return sentences


def not_improved(task, found, sets):
    """What pre-training does not improve, a list of phrases.

    Args:
        task: its name.
        found: the task's Scores on plain test images.
        sets: {name of a robustness set: Scores}.
    """
    phrases = []
    for difference in differences(found):
        phrases += _no_better(f"{task}, {difference.pretrained.method} against from scratch", difference)
    for score in found:
        control = next((each for each in found if each.method == score.method.replace("MTM", "random")), None)
        if score.kind == "frozen" and control is not None and score.mean <= control.mean:
            phrases.append(f"{task}, {score.method} ({score.text} %) against {_names([control])}")
    for name in [name for name in sets if name != "clean"]:
        for difference in differences(sets[name]):
            phrases += _no_better(f"{task} on {name} images, {difference.pretrained.method}", difference)
    return phrases


def _no_better(phrase, difference):
    """[phrase] where a difference is not in favour of pre-training, else []."""
    if difference.verdict == "better":
        return []
    doubt = "; one seed, so not known" if difference.verdict == "unknown" and difference.value > 0 else ""
    return [f"{phrase} ({difference.text}{doubt})"]


def robustness_sentences(sets):
    """Where the pre-trained classifier is ahead of the one from scratch, and where not.

    Args:
        sets: {name: Scores}, "clean" among them or not.
    """
    by_verdict = {}
    for name, measured in sets.items():
        for difference in differences(measured):
            by_verdict.setdefault(difference.verdict, []).append(f"{name} ({difference.text})")
    words = {
        "better": "Pre-training is ahead of training from scratch, by more than the deviation over seeds, on",
        "even": "No difference beyond the deviation on",
        "worse": "It is behind on",
        "unknown": "With one seed, so without a deviation, the differences are on",
    }
    return [f"{text} {', '.join(by_verdict[verdict])}." for verdict, text in words.items() if verdict in by_verdict]


def entropy_sentence(summary):
    """How the masked-token cross-entropy stands against the baselines that know frequencies only."""
    paid = summary["eval_cross_entropy"]
    names = {"unigram_baseline": "token frequencies", "position_baseline": "frequencies at each position"}
    known = {key: name for key, name in names.items() if key in summary}
    sentence = f"a hidden token costs it {paid:.2f} nats"
    if known:
        sentence += ", a guess " + " and ".join(f"from {name} {summary[key]:.2f}" for key, name in known.items())
    unbeaten = [name for key, name in known.items() if paid >= summary[key]]
    if unbeaten:
        sentence += f", so it does not beat {' or '.join(unbeaten)}"
    return f"{sentence}."


def view_sentences(agreement):
    """Whether TokenAdapt's tokens are nearer to the true ones than those of the naive ways.

    Args:
        agreement: DataFrame of shares, a row a geometry ("all" among them), a column a method.
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


def _seeds(difference):
    return f"{min(difference.pretrained.seeds, difference.scratch.seeds)} seeds"


def _capital(text):
    return text[:1].upper() + text[1:]


def _names(found):
    """Methods with their accuracies in brackets."""
    return "; ".join(f"{score.method} ({score.text} %)" for score in found)
