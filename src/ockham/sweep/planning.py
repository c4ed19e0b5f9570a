"""From the arguments of -m to the plan of a sweep. No job is run here, and nothing is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from ockham import schema
from ockham.errors import UserError
from ockham.sweep.axes import Axis, parse_axes
from ockham.sweep.command_line import CommandLine
from ockham.sweep.comparison import (
    DEFAULT_SEEDS,
    MOST_SEEDS,
    SEEDS_A_BLOCK,
    UNTESTED,
    Arm,
    Comparison,
    Confirmation,
    arm_lines,
    check_budgets,
    confirmation_seeds,
    trials_of_equal_cost,
)
from ockham.sweep.composition import CHOICES
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import Grid, grid
from ockham.sweep.jobs import Job, Plan, Replicate, make_replicates
from ockham.sweep.search import Search
from ockham.sweep.searchspace import SearchSpace
from ockham.sweep.slots import check_devices

Check = Callable[[schema.Content], object]


@dataclass(frozen=True)
class Arguments:
    """The overrides of a command as axes, by what they are for: the sweep as a whole, or its jobs."""

    of_sweep: tuple[Axis, ...]
    of_jobs: tuple[Axis, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str], config_loader: ConfigLoader) -> "Arguments":
        axes = parse_axes(arguments, config_loader)
        of_sweep = tuple(axis for axis in axes if axis.group in schema.SWEEP_SETTINGS)
        return cls(of_sweep, tuple(axis for axis in axes if axis not in of_sweep))

    @property
    def stored(self) -> list[str]:
        """The arguments as sweep.json keeps them: with them the sweep continues."""
        return [axis.argument for axis in (*self.of_jobs, *self.of_sweep)]

    @property
    def for_settings(self) -> list[str]:
        """The overrides behind the settings of the sweep as a whole.

        An experiment may set the sweep too, and the objective is no setting of the sweep alone. Settings of options stay out:
        the default options may not have them.
        """
        plain = [axis for axis in self.of_jobs if "." not in axis.name and not axis.is_swept]
        return [axis.argument for axis in (*self.of_sweep, *plain)]

    def for_job(self, job: Job) -> list[str]:
        """The settings of the sweep that the job has too, as overrides: each asks by itself whether it is pruned.

        A confirmation is not pruned: what it is about is the mean over all its seeds.
        """
        return [axis.argument for axis in self.of_sweep if axis.group == "prune" and job.stage != "confirm"]


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def command_lines(
    axes: Sequence[Axis], settings: DictConfig, *, config: DictConfig, config_loader: ConfigLoader
) -> list[CommandLine]:
    """A command line for each of the grids beside `axes`, a single one where none are set.

    Raises UserError for what both set, and for whatever no job can have.
    """
    grids = [parse_axes(list(overrides), config_loader) for overrides in settings.grids or [[]]]
    if settings.compare:
        axes = _untested(axes)
    names = {axis.name for axis in axes}
    for axis in [axis for of_grid in grids for axis in of_grid]:
        if axis.name in names:
            raise UserError(f"{axis.name} is set by grids already: leave it out, or say grids=null")
    check = check_of_jobs(settings)
    lines = [command_line([*axes, *of_grid], config=config, config_loader=config_loader, check=check) for of_grid in grids]
    check_devices([devices for line in lines for devices in line.values("trainer.devices")], settings.executor)
    return lines


def _untested(axes: Sequence[Axis]) -> list[Axis]:
    """The axes of a search that leaves the test set untouched. Raises UserError where the command says otherwise."""
    if any(axis.name == "test" for axis in axes):
        raise UserError("test changes nothing with compare: the confirmation evaluates the test set, the search never does")
    return [*axes, *parse_axes([UNTESTED])]


def check_of_jobs(settings: DictConfig) -> Check:
    """Whether a job's settings make sense, those of the sweep that it has too among them."""
    prune = schema.container(settings.prune)
    return lambda content: schema.check({**content, "prune": prune})


def command_line(
    axes: Sequence[Axis], *, config: DictConfig, config_loader: ConfigLoader, check: Check | None = None
) -> CommandLine:
    """The axes with what Hydra composes for them; `check` raises UserError for a composition that cannot be a job."""
    return CommandLine.of(
        axes,
        is_group=lambda key: bool(config_loader.get_group_options(key.partition("@")[0])),
        compose=lambda overrides: _with_choices(config_loader.load_sweep_config(config, list(overrides))),
        check=check,
    )


def _with_choices(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own part, but with what Hydra knows of the options that it was composed of."""
    composed = OmegaConf.merge(without_hydra(config), {CHOICES: config.hydra.runtime.choices})
    assert isinstance(composed, DictConfig)
    return composed


def make_plan(lines: Sequence[CommandLine], settings: DictConfig, folder: SweepFolder) -> Plan:
    """The grid of all lines, the search on one, or the comparison of their arms, that the settings of the sweep ask for."""
    replicates = make_replicates(settings.seeds, settings.cv)
    if settings.compare:
        return _comparison(lines, settings, folder, replicates)
    return _searched(lines, settings, folder, replicates)


def _searched(
    lines: Sequence[CommandLine],
    settings: DictConfig,
    folder: SweepFolder,
    replicates: Sequence[Replicate],
    *,
    first: int = 0,
    may_be_fixed: bool = False,
    num_trials: int | None = None,
) -> Grid | Search:
    """The grid of all lines, or the search on one, of `num_trials` where that is not what the settings say; a grid of one
    where nothing is to be searched and that `may_be_fixed`."""
    search = settings.search
    if search.sampler == "grid":
        return grid(lines, replicates, first=first)
    if len(lines) > 1:
        raise UserError(f"search={search.sampler} searches one space: leave grids out, or search=grid")
    (line,) = lines
    space = SearchSpace.of(line, check_of_jobs(settings), may_be_empty=may_be_fixed)
    if not space.union:
        return grid(lines, replicates, first=first)
    return Search(
        space,
        folder,
        sampler=search.sampler,
        num_trials=num_trials or search.trials,
        seed=search.seed,
        replicates=replicates,
        objective=settings.objective,
        batch_size=search.get("batch"),
        prunes=settings.prune.rule != "none",
        first=first,
    )


def _comparison(
    lines: Sequence[CommandLine], settings: DictConfig, folder: SweepFolder, replicates: Sequence[Replicate]
) -> Comparison:
    """Arms with as many trials each, and the seeds of their confirmation. Raises UserError where that is not possible."""
    names = [settings.compare] if isinstance(settings.compare, str) else list(settings.compare)
    for axis in (axis for line in lines for axis in line.axes):
        if axis.name in ("seed", "fold") and axis.is_swept:
            raise UserError(f"a comparison would choose the luckiest {axis.name}: use seeds=[...] or cv=k, which are averaged")
    arms: list[Arm] = []
    first = 0
    by_arm = arm_lines(lines, names)
    trials = trials_of_equal_cost(by_arm, settings.search.trials) if settings.budget == "flops" else {}
    for name, parts in by_arm.items():
        plan = _searched(parts, settings, folder, replicates, first=first, may_be_fixed=True, num_trials=trials.get(name))
        arms.append(Arm(name, plan))
        first += plan.total
    check_budgets(arms)
    contents = [combination.content for line in lines for combination in line.combinations]
    searched = [replicate.values["seed"] for replicate in replicates if "seed" in replicate.values]
    confirm = _confirmation(settings, searched or [content["seed"] for content in contents])
    return Comparison(arms, folder, names=names, objective=settings.objective, confirm=confirm, first=first)


def _confirmation(settings: DictConfig, searched: Sequence[int]) -> Confirmation:
    """The replicates of the confirmation, on all folds where there are any; `searched` are the seeds of the search."""
    if settings.confirm == "auto":
        seeds = confirmation_seeds(settings.max_seeds or MOST_SEEDS, searched)
        block = min(SEEDS_A_BLOCK, len(seeds)) * (settings.cv or 1)
        return Confirmation(tuple(make_replicates(seeds, settings.cv)), block, settings.resolve)
    replicates = make_replicates(confirmation_seeds(settings.confirm or DEFAULT_SEEDS, searched), settings.cv)
    return Confirmation(tuple(replicates), len(replicates))
