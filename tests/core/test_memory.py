"""The memory that there is, as Linux says it in its files."""

from pathlib import Path

import pytest

from ockham.core.memory import available_bytes

MIB = 2**20


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("line", "folder", "limit", "use", "cached"),
    [
        ("0::/a/b", "sys/fs/cgroup/a", "memory.max", "memory.current", "inactive_file"),
        ("0::/", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("0::/../../elsewhere", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "7:cpu,memory:/a/b",
            "sys/fs/cgroup/memory/a/b",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_the_limit_of_a_control_group_counts(line: str, folder: str, limit: str, use: str, cached: str, tmp_path: Path) -> None:
    write(tmp_path, **{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4096000 kB\n", "proc/self/cgroup": f"3:cpu:/x\n{line}\n"})
    assert available_bytes(tmp_path) == 4096000 * 1024
    files = {limit: str(500 * MIB), use: str(300 * MIB), "memory.stat": f"anon 1\n{cached} {100 * MIB}\n"}
    write(tmp_path / folder, **files)
    assert available_bytes(tmp_path) == 300 * MIB
    write(tmp_path / folder, **{limit: "max" if limit == "memory.max" else str(2**63 - 4096)})
    assert available_bytes(tmp_path) == 4096000 * 1024


def test_this_machine_has_memory() -> None:
    available = available_bytes()
    assert available is not None
    assert available > MIB
