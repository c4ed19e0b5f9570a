"""A run on several devices: one process each, which end together, and with the one that started them."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.multiprocessing
from torch.multiprocessing import ProcessContext

from ockham.core.log_file import LogFile
from ockham.errors import UserError
from ockham.record.folder import RunFolder
from ockham.record.ledger import LOG_FORMAT, RunSpec
from ockham.sweep.executors import end_with_parent

#: So long processes that are told to end may take to do so.
SECONDS_TO_END = 10.0


def on_devices(train: Callable[..., None], spec: RunSpec, pictures: bool, *, number: int) -> None:
    """Call train(spec, pictures, rank=...) in `number` processes, each told its place by the variables of torchrun.

    Raises UserError where one of them meets a mistake of the user, and KeyboardInterrupt where this process is told to end.
    Spawned, since a process that has used CUDA cannot be forked.
    """
    mistakes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (train, spec, pictures, number, _free_port(), mistakes)
    with _sigterm_interrupts():
        context = torch.multiprocessing.start_processes(_work, arguments, nprocs=number, join=False, start_method="spawn")
        assert context is not None
        try:
            while not context.join(timeout=1.0):
                pass
        except torch.multiprocessing.ProcessRaisedException as error:
            if not mistakes.empty():
                raise UserError(mistakes.get()) from error
            raise
        finally:
            _end(context)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Inside the block SIGTERM is what Ctrl-C is, so that the processes are ended and the run writes its state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(context: ProcessContext) -> None:
    for process in context.processes:
        if process.is_alive():
            process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for process in context.processes:
        process.join(max(deadline - time.monotonic(), 0.0))
        if process.is_alive():
            process.kill()
            process.join()


def _work(rank: int, train: Callable[..., None], spec: RunSpec, pictures: bool, number: int, port: int, mistakes: Any) -> None:
    """One process of several, on device `rank`."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "ockham"}
    os.environ.update({key: str(value) for key, value in {**place, **address}.items()})
    torch.set_num_threads(max(torch.get_num_threads() // number, 1))
    _log(spec.folder, rank)
    try:
        train(spec, pictures, rank=rank)
    except UserError as error:
        mistakes.put(str(error))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _log(folder: RunFolder, rank: int) -> None:
    """Logging as Hydra set it up in the parent, from rank 0 alone."""
    if rank:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        return
    file = LogFile(folder.log_file)
    file.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stdout)])
    logging.getLogger().addHandler(file)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
