"""Executing runs: one in this process, one on several devices, or a group in one program; each in its run folder."""

from ockham.execute.devices import on_devices
from ockham.execute.drawing import draw, save_pictures
from ockham.execute.group import execute_group
from ockham.execute.single import execute, task_function
from ockham.record.ledger import RunSpec

__all__ = ["RunSpec", "draw", "execute", "execute_group", "on_devices", "save_pictures", "task_function"]
