"""The command line around Hydra: one clear screen for every mistake, and resume=<run folder>. No torch here.

Exit codes: 0 finished, 1 failed, 2 a mistake in the command, 3 diverged, 130 interrupted.
"""

import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ockham import schema
from ockham.command.arguments import check_arguments, unused_words
from ockham.command.explain import composition_error
from ockham.command.options import groups, options
from ockham.command.surroundings import OF_MACHINE, check_folder, check_surroundings
from ockham.errors import UserError
from ockham.identity import computed, run_key
from ockham.record.folder import RunFolder
from ockham.record.resume import check_resumable, continued_config, is_readable, read_config, run_folder
from ockham.record.screen import error_screen, program
from ockham.sweep import SweepFailedError
from ockham.sweep.axes import listed_twice
from ockham.sweep.executors import ENDING_SIGNALS

HELP = """\
Ockham trains one classifier, or sweeps over any setting, and leaves a complete run folder behind.

  $PROGRAM optimizer=adam reg=l2            one run
  $PROGRAM 'reg=[l2,dropout]' model.hidden=[512,256] optimizer.lr=3e-4
  $PROGRAM -m optimizer=sgd,adam seed=0,1,2 one run for each combination
  $PROGRAM resume=outputs/runs/<run>        continue a run
  $PROGRAM report outputs/sweeps/<name>     the page of a sweep once more, comparisons, tables
  $PROGRAM evaluate outputs/runs/<run>      the test results of a run, or the classes of images
  $PROGRAM export outputs/sweeps/<name> --to mlflow   into another tracker; or wandb

Groups (choose with group=option; a list for reg):
$GROUPS

Settings (change with group.key=value):
  seed=0                          everything random follows from it
  objective=val/acc               what selects the epoch, or val/loss
  data.root=<folder>              where the data set lies, or goes
  data.batch_size=128             samples per step, or full
  model.hidden=[256,256]          and the other keys of conf/model/*.yaml
  optimizer.lr=0.01               and the other keys of conf/optimizer/*.yaml
  reg.l2.strength=1e-3            a regularizer's settings stand under its name
  trainer.max_epochs=30           or trainer.max_steps
  hydra.run.dir=<folder>          where the run goes
  target='val/acc>=0.95'          when a run first gets there; stop_at_target=true ends it there
  note="..."                      a remark, for tables and the page

Sweeps (with -m; any setting may be a list a,b,c):
  seeds=5  cv=5                   each configuration under every seed, on every fold
  search=tpe search.trials=64     instead of a grid; random, qmc, tpe, gp or cmaes
  compare=optimizer confirm=10    each tuned with the same budget, then compared under new seeds
  prune=asha                      end runs that fall behind; asha or median
  sweep=<name>                    outputs/sweeps/<name>; the same command again continues it
  dry_run=true                    print the jobs and stop

Look at runs:  tensorboard --logdir outputs/runs, or of a sweep outputs/sweeps/<name>/tensorboard
--config-dir <folder>           options of your own: <folder>/<group>/<option>.yaml
--cfg job, --hydra-help         print the configuration and stop; the flags of Hydra
"""

FAILED, MISTAKE, DIVERGED, INTERRUPTED = 1, 2, 3, 130


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run Hydra's main and leave with the exit code of what happened; a mistake is shown on one screen."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    _interrupt_on_signals()
    _threads_end_quietly()
    arguments = [_with_quoted_text(word) for word in sys.argv[1:]]
    if {"-h", "--help"} & set(arguments):
        print(HELP.replace("$GROUPS", _groups()).replace("$PROGRAM", program()))
        sys.exit(0)
    try:
        resumed = _with_resume(arguments)
        multirun = bool({"-m", "--multirun"} & set(resumed))
        check_arguments(arguments, multirun=multirun)
        for warning in unused_words(arguments):
            print(f"warning: {warning}", file=sys.stderr)
        sys.argv[1:] = _flags_first(_with_sweep_folder(resumed) if multirun else resumed)
        main()
    except (HydraException, OmegaConfBaseException) as error:
        _leave(MISTAKE, composition_error(error, arguments))
    except UserError as error:
        _leave(MISTAKE, str(error))
    except SweepFailedError as error:
        _leave(FAILED, str(error))
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "interrupted; the same command, or resume=<the folder>, continues")
    except Exception as error:
        _leave_with_fault(error)
    sys.exit(0)


def _interrupt_on_signals() -> None:
    """What else ends a program ends it as Ctrl-C does: jobs write their state. A signal that is ignored (nohup) stays so."""
    for name in ENDING_SIGNALS:
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(getattr(signal, name), signal.default_int_handler)


def _with_quoted_text(word: str) -> str:
    """note=<text> and target=<text> with the text in quotes: what a person, or a target, says is never Hydra's syntax."""
    key, _, text = word.partition("=")
    if key not in ("note", "target") or text in ("", "null") or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return word
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Flags with their values before the overrides: argparse, in Hydra, takes no override after a flag that follows one."""
    overrides = [word for word in arguments if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    return [*(word for word in arguments if word not in overrides), *overrides]


def _groups() -> str:
    """A line for each group with its options."""
    return "\n".join(f"  {group}: {', '.join(options(group))}" for group in groups())


def execute(task_function: Callable[[DictConfig], float], config: DictConfig) -> float:
    """The objective of one job. Where it is the only one, an error or a divergence ends the program; a sweep goes on."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return task_function(config)
    try:
        objective = task_function(config)
    except UserError as error:
        _leave(MISTAKE, str(error))
    except Exception as error:  # here, since Hydra would print a line of its own
        _leave_with_fault(error)
    if math.isnan(objective):
        sys.exit(DIVERGED)
    return objective


class CheckCallback(Callback):
    """Checks a run before Hydra writes anything into its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        run_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        overrides = config.hydra.overrides.task
        try:
            folder = RunFolder(config.hydra.run.dir)
            check_folder("hydra.run.dir", folder.path)
            folder.check_no_links()
            if config.resume is not None:
                run_config = continued_config(folder, overrides, trust=config.trust)
            else:
                check_resumable(folder)
                _check_no_sweep(run_config)
                if folder.has_begun:
                    _check_same(folder, run_config)
            content = schema.container(run_config)
            schema.check(content)
            check_surroundings(content, overrides)
            if is_readable(folder):
                # A run that continues keeps its files: Hydra would write them again, and a kill meanwhile leave them empty.
                with open_dict(config):
                    config.hydra.output_subdir = None
        except UserError as error:
            # Hydra turns what a callback raises into a warning, but lets an exit pass.
            _leave(MISTAKE, str(error))
        except OSError as error:
            _leave_with_fault(error)


def _check_no_sweep(config: DictConfig) -> None:
    """Raises UserError where an experiment is a sweep, and the command a single run of nothing in particular."""
    for key in ("seeds", "grids"):
        if config[key] is not None:
            raise UserError(f"the experiment sets {key}, which is for sweeps: add -m, or {key}=null for a single run")


def _with_resume(arguments: list[str]) -> list[str]:
    """With resume=<folder>, Hydra shall run in that folder and leave the stored configuration as it is.

    Raises UserError where the folder holds nothing to continue.
    """
    paths = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not paths or paths[-1] in ("", "null"):
        return arguments
    path = Path(paths[-1].strip("'\""))
    if os.path.exists(path / "sweep.json"):  # which takes a name that no file can have for one that is not there
        from ockham.sweep.folder import SweepFolder  # late, as --help and mistakes do without it

        others = [argument for argument in arguments if not argument.startswith("resume=")]
        return ["-m", *SweepFolder(path).arguments(), *others, f"hydra.sweep.dir='{path.resolve()}'"]
    if {"-m", "--multirun"} & set(arguments):
        raise UserError(f"resume={path} continues a single run: leave -m out")
    folder = run_folder(str(path))
    return [*arguments, f"hydra.run.dir='{folder.path.resolve()}'", "hydra.output_subdir=null"]


def _with_sweep_folder(arguments: list[str]) -> list[str]:
    """A sweep with a name lies in a folder of that name. Raises UserError for a folder that cannot be made."""
    settings = dict(argument.split("=", 1) for argument in arguments if "=" in argument and not argument.startswith("-"))
    if settings.get("hydra/sweeper", "ockham") == "ockham":  # others would run the jobs twice
        arguments = [_for_jobs_only(argument) for argument in arguments]
    if "hydra.sweep.dir" in settings:
        check_folder("hydra.sweep.dir", Path(settings["hydra.sweep.dir"].strip("'\"")))
    elif settings.get("sweep", "null") != "null":
        return [*arguments, f"hydra.sweep.dir=outputs/sweeps/{settings['sweep']}"]
    return arguments


def _for_jobs_only(argument: str) -> str:
    """A plain setting as a sweep that lists its value twice, which the sweeper takes for the plain setting.

    Hydra composes the sweep as a whole too, before the sweeper is asked: with all plain settings, of which one that only exists
    for some of the swept choices (reg.l2.strength with reg=none,l2) would be an error, and without those that are swept.
    """
    key = argument.partition("=")[0]
    if "." not in key or key.startswith(("-", "+", "~", "hydra.")) or key.partition(".")[0] in schema.SWEEP_SETTINGS:
        return argument
    parsed = OverridesParser.create().parse_override(argument)
    return argument if parsed.is_sweep_override() else listed_twice(argument)


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


#: A word of a mistake that is longer is cut: a value may be of any length.
LONGEST_WORD = 200


def _leave(code: int, message: str, *notes: str) -> NoReturn:
    first, *others = [re.sub(rf"(\S{{{LONGEST_WORD}}})\S+", r"\1...", line) for line in (*message.splitlines(), *notes)]
    print(error_screen(first, notes=[line.removeprefix("  ") for line in others]), file=sys.stderr)
    sys.exit(code)


def _is_of_run_folder(error: FileNotFoundError) -> bool:
    """Whether what is missing lay in the folder that Hydra made for this command."""
    if error.filename is None or not HydraConfig.initialized():
        return False
    return Path(os.fsdecode(error.filename)).is_relative_to(HydraConfig.get().runtime.output_dir)


def _threads_end_quietly() -> None:
    """TensorBoard writes in a thread, and raises in the run what the disk refuses: it need not be printed there too."""

    def fault(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, OSError):
            threading.__excepthook__(arguments)

    threading.excepthook = fault


def _leave_with_fault(error: Exception) -> NoReturn:
    """The last line of what went wrong by itself; the traceback is in the log of the run, or comes before where there is none.

    What the machine lacks needs no traceback: it is mended outside the program.
    """
    last_line = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
    notes = list(getattr(error, "__notes__", []))
    if isinstance(error, OSError) and error.errno in OF_MACHINE:
        notes.append("what was written is kept; with room to write the same command, or resume=<the folder>, continues")
    elif isinstance(error, FileNotFoundError) and _is_of_run_folder(error):
        notes.append("the folder was removed or moved while a run was at work in it; the same command begins or continues it")
    elif not notes:
        traceback.print_exception(error)
    _leave(FAILED, last_line, *notes)
