"""The command line around Hydra: one clear screen for every mistake, and resume=<run folder>. No torch here.

Exit codes: 0 finished, 1 failed, 2 a mistake in the command, 3 diverged, 130 interrupted.
"""

import difflib
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ockham import schema
from ockham.errors import UserError
from ockham.identity import computed, run_key
from ockham.record.folder import RunFolder
from ockham.record.resume import check_resumable, is_readable, read_config, run_folder, stored_config
from ockham.record.screen import error_screen
from ockham.sweep import SweepFailedError

CONF = Path(__file__).resolve().parents[2] / "conf"

HELP = """\
Ockham trains one classifier, or sweeps over any setting, and leaves a complete run folder behind.

  python train.py optimizer=adam reg=l2            one run
  python train.py 'reg=[l2,dropout]' model.hidden=[512,256] optimizer.lr=3e-4
  python train.py -m optimizer=sgd,adam seed=0,1,2 one run for each combination
  python train.py resume=outputs/runs/<run>        continue a run

Groups (choose with group=option; a list for reg):

$GROUPS

Settings (change with group.key=value):
  seed=0                          everything random follows from it
  objective=val/acc               what selects the epoch, or val/loss
  data.root=<folder>              where the data set lies, or goes
  data.batch_size=128             samples per step, or full
  data.train_samples=1000         train on a stratified subset
  model.hidden=[256,256]          and the other keys of conf/model/*.yaml
  optimizer.lr=0.01               and the other keys of conf/optimizer/*.yaml
  schedule.warmup_steps=100       with any schedule
  reg.l2.strength=1e-3            a regularizer's settings stand under its name
  trainer.max_epochs=30           or trainer.max_steps
  hydra.run.dir=<folder>          where the run goes

Sweeps (with -m; any setting may be a list a,b,c):
  seeds=5  cv=5                   each configuration under every seed, on every fold
  search=tpe search.trials=64     instead of a grid; random, qmc, tpe, gp or cmaes
  prune=asha                      end runs that fall behind; asha or median
  sweep=<name>                    outputs/sweeps/<name>; the same command again continues it
  fuse=off                        each run by itself; auto trains equal shapes together
  dry_run=true                    print the jobs and stop

Look at runs:  tensorboard --logdir outputs
--cfg job      print the configuration and stop
--hydra-help   the flags of Hydra
"""

FAILED, MISTAKE, DIVERGED, INTERRUPTED = 1, 2, 3, 130


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run Hydra's main and leave with the exit code of what happened; a mistake is shown on one screen."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(HELP.replace("$GROUPS", _groups()))
        sys.exit(0)
    try:
        sys.argv[1:] = _with_sweep_folder(_with_resume(arguments))
        main()
    except (HydraException, OmegaConfBaseException) as error:
        _leave(MISTAKE, *_composition_error(error, arguments))
    except UserError as error:
        _leave(MISTAKE, str(error))
    except SweepFailedError as error:
        _leave(FAILED, str(error))
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "interrupted; the same command, or resume=<the folder>, continues")
    # Anything else is a fault of the program: Python shows the traceback and exits with 1.
    sys.exit(0)


def _groups() -> str:
    """A line for each group with its options. Hydra's own list reads every file, which takes half a second."""
    groups = [path for path in sorted(CONF.iterdir()) if path.is_dir() and path.name != "hydra"]
    return "\n".join(f"  {path.name}: {', '.join(sorted(file.stem for file in path.glob('*.yaml')))}" for path in groups)


def execute(run: Callable[[DictConfig], float], config: DictConfig) -> float:
    """The objective of one job. Where it is the only one, a mistake or a divergence ends the program; a sweep goes on."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run(config)
    try:
        objective = run(config)
    except UserError as error:
        _leave(MISTAKE, str(error))
    if math.isnan(objective):
        sys.exit(DIVERGED)
    return objective


class CheckCallback(Callback):
    """Checks a run before Hydra writes anything into its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            folder = RunFolder(config.hydra.run.dir)
            check_resumable(folder)
            if config.resume is not None:
                task = stored_config(folder, config.hydra.overrides.task, trust=config.trust)
            elif folder.has_begun:
                _check_same(folder, task)
            schema.check(schema.container(task))
            if is_readable(folder):
                # A run that continues keeps its files: Hydra would write them again, and a kill meanwhile leave them empty.
                with open_dict(config):
                    config.hydra.output_subdir = None
        except UserError as error:
            # Hydra turns what a callback raises into a warning, but lets an exit pass.
            _leave(MISTAKE, str(error))


def _with_resume(arguments: list[str]) -> list[str]:
    """With resume=<folder>, Hydra shall run in that folder and leave the stored configuration as it is."""
    paths = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not paths or paths[-1] in ("", "null"):
        return arguments
    path = Path(paths[-1].strip("'\""))
    if (path / "sweep.json").exists():
        from ockham.sweep.folder import SweepFolder  # late, as --help and mistakes do without it

        others = [argument for argument in arguments if not argument.startswith("resume=")]
        return ["-m", *SweepFolder(path).arguments(), *others, f"hydra.sweep.dir='{path.resolve()}'"]
    folder = run_folder(str(path))
    return [*arguments, f"hydra.run.dir='{folder.path.resolve()}'", "hydra.output_subdir=null"]


def _with_sweep_folder(arguments: list[str]) -> list[str]:
    """A sweep with a name lies in a folder of that name. Raises UserError for sweep settings of a single run."""
    settings = dict(argument.split("=", 1) for argument in arguments if "=" in argument and not argument.startswith("-"))
    if not {"-m", "--multirun"} & set(arguments):
        of_sweeps = ("sweep", "seeds", "grids", "search", "prune", "dry_run")
        alone = [key for key in of_sweeps if settings.get(key, "null") not in ("null", "false")]
        if settings.get("cv", "null") != "null" and settings.get("fold", "null") == "null":
            alone.append("cv")
        if alone:
            raise UserError(f"{alone[0]}={settings[alone[0]]} is for sweeps: add -m")
        return arguments
    arguments = [_for_jobs_only(argument) for argument in arguments]
    name = settings.get("sweep", "null")
    if name == "null" or "hydra.sweep.dir" in settings:
        return arguments
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"sweep={name} is not possible: a name of letters, digits, '.', '_' and '-'")
    return [*arguments, f"hydra.sweep.dir=outputs/sweeps/{name}"]


def _for_jobs_only(argument: str) -> str:
    """A plain setting as a sweep with one value.

    Hydra puts plain settings into the configuration of the sweep as a whole too, where one that only exists for some of
    the swept choices (reg.l2.strength with reg=none,l2) would be an error.
    """
    key, _, value = argument.partition("=")
    if "." not in key or key.startswith(("-", "+", "~", "hydra.")) or key.partition(".")[0] in schema.SWEEP_SETTINGS:
        return argument
    parsed = OverridesParser.create().parse_override(argument)
    return argument if parsed.is_sweep_override() else f"{key}=choice({value})"


def _check_same(folder: RunFolder, new: DictConfig) -> None:
    """Raises UserError where the folder holds the beginning of a run with other settings."""
    content = schema.container(new)
    if not is_readable(folder):  # a kill has left its configuration empty, but not its status
        if folder.status().get("run_key") != run_key(content):
            raise UserError(f"{folder.path} holds the beginning of another run; choose another hydra.run.dir")
        return
    before, after = computed(schema.container(read_config(folder))), computed(content)
    differing = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if differing:
        lines = "".join(f"\n  {key}: {before.get(key)} there, {after.get(key)} now" for key in differing[:10])
        raise UserError(f"{folder.path} holds the beginning of another run; choose another hydra.run.dir{lines}")


def _leave(code: int, message: str, *notes: str) -> NoReturn:
    print(error_screen(message, notes=notes), file=sys.stderr)
    sys.exit(code)


def _composition_error(error: Exception, arguments: list[str]) -> list[str]:
    """What is wrong with the command line, and the nearest names that would be right."""
    message = str(error).strip()
    missing = re.search(r"Could not (?:find|load) '([\w/@.-]+)'", message)
    if missing:
        group, _, option = missing.group(1).rpartition("/")
        return _unknown_option(group, option)
    absent = re.search(r"Could not override '([\w.@/-]+)'|Key '([\w.-]+)' is not in struct\s+full_key: ([\w.]+)", message)
    if absent:
        return _unknown_key(absent.group(1) or absent.group(3), arguments)
    no_group = re.search(r"[Cc]ould not override '?([\w/]+)'?\.?\s*\n?No match in the defaults list", message)
    if no_group:
        return _unknown_key(no_group.group(1), arguments)
    return [message]


def _unknown_option(group: str, option: str) -> list[str]:
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    nearest = difflib.get_close_matches(option, options, n=1)
    notes = [f"did you mean {group}={nearest[0]}?"] if nearest else []
    return [f"{group}={option} is not known", *notes, f"{group} is one of: {', '.join(options)}"]


def _unknown_key(key: str, arguments: list[str]) -> list[str]:
    """`key` is no setting of the configuration that the other overrides make."""
    known = _known_settings(key, arguments)
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    parts = key.split(".")
    if parts[0] == "reg" and len(parts) > 2 and (CONF / "reg" / f"{parts[1]}.yaml").exists():
        chosen = [name for name in {path.split(".")[1] for path in known if path.startswith("reg.")} if name != parts[1]]
        if not any(path.startswith(f"reg.{parts[1]}.") for path in known):
            choose = f"reg={parts[1]}" if not chosen else f"'reg=[{','.join(sorted([*chosen, parts[1]]))}]'"
            return [f"{key} is set, but {parts[1]} is not chosen", f"add {choose}"]
    if len(parts) == 1:
        known = [*groups, *(path for path in known if "." not in path)]
    siblings = [path for path in known if path.startswith(f"{parts[0]}.")]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    notes = [f"did you mean {nearest[0]}?"] if nearest else []
    listed = siblings if len(parts) > 1 and siblings else known
    return [f"{key} is no setting of this configuration", *notes, f"possible here: {', '.join(listed)}"]


def _known_settings(key: str, arguments: list[str]) -> list[str]:
    """The settings that exist when the offending override and all flags are left out."""
    others = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    parsed = OverridesParser.create().parse_overrides([a for a in others if a.partition("=")[0].lstrip("+~") != key])
    simple = [str(o.input_line) for o in parsed if not o.is_sweep_override() and not (o.key_or_group or "").startswith("hydra")]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", simple)
    except (HydraException, OmegaConfBaseException):
        return []
    return [path for path, _ in schema.leaves(schema.container(config)) if "_target_" not in path]
