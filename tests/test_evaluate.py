"""What `ockham evaluate` says beside its results; those are in tests/scripts, and of a sweep in tests/test_wheel.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from ockham import evaluate
from ockham.data import Mnist5k
from ockham.record.folder import RunFolder


def test_pictures_that_are_inverted_are_warned_of_and_classified(
    small_run: Callable[..., RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_run("trainer.max_epochs=1", "note='on paper'")
    images = Mnist5k().load().test.images[:5, 0].numpy()
    for kind, pixels in (("dark", images), ("light", 255 - images)):
        (tmp_path / kind).mkdir()
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(tmp_path / kind / f"{number}.png")
    capsys.readouterr()
    evaluate.main([str(folder.path), "--images", str(tmp_path / "dark")], program="ockham evaluate")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("note on paper\n")
    evaluate.main([str(folder.path), "--images", str(tmp_path / "light")], program="ockham evaluate")
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: 5 of 5 images look inverted: their mean brightness is 0.8")
    assert len(printed.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("trained_on", "brightness", "warned"),
    [
        ([0.13], [0.9, 0.85, 0.1], True),
        ([0.13], [0.9, 0.1, 0.2], False),  # most are as they should be
        ([0.88], [0.1, 0.2], True),
        ([0.47, 0.45, 0.41], [0.9, 0.8], False),  # photographs may be bright
        ([0.5 + 1e3], [0.1], False),  # numbers that are no brightness
    ],
)
def test_only_images_with_a_background_are_judged(trained_on: list[float], brightness: list[float], warned: bool) -> None:
    images = (torch.tensor(brightness) * 255).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, len(trained_on), 4, 4)
    assert (evaluate.inversion_warning(images, trained_on) is not None) is warned


def test_a_sweep_without_a_result_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.json").write_text('{"jobs": [{"number": 0}]}')
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(tmp_path)], program="ockham evaluate")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path} holds no finished run yet\n"
