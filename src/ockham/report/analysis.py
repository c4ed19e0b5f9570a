"""From runs to configurations, and to what can be said about them."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ockham.core.selection import maximised
from ockham.core.statistics import Comparison, compare, corrected, t_interval
from ockham.errors import UserError
from ockham.report.reading import RecordedRun

#: Regularizers that make weights exactly zero.
SPARSE = ("l1", "group_lasso", "elastic_net")
ABSENT = ""

#: fANOVA takes twice the time for each further choice of a setting whose values are no numbers.
MOST_CHOICES = 6


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration over seeds and folds. `values` are its swept settings as text, ABSENT where it has none."""

    runs: tuple[RecordedRun, ...]
    values: Mapping[str, str]

    @cached_property
    def finished(self) -> list[RecordedRun]:
        return [run for run in self.runs if run.state == "finished"]

    @property
    def n(self) -> int:
        return len(self.finished)

    @property
    def states(self) -> Mapping[str, int]:
        return Counter(run.state for run in self.runs)

    @property
    def label(self) -> str:
        """`adam, l2, lr 0.01`: options by themselves, settings with the last part of their name."""
        parts = []
        for key, text in self.values.items():
            if text != ABSENT:
                parts.append(text if "." not in key else f"{key.rpartition('.')[2]} {text}")
        return ", ".join(parts) or "the only one"

    def metric_values(self, name: str) -> list[float]:
        """A final metric of the finished runs; NaN where an earlier version did not write it."""
        return [run.metrics.get(name, math.nan) for run in self.finished]

    def mean(self, name: str) -> float:
        values = self.metric_values(name)
        return statistics.fmean(values) if values else math.nan

    def interval(self, name: str) -> tuple[float, float]:
        return t_interval(self.metric_values(name))

    @property
    def train_seconds(self) -> float:
        """Mean seconds of training; NaN where a run shared its process with others: the share of a group is no measurement."""
        costs = [run.cost for run in self.finished]
        if not costs or any(cost.get("shared", 1) != 1 or "train_seconds" not in cost for cost in costs):
            return math.nan
        return statistics.fmean(cost["train_seconds"] for cost in costs)

    @property
    def num_epochs(self) -> int:
        """The epochs that every finished run has."""
        return min((len(run.epochs) for run in self.finished), default=0)

    def curves(self, max_points: int, *, logarithmic: bool = False) -> list[list[Mapping[str, float]]]:
        """The epochs that every finished run has, each as the rows of all runs; at most about so many, the last among them.

        They are evenly spaced, or on a logarithmic axis.
        """
        length = self.num_epochs
        if logarithmic:
            positions = sorted(
                {round(length ** (index / (max_points - 1))) - 1 for index in range(max_points if length else 0)}
            )
        else:
            step = max(-(-length // max_points), 1)
            positions = [position for position in range(length) if (length - 1 - position) % step == 0]
        return [[run.epochs[position] for run in self.finished] for position in positions]

    def number(self, key: str) -> float:
        """A setting as a number; NaN where it is none."""
        return number_of(self.values.get(key, ABSENT))


def number_of(text: str) -> float:
    """A setting as a number, of a list of equal ones (`[64,64]`) that one; NaN where it is none."""
    parts = text[1:-1].split(",") if text.startswith("[") else [text]
    try:
        numbers = {float(part) for part in parts}
    except ValueError:
        return math.nan
    return numbers.pop() if len(numbers) == 1 else math.nan


def paired(first: Configuration, second: Configuration, name: str, *, looks: int = 0) -> Comparison | None:
    """A final metric of both over the seeds and folds that both have; None where there is none. `looks` as in `compare`."""
    other = {run.replicate: run.metrics[name] for run in second.finished}
    pairs = [(run.metrics[name], other[run.replicate]) for run in first.finished if run.replicate in other]
    if not pairs:
        return None
    ahead, behind = zip(*pairs, strict=True)
    return compare(ahead, behind, looks=looks)


@dataclass(frozen=True)
class Results:
    """All configurations, the best on validation first, and which settings differ among them."""

    configurations: tuple[Configuration, ...]
    swept: tuple[str, ...]
    objective: str
    repeated: int
    """Runs left out since they repeat another one: they would only seem to be further evidence."""
    of_other_objectives: int

    @property
    def maximise(self) -> bool:
        return maximised(self.objective)

    @property
    def finished(self) -> list[Configuration]:
        """Those with a result: a finished run, and an objective that is a number."""
        return [c for c in self.configurations if c.n and math.isfinite(c.mean("objective"))]

    @property
    def winner(self) -> Configuration | None:
        return next(iter(self.finished), None)

    def best(self, configurations: Sequence[Configuration]) -> Configuration:
        """The best of some, which stand in their order."""
        return min(configurations, key=self.configurations.index)

    def by(self, *keys: str) -> dict[tuple[str, ...], list[Configuration]]:
        """The finished configurations by their values of some settings."""
        groups: dict[tuple[str, ...], list[Configuration]] = {}
        for configuration in self.finished:
            groups.setdefault(tuple(configuration.values.get(key, ABSENT) for key in keys), []).append(configuration)
        return groups

    def numbers(self, key: str) -> list[float]:
        """The values of a setting in ascending order; empty where one is no number, or two are the same (`[64]`, `[64,64]`)."""
        texts = {configuration.values[key] for configuration in self.configurations} - {ABSENT}
        numbers = {number_of(text) for text in texts}
        return sorted(numbers) if len(numbers) == len(texts) and all(map(math.isfinite, numbers)) else []

    def best_by_numbers(self, *keys: str) -> dict[str, dict[tuple[float, ...], Configuration]]:
        """By the other options, joined by commas, and by the numbers of some settings, the best configuration with a result.

        Where none has one, that without; configurations that lack one of the settings are left out.
        """
        options = [key for key in self.swept if "." not in key]
        best: dict[str, dict[tuple[float, ...], Configuration]] = {}
        for configuration in self.configurations:  # the best come first
            place = tuple(configuration.number(key) for key in keys)
            if all(map(math.isfinite, place)):
                panel = ", ".join(configuration.values[key] for key in options)
                best.setdefault(panel, {}).setdefault(place, configuration)
        return best

    def matching(self, wanted: Mapping[str, str]) -> list[Configuration]:
        """The finished configurations whose runs have these values. Raises UserError where there are none."""

        def has(configuration: Configuration, key: str, text: str) -> bool:
            return _same(configuration.runs[0].values.get(key), text)

        candidates = [c for c in self.configurations if c.n]
        matching = [c for c in candidates if all(has(c, key, text) for key, text in wanted.items())]
        if not matching:
            asked = " ".join(f"{key}={text}" for key, text in wanted.items())
            known = sorted({f"{key}={c.runs[0].values[key]}" for c in candidates for key in wanted if key in c.runs[0].values})
            raise UserError(
                f"no finished configuration has {asked}; there are: {', '.join(known) or 'none with such a setting'}"
            )
        return matching

    def compare(self, first: Configuration, second: Configuration) -> Comparison | None:
        """The objective of both over the seeds and folds that both have; None where there is none."""
        return paired(first, second, "objective")


def analyse(runs: Sequence[RecordedRun]) -> Results:
    """Group runs by configuration, a run for each seed and fold; of runs of several objectives, those of the most frequent.

    Complete configurations come first, since the mean of what is left of others is not that of all their seeds; a mean that
    is not finite comes after those.
    """
    objective = Counter(run.objective for run in runs).most_common(1)[0][0] if runs else "val/acc"
    comparable = [run for run in runs if run.objective == objective]
    by_key: dict[str, dict[tuple[object, object], RecordedRun]] = {}
    for run in comparable:
        members = by_key.setdefault(run.configuration_key, {})
        if run.replicate not in members or (run.state == "finished" and members[run.replicate].state != "finished"):
            members[run.replicate] = run
    swept = _swept(comparable)
    configurations = []
    for by_replicate in by_key.values():
        replicates = tuple(by_replicate.values())
        configurations.append(Configuration(replicates, {key: replicates[0].values.get(key, ABSENT) for key in swept}))
    sign = -1 if maximised(objective) else 1

    def rank(configuration: Configuration) -> tuple[bool, bool, bool, float]:
        mean = configuration.mean("objective")
        known = math.isfinite(mean)
        return (not configuration.n, not known, configuration.n < len(configuration.runs), sign * mean if known else 0.0)

    configurations.sort(key=rank)
    repeated = len(comparable) - sum(len(configuration.runs) for configuration in configurations)
    return Results(tuple(configurations), swept, objective, repeated, len(runs) - len(comparable))


def _swept(runs: Sequence[RecordedRun]) -> tuple[str, ...]:
    """Keys whose values differ among the runs, options before settings."""
    keys = dict.fromkeys(key for run in runs for key in run.values)
    differing = [key for key in keys if len({run.values.get(key) for run in runs}) > 1]
    return tuple(sorted(differing, key=lambda key: "." in key))


def _same(text: str | None, wanted: str) -> bool:
    if text is None:
        return False
    try:
        return float(text) == float(wanted)
    except ValueError:
        return text.replace(" ", "") == wanted.replace(" ", "")


def behind_best(results: Results, others: Sequence[Configuration]) -> list[tuple[Configuration, Comparison]]:
    """The first of the configurations on validation minus each of the others with which it shares a seed, as one family."""
    winner = results.winner
    if winner is None:
        return []
    pairs = [(other, results.compare(winner, other)) for other in others if other is not winner]
    known = [(other, comparison) for other, comparison in pairs if comparison is not None]
    family = corrected([comparison for _, comparison in known])
    return [(other, comparison) for (other, _), comparison in zip(known, family, strict=True)]


@dataclass(frozen=True)
class Effect:
    """A regularizer at its best setting against none at its best, with the same options otherwise."""

    context: str
    regularizer: str
    chosen: Configuration
    comparison: Comparison


def effects(results: Results) -> list[Effect]:
    """What each regularizer brings against `none`, in each context of other options; all comparisons are one family."""
    if "reg" not in results.swept:
        return []
    others = [key for key in results.swept if "." not in key and key != "reg"]
    uncorrected: list[Effect] = []
    for context, members in results.by(*others).items():
        by_reg: dict[str, list[Configuration]] = {}
        for member in members:
            by_reg.setdefault(member.values["reg"], []).append(member)
        if "none" not in by_reg:
            continue
        base = results.best(by_reg.pop("none"))
        for reg, settings in by_reg.items():
            chosen = results.best(settings)
            comparison = results.compare(chosen, base)
            if comparison is not None:
                uncorrected.append(Effect(", ".join(context), reg, chosen, comparison))
    family = corrected([effect.comparison for effect in uncorrected])
    return [replace(effect, comparison=comparison) for effect, comparison in zip(uncorrected, family, strict=True)]


def best_by_regularizer(results: Results) -> dict[str, Configuration]:
    """The best configuration of each value of `reg`, by validation, `none` before the others; empty where that is not swept."""
    if "reg" not in results.swept:
        return {}
    groups = sorted(results.by("reg").items(), key=lambda group: (group[0] != ("none",), group[0]))
    return {reg: results.best(members) for (reg,), members in groups}


def verdict(comparison: Comparison, *, maximise: bool) -> str:
    """One sentence for a reader without statistics: the same answer wherever a comparison is shown."""
    if not comparison.is_finite:
        return "not comparable: a result is not finite"
    if comparison.n < 2:
        return "one pair only: says nothing about chance"
    if not comparison.spread_is_known:
        return f"the same in all {comparison.n} pairs: no spread to judge by, more seeds are needed"
    if comparison.distinguishable:
        better = (comparison.mean > 0) == maximise
        correction = f", corrected for {comparison.comparisons} comparisons" if comparison.comparisons > 1 else ""
        return f"{'better' if better else 'worse'}: p {comparison.p:.2g}{correction}"
    needed = comparison.pairs_needed
    seeds = f"; about {needed} seeds would be needed" if needed is not None else ""
    return f"not distinguishable at n = {comparison.n}{seeds}"


def importance(results: Results) -> dict[str, float]:
    """The share of the variance of the objective that each swept setting explains by itself and in interactions.

    fANOVA (Hutter et al. 2014) as Optuna has it, over configurations. A setting that some do not have stands there at the
    middle one of its values, so that what the option brings counts for the option and not for its settings. Empty with fewer
    than two settings or eight configurations.
    """
    if len(results.swept) < 2 or len(results.finished) < 8:
        return {}
    import warnings

    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental parts
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        objectives = [configuration.mean("objective") for configuration in results.finished]
        columns = {
            key: _with_middles([configuration.values[key] for configuration in results.finished]) for key in results.swept
        }
        parameters = {key: _parameter(texts, objectives) for key, texts in columns.items() if len(set(texts)) > 1}
        space = {key: distribution for key, (distribution, _) in parameters.items()}
        for index, objective in enumerate(objectives):
            params = {key: values[index] for key, (_, values) in parameters.items()}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=objective))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _with_middles(texts: Sequence[str]) -> list[str]:
    """The values of a setting, the middle one of those that there are in place of absent ones."""
    present = sorted({text for text in texts if text != ABSENT}, key=lambda text: (number_of(text), text))
    return [text if text != ABSENT else present[len(present) // 2] for text in texts]


def _parameter(texts: Sequence[str], objectives: Sequence[float]):  # type: ignore[no-untyped-def]
    """A setting to Optuna, and its values: numbers on their scale where all are numbers, otherwise a choice.

    Of more than MOST_CHOICES their places in the order of their mean objectives, by which a tree finds its best division of
    them (Breiman et al. 1984, Classification and Regression Trees, section 4.2).
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [number_of(text) for text in texts]
    if all(map(math.isfinite, numbers)):
        return FloatDistribution(min(numbers), max(numbers), log=is_logarithmic(numbers)), numbers
    of_choice: dict[str, list[float]] = {}
    for text, objective in zip(texts, objectives, strict=True):
        of_choice.setdefault(text, []).append(objective)
    if len(of_choice) <= MOST_CHOICES:
        return CategoricalDistribution(sorted(of_choice)), list(texts)
    order = sorted(of_choice, key=lambda text: (statistics.fmean(of_choice[text]), text))
    return IntDistribution(0, len(order) - 1), [order.index(text) for text in texts]


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values are better seen on a logarithmic scale: all above 0 and over more than a factor of 20."""
    return min(values) > 0 and max(values) / min(values) > 20


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, error), both to be small, that no other one beats in both, by cost."""
    front, lowest = [], math.inf
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < lowest:
            front.append(index)
            lowest = points[index][1]
    return front
