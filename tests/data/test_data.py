"""Data sets, splits and what a model sees, against torchvision, numpy and PIL."""

import gzip
import pickle
import shutil
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets, transforms

from ockham.data import Cifar10, Digits, LabelNoise, Mnist, Mnist1D, Mnist5k, Normalize, Source, Split, divide, pixel_order
from ockham.data.batches import order, steps_per_epoch
from ockham.data.sources import md5
from ockham.data.splits import stratified
from ockham.errors import UserError

# -- what a model sees ---------------------------------------------------------------------------------------------------


def as_torchvision_sees(images: torch.Tensor, normalize: Normalize) -> torch.Tensor:
    pipeline = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalize.mean, normalize.std)])
    pictures = [image.permute(1, 2, 0).squeeze(-1).numpy() for image in images]
    return torch.stack([pipeline(Image.fromarray(picture)) for picture in pictures])


@pytest.mark.parametrize("channels", [1, 3])
def test_input_equals_torchvision_bit_for_bit(channels: int) -> None:
    images = torch.randint(0, 256, (20, channels, 9, 7), dtype=torch.uint8)
    normalize = Normalize.fit(images, images.shape[1:])
    expected = as_torchvision_sees(images, normalize)
    assert torch.equal(normalize(images), expected)
    normalize.for_model(torch.float32, torch.channels_last, torch.device("cpu"))
    assert torch.equal(normalize(images), expected)


def test_real_digits_equal_torchvision_bit_for_bit(mnist_root: Path) -> None:
    source = Mnist(str(mnist_root)).load()
    normalize = Normalize.fit(source.train.images, (1, 28, 28))
    pipeline = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalize.mean, normalize.std)])
    reference = datasets.MNIST(mnist_root, train=False, transform=pipeline)
    expected = torch.stack([reference[index][0] for index in range(200)])
    assert torch.equal(normalize(source.test.images[:200]), expected)
    assert source.test.labels[:200].tolist() == [reference[index][1] for index in range(200)]
    assert (normalize.mean[0], normalize.std[0]) == pytest.approx((0.1307, 0.3081), abs=1e-4)  # the well-known constants


def test_constants_are_those_of_numpy() -> None:
    images = torch.randint(0, 256, (5000, 3, 4, 4), dtype=torch.uint8)
    images[:, 2] = 7  # a channel without variation
    normalize = Normalize.fit(images, images.shape[1:])
    pixels = images.numpy() / 255
    assert normalize.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert normalize.std[:2] == pytest.approx(pixels.std(axis=(0, 2, 3))[:2], rel=1e-9)
    assert normalize.std[2] == 1


def test_numbers_that_are_no_bytes_are_normalised_as_they_are() -> None:
    images = torch.randn(600, 2, 3, 4) * 3 + 1
    before = images.clone()
    normalize = Normalize.fit(images, images.shape[1:])
    expected = (images - images.mean(dim=(0, 2, 3), keepdim=True)) / images.std(dim=(0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(normalize(images), expected)
    assert torch.equal(images, before)


def test_black_is_what_a_black_image_becomes() -> None:
    normalize = Normalize.fit(torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8), (3, 4, 4))
    seen = normalize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(seen, torch.tensor(normalize.black()))


# -- splits and batches --------------------------------------------------------------------------------------------------


def make_source(per_class: tuple[int, ...]) -> Source:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(per_class)])
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).to(torch.uint8)
    test = Split(images[:3], labels[:3])
    return Source(train=Split(images, labels), val=None, test=test, classes=tuple(str(c) for c in range(len(per_class))))


def test_stratified_takes_each_class_in_its_share() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    chosen = stratified(labels, 10, seed=0, purpose="split")
    assert torch.bincount(labels[chosen]).tolist() == [5, 3, 2]
    assert len(chosen.unique()) == 10
    assert len(stratified(labels, 13, seed=0, purpose="split")) == 13  # shares that do not come out even
    assert not torch.equal(chosen, stratified(labels, 10, seed=1, purpose="split"))


def test_divide_parts_train_and_leaves_test_alone() -> None:
    source = make_source((40, 60))
    splits = divide(source, val_samples=20, train_samples=None, seed=3)
    seen = torch.cat([splits.train.images, splits.val.images]).flatten().sort().values
    assert torch.equal(seen, source.train.images.flatten())
    assert torch.bincount(splits.val.labels).tolist() == [8, 12]
    assert torch.equal(splits.test.images, source.test.images)
    fraction = divide(source, val_samples=0.2, train_samples=None, seed=3)
    assert torch.equal(fraction.val.images, splits.val.images)
    subset = divide(source, val_samples=20, train_samples=10, seed=3)
    assert torch.bincount(subset.train.labels).tolist() == [4, 6]
    assert torch.equal(subset.val.images, splits.val.images)


def addresses(source: Source) -> dict[str, int]:
    """Where the images of the source lie in memory."""
    splits = {"train": source.train, "val": source.val, "test": source.test}
    return {name: split.pool.images.data_ptr() for name, split in splits.items() if split is not None}


@pytest.mark.parametrize("fold", [None, (1, 3)])
def test_the_splits_of_all_seeds_share_the_images_in_memory(fold: tuple[int, int] | None) -> None:
    whole = make_source((40, 60))
    parts = Split(whole.train.images.clone(), whole.train.labels)
    with_val = Source(train=whole.train, val=parts[torch.arange(30)], test=whole.test, classes=whole.classes)
    for source in (whole, with_val):
        for seed in range(3):
            splits = divide(source, val_samples=20, train_samples=20, seed=seed, fold=fold)
            assert addresses(Source(splits.train, splits.val, splits.test, splits.classes)) == {
                **addresses(source), "val": addresses(source)["train"]
            }  # fmt: skip
    assert torch.equal(with_val.train.images, whole.train.images)
    assert torch.equal(with_val.val.images, parts.images[:30])


def test_a_device_has_one_copy_for_all_splits() -> None:
    source, device = make_source((40, 60)), torch.device("meta")  # a device that is everywhere
    first, second = (divide(source, val_samples=20, train_samples=None, seed=seed).to(device) for seed in (0, 1))
    assert first.train.pool is second.val.pool
    assert first.train.device == device
    assert source.train.to(torch.device("cpu")).pool is source.train.pool


def test_a_selection_is_taken_in_batches_and_parts_as_its_images_are() -> None:
    split = make_source((40, 60)).train
    index = torch.randperm(100)[:50]
    for chosen, images in ((split, split.images), (split[index], split.images[index])):
        assert torch.equal(chosen.images, images)
        assert torch.equal(torch.cat(list(chosen.split(7))), images)
        places = torch.tensor([3, 0, 3])
        for actual, expected in zip(chosen.batch(places), (images[places], chosen.labels[places]), strict=True):
            assert torch.equal(actual, expected)
        assert torch.equal(chosen.probe(10).images, images[:: len(images) // 10])
        assert torch.equal(chosen[chosen.labels == 1].images, images[chosen.labels == 1])
        fitted, expected_fit = Normalize.fit(chosen, (1,)), Normalize.fit(images, (1,))
        assert (fitted.mean, fitted.std) == (expected_fit.mean, expected_fit.std)


@pytest.mark.parametrize(("setting", "value"), [("val_samples", 99), ("val_samples", 1), ("train_samples", 81)])
def test_divide_names_what_is_out_of_range(setting: str, value: int) -> None:
    arguments = {"val_samples": 20, "train_samples": None, setting: value}
    with pytest.raises(ValueError, match=f"data.{setting}={value}"):
        divide(make_source((40, 60)), **arguments, seed=0)


def test_pixels_in_another_order_keep_splits_labels_and_colours() -> None:
    images = torch.randint(0, 256, (30, 3, 4, 5), dtype=torch.uint8)
    labels = torch.arange(30) % 3
    train, val, test = (Split(images[a:b], labels[a:b]) for a, b in ((0, 20), (20, 25), (25, 30)))
    source = Source(train=train, val=val, test=test, classes=tuple("abc"))
    order = pixel_order((3, 4, 5))
    assert order.sort().values.tolist() == list(range(20))
    assert order.tolist() != list(range(20))
    shuffled = source.with_pixels_in_order(order)
    assert shuffled.val is not None
    assert source.val is not None
    for one, other in ((source.train, shuffled.train), (source.val, shuffled.val), (source.test, shuffled.test)):
        assert torch.equal(other.labels, one.labels)
        assert torch.equal(other.images.flatten(2), one.images.flatten(2)[:, :, order])
    assert shuffled.train.pool is shuffled.val.pool


def noisy_labels(noise: LabelNoise, *, seed: int = 0, train_samples: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(the labels of training samples, those with noise), of 20,000 or of a subset."""
    source = make_source((8_000, 8_000, 4_000))
    splits = divide(source, val_samples=200, train_samples=train_samples, seed=0)
    noisy = noise.applied(splits, seed=seed)
    assert torch.equal(noisy.test.labels, splits.test.labels)
    assert torch.equal(noisy.val.labels, splits.val.labels) != noise.on_val
    return splits.train.labels, noisy.train.labels


def test_symmetric_noise_takes_every_other_class_alike() -> None:
    clean, noisy = noisy_labels(LabelNoise(0.3))
    changed = (clean != noisy).double()
    assert float(changed.mean()) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)
    moves = torch.bincount(clean * 3 + noisy, minlength=9).view(3, 3).double()
    shares = moves / moves.sum(dim=1, keepdim=True)
    torch.testing.assert_close(shares, torch.full((3, 3), 0.15).double().fill_diagonal_(0.7), atol=0.03, rtol=0)


def test_pair_noise_takes_the_next_class_and_permuted_labels_keep_their_numbers() -> None:
    clean, noisy = noisy_labels(LabelNoise(0.3, "pair", on_val=True))
    changed = clean != noisy
    assert torch.equal(noisy[changed], (clean[changed] + 1) % 3)
    clean, noisy = noisy_labels(LabelNoise(1.0, "permute"))
    assert torch.bincount(clean).tolist() == torch.bincount(noisy).tolist()
    agreement = float((clean == noisy).double().mean())
    assert agreement == pytest.approx(0.4**2 + 0.4**2 + 0.2**2, abs=0.02)  # that of independent draws


@pytest.mark.parametrize("kind", ["symmetric", "pair", "permute"])
def test_noise_is_a_function_of_seed_and_sample(kind: str) -> None:
    clean, low = noisy_labels(LabelNoise(0.2, kind))
    assert torch.equal(low, noisy_labels(LabelNoise(0.2, kind))[1])
    assert not torch.equal(low, noisy_labels(LabelNoise(0.2, kind), seed=1)[1])
    assert torch.equal(clean, noisy_labels(LabelNoise(0.0, kind))[1])
    if kind != "permute":  # whose samples exchange labels within their split
        high = noisy_labels(LabelNoise(0.5, kind))[1]
        assert torch.equal(high[low != clean], low[low != clean])
        splits = divide(make_source((8_000, 8_000, 4_000)), val_samples=200, train_samples=None, seed=0)
        half = splits.train[torch.arange(0, len(splits.train), 2)]
        assert torch.equal(LabelNoise(0.2, kind).labels(half, num_classes=3, seed=0), low[::2])


def test_a_relabelled_split_gives_its_labels_whatever_is_taken_of_it() -> None:
    split = make_source((40, 60)).train
    labels = torch.arange(100) % 7
    other = split.relabelled(labels)
    index = torch.tensor([90, 3, 50])
    assert torch.equal(other[index].labels, labels[index])
    assert torch.equal(other[index].batch(torch.tensor([2, 0]))[1], labels[index][[2, 0]])
    assert torch.equal(other[index].images, split.images[index])
    assert torch.equal(other.joined(split).labels, torch.cat([labels, split.labels]))
    assert other.pool is split.pool
    assert other.to(torch.device("meta")).labels.device.type == "meta"


def test_order_visits_every_sample_once_and_differs_between_epochs() -> None:
    first, second = (order(100, seed=0, epoch=epoch, shuffle=True) for epoch in (0, 1))
    assert torch.equal(first.sort().values, torch.arange(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, order(100, seed=0, epoch=0, shuffle=True))
    assert torch.equal(order(100, seed=0, epoch=5, shuffle=False), torch.arange(100))
    assert [steps_per_epoch(100, size) for size in (100, 50, 33, 200)] == [1, 2, 4, 1]


# -- sources -------------------------------------------------------------------------------------------------------------


def test_mnist5k_is_stratified_and_disjoint() -> None:
    source = Mnist5k().load()
    assert source.val is not None
    for split, count in ((source.train, 350), (source.val, 50), (source.test, 100)):
        assert torch.bincount(split.labels).tolist() == [count] * 10
    images = torch.cat([source.train.images, source.val.images, source.test.images])
    assert images.shape == (5000, 1, 28, 28)
    assert len(images.flatten(1).unique(dim=0)) == 5000


def test_mnist1d_is_the_published_set() -> None:
    """mnist1d_published.npz holds numbers of mnist1d_data.pkl of github.com/greydanus/mnist1d."""
    with np.load(Path(__file__).with_name("mnist1d_published.npz")) as file:
        published = dict(file)
    source = Mnist1D().load()
    train, test = (split.images[:, 0, 0].numpy() for split in (source.train, source.test))
    np.testing.assert_allclose(train[:20], published["x"], atol=1e-6)
    np.testing.assert_allclose(test[-20:], published["x_test"], atol=1e-6)
    assert source.train.labels.tolist() == published["y"].tolist()
    assert source.test.labels.tolist() == published["y_test"].tolist()
    whole = np.concatenate([train, test]).astype(np.float64)
    np.testing.assert_allclose([whole.mean(0), whole.std(0)], published["moments"], atol=1e-6)


def test_mnist1d_comes_in_other_sizes() -> None:
    source = Mnist1D(205, train_split=0.5).load()
    assert (len(source.train), len(source.test), source.train.image_shape) == (100, 100, (1, 1, 40))
    assert torch.bincount(torch.cat([source.train.labels, source.test.labels])).tolist() == [20] * 10
    with pytest.raises(ValueError, match="data.num_samples=30 with data.train_split=0.9 leaves 27"):
        Mnist1D(30, train_split=0.9).load()


def test_digits_are_scikit_learns_in_two_parts() -> None:
    source, reference = Digits().load(), load_digits()
    known = {image.astype(np.uint8).tobytes(): label for image, label in zip(reference.images, reference.target, strict=True)}
    images = [(split.images // 15)[:, 0].numpy() for split in (source.train, source.test)]
    seen = {image.tobytes(): int(label) for part, split in zip(images, (source.train, source.test), strict=True)
            for image, label in zip(part, split.labels, strict=True)}  # fmt: skip
    assert len(source.train) + len(source.test) == len(reference.images)
    assert seen == known
    assert int((source.train.images % 15).max()) == 0
    assert torch.bincount(source.test.labels).min() >= 35


def test_mnist5k_images_are_official_training_images(mnist_root: Path) -> None:
    official = datasets.MNIST(mnist_root, train=True)
    known = {image.numpy().tobytes(): int(label) for image, label in zip(official.data, official.targets, strict=True)}
    source = Mnist5k().load()
    for image, label in zip(source.test.images, source.test.labels, strict=True):
        assert known[image.numpy().tobytes()] == int(label)


def test_damage_to_the_shipped_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(Mnist5k.FILE) as file:
        images, labels = file["images"].copy(), file["labels"]
    images[0, 0, 0] ^= 1
    np.savez_compressed(tmp_path / "mnist5k.npz", images=images, labels=labels)
    monkeypatch.setattr(Mnist5k, "FILE", tmp_path / "mnist5k.npz")
    with pytest.raises(ValueError, match=f"mnist5k.npz is corrupt: sha256 .*expected {Mnist5k.SHA256}"):
        Mnist5k().load()
    (tmp_path / "mnist5k.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="mnist5k.npz cannot be read"):
        Mnist5k().load()


def test_official_mnist_keeps_its_test_set_whole(mnist_root: Path) -> None:
    splits = divide(Mnist(str(mnist_root)).load(), val_samples=5000, train_samples=None, seed=0)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [55_000, 5_000, 10_000]
    assert torch.equal(splits.test.images.squeeze(1), datasets.MNIST(mnist_root, train=False).data)


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_file_is_named_with_both_checksums(mnist_root: Path, tmp_path: Path, *, cut: bool) -> None:
    shutil.copytree(mnist_root, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.chmod(0o644)
    file.write_bytes(content[:5000] if cut else content)
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte is corrupt") as caught:
        Mnist(str(tmp_path)).load()
    assert md5(file) in str(caught.value)
    assert Mnist.MD5["t10k-labels-idx1-ubyte"] in str(caught.value)


def test_an_absent_set_without_network_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    started = time.monotonic()
    with pytest.raises(ValueError, match="CIFAR10 is not in .*cannot be downloaded") as caught:
        Cifar10(str(tmp_path / "absent")).load()
    assert time.monotonic() - started < 20
    assert str(tmp_path / "absent") in str(caught.value)
    assert "data=mnist5k" in str(caught.value)
    assert f"bring cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz into {tmp_path / 'absent'}" in str(caught.value)
    assert not (tmp_path / "absent").exists()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_a_server_that_sends_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    ended = threading.Event()

    class Silent(QuietHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def do_GET(self) -> None:
            asked.set()
            ended.wait(60)

    monkeypatch.setattr("ockham.data.sources.NETWORK_SECONDS", 0.5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = socket.getdefaulttimeout()
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        try:
            with pytest.raises(UserError, match="MNIST could not be downloaded"):
                Mnist(str(tmp_path)).load()
        finally:
            ended.set()
            server.shutdown()
    assert asked.is_set()
    assert socket.getdefaulttimeout() == before
    assert not (tmp_path / "MNIST").exists()


def test_a_download_is_checked_and_moved_into_place(mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for name in Mnist.SIZES:
        archive = served / f"{name}.gz"
        archive.write_bytes(gzip.compress((mnist_root / "MNIST" / "raw" / name).read_bytes(), 1))
        resources.append((archive.name, md5(archive)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        source = Mnist(str(tmp_path / "root")).load()
    finally:
        server.shutdown()
        server.server_close()
    assert len(source.train) == 60_000
    left = sorted(path.name for path in (tmp_path / "root").iterdir())
    assert left in ([".MNIST.lock", "MNIST"], ["MNIST"])


def test_cifar_is_read_as_torchvision_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, folder = np.random.default_rng(0), tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict[str, object]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5(folder / name)]

    def batch() -> dict[str, object]:
        return {"data": drawn.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [write(f"data_batch_{number}", batch()) for number in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", batch())])
    name, digest = write("batches.meta", {"label_names": [f"class {number}" for number in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    source = Cifar10(str(tmp_path)).load()
    reference = datasets.CIFAR10(tmp_path, train=True, transform=transforms.ToTensor())
    assert source.train.images.shape == (50, 3, 32, 32)
    assert source.classes == tuple(f"class {number}" for number in range(10))
    for index in (0, 17, 49):
        image, label = reference[index]
        assert torch.equal(source.train.images[index].float() / 255, image)
        assert int(source.train.labels[index]) == label
    (folder / "test_batch").write_bytes(b"cut")
    with pytest.raises(ValueError, match="test_batch is corrupt or truncated: md5 "):
        Cifar10(str(tmp_path)).load()
