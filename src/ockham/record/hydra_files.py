"""The files of .hydra, the same for a run alone and in a group. Hydra writes the first, in another form."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import yaml
from omegaconf._utils import OmegaConfDumper

from ockham.core.files import write_atomic
from ockham.record.folder import RunFolder

#: libyaml takes a tenth of the time of Python's emitter; not every build of PyYAML has it.
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    """The text of OmegaConf.to_yaml, without a configuration made of it first: that takes longer than all the rest."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # what members of a group share in memory is written out for each


_Dumper.add_representer(str, OmegaConfDumper.str_representer)
_Dumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_str(value.name))


def yaml_text(content: Any) -> bytes:
    """Plain containers as OmegaConf writes and reads them, in the order of their keys."""
    text: str = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=True)
    return text.encode()


def write_hydra_files(
    folder: RunFolder, *, config: Mapping[str, Any], hydra: Mapping[str, Any], overrides: Sequence[str]
) -> None:
    """Write what was asked for; files that hold it stay as they are, and such as a crash left empty are written again.

    The configuration comes last: where it stands, a crash has left the others too.
    """
    file = folder.config_file
    content = {
        "hydra": {"hydra": {**hydra, "output_subdir": file.parent.name}},
        "overrides": list(overrides),
        "config": config,
    }
    texts = {name: yaml_text(node) for name, node in content.items()}
    if not file.exists() or file.read_bytes() != texts["config"]:
        file.parent.mkdir(exist_ok=True)
        for name, text in texts.items():
            write_atomic(file.with_name(f"{name}.yaml"), text)
