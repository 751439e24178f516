"""Images in folders: what is read, what is cached, what is refused."""

import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.task import Part, Task
from nasplat.tasks.image_folder import image_folder
from nasplat.training.trainer import Trainer


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(number: int, shape: tuple[int, ...] = (6, 8, 3)) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def tree(root: Path, *, shape: tuple[int, ...] = (6, 8, 3), per_class: int = 5) -> Path:
    """``train`` and ``test`` with the classes ant, bee and cat as PNG."""
    for part, offset in (("train", 0), ("test", 1000)):
        for label, name in enumerate(("cat", "ant", "bee")):
            for number in range(per_class):
                write(root / part / name / f"{number}.png", picture(offset + 100 * label + number, shape))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "pictures")


# What is read -------------------------------------------------------------------------------------------------


def test_images_and_classes(root: Path) -> None:
    task = image_folder(str(root))
    assert task.name == f"image-folder:{root}"
    assert task.classes == ("ant", "bee", "cat")
    assert task.outputs == 3
    assert task.input_shape == (3, 6, 8)
    search, test = task.data(Part.SEARCH), task.data(Part.TEST)
    assert search.inputs.dtype == torch.uint8
    assert search.targets.tolist() == test.targets.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    for data, offset in ((search, 0), (test, 1000)):
        for row, (label, number) in enumerate((label, number) for label in (1, 2, 0) for number in range(5)):
            expected = picture(offset + 100 * label + number).transpose(2, 0, 1)
            assert (data.inputs[row].numpy() == expected).all()


def test_by_name(root: Path) -> None:
    task = registry.create("task", f"image-folder:{root}")
    assert isinstance(task, Task)
    assert len(task.data(Part.TRAIN)) == 12


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    task = image_folder(str(tree(tmp_path / "grey", shape=(8, 8))))
    assert task.input_shape == (1, 8, 8)
    assert (task.data(Part.SEARCH).inputs[0, 0].numpy() == picture(100, (8, 8))).all()
    assert task.data(Part.TEST).inputs.shape == (15, 1, 8, 8)


def test_grey_images_among_coloured_ones_get_three_channels(root: Path) -> None:
    write(root / "train" / "ant" / "0.png", picture(7, (6, 8)))
    task = image_folder(str(root))
    assert task.input_shape == (3, 6, 8)
    assert (task.data(Part.SEARCH).inputs[0].numpy() == picture(7, (6, 8))).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_all_kinds_of_pixels(root: Path, mode: str) -> None:
    image = Image.fromarray(np.full((6, 8, 3), 255, dtype=np.uint8)).convert(mode)
    image.save(root / "train" / "ant" / "0.tiff")
    (root / "train" / "ant" / "0.png").unlink()
    inputs = image_folder(str(root)).data(Part.SEARCH).inputs
    assert (inputs[0] == 255).all()


def test_a_palette_with_transparency(root: Path) -> None:
    image = Image.fromarray(picture(1)).convert("P")
    image.save(root / "train" / "ant" / "0.png", transparency=bytes(range(256)))
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert (image_folder(str(root)).data(Part.SEARCH).inputs[0].numpy() == expected).all()


def test_turned_photographs_are_put_upright(tmp_path: Path) -> None:
    root = tree(tmp_path / "square", shape=(8, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(picture(1, (8, 8, 3))).save(root / "train" / "ant" / "0.png", exif=exif)
    expected = np.rot90(picture(1, (8, 8, 3)), k=-1).transpose(2, 0, 1)
    assert (image_folder(str(root)).data(Part.SEARCH).inputs[0].numpy() == expected).all()


def test_other_files_hidden_folders_and_subfolders(root: Path) -> None:
    (root / "train" / "ant" / "Thumbs.db").write_text("not an image")
    (root / "train" / "notes.txt").write_text("not a class")
    (root / "train" / ".cache").mkdir()
    write(root / "train" / "ant" / "more" / "x.PNG", picture(5))
    task = image_folder(str(root))
    assert task.classes == ("ant", "bee", "cat")
    assert task.data(Part.SEARCH).targets.bincount().tolist() == [6, 5, 5]


def test_the_recipe_suits_the_size(root: Path, tmp_path: Path) -> None:
    assert image_folder(str(tree(tmp_path / "a", shape=(32, 32, 3)))).recipe.crop == 4
    assert image_folder(str(root)).recipe.crop == 1


# Sizes --------------------------------------------------------------------------------------------------------


def test_images_of_several_sizes(root: Path) -> None:
    write(root / "train" / "bee" / "3.png", picture(1, (5, 9, 3)))
    message = r"image .*train/bee/3\.png has 9×5 pixels, expected 8×6 like the others; image-folder:PATH@6 brings all"
    with pytest.raises(InvalidInputError, match=message):
        image_folder(str(root))
    task = image_folder(f"{root}@4")
    assert task.input_shape == (3, 4, 4)
    assert task.data(Part.TEST).inputs.shape == (15, 3, 4, 4)


def test_test_images_of_another_size(root: Path) -> None:
    write(root / "test" / "bee" / "3.png", picture(1, (5, 9, 3)))
    task = image_folder(str(root))
    with pytest.raises(InvalidInputError, match=r"test/bee/3\.png has 9×5 pixels, expected 8×6"):
        task.data(Part.TEST)


def test_scaling_cuts_around_the_centre(tmp_path: Path) -> None:
    root = tree(tmp_path / "wide", shape=(10, 30, 3))
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    write(root / "train" / "ant" / "0.png", wide)
    scaled = image_folder(f"{root}@5").data(Part.SEARCH).inputs[0]
    assert (scaled[:, :, 2] == 200).all()
    assert (scaled > 150).all()


def test_large_jpegs_are_scaled(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", shape=(8, 8, 3))
    ramp = np.broadcast_to(np.linspace(0, 255, 800).astype(np.uint8)[:, None, None], (800, 800, 3))
    Image.fromarray(ramp).save(root / "train" / "ant" / "0.jpg")
    (root / "train" / "ant" / "0.png").unlink()
    scaled = image_folder(f"{root}@8").data(Part.SEARCH).inputs[0].float()
    expected = (torch.arange(8) + 0.5) * 255 / 8
    assert (scaled - expected[:, None]).abs().max() < 4


def test_a_folder_with_an_at_in_its_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures@2")
    assert image_folder(str(root)).input_shape == (3, 6, 8)
    assert image_folder(f"{root}@4").input_shape == (3, 4, 4)


def test_a_side_of_nothing(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected a side of 1 pixel or more after the @"):
        image_folder(f"{root}@0")


# The cache ----------------------------------------------------------------------------------------------------


def test_the_second_start_reads_no_image(root: Path, cache: Path) -> None:
    first = image_folder(str(root))
    kept = [path.stat().st_mtime_ns for path in cache.rglob("*.npy")]
    assert len(kept) == 1
    for image in (root / "train").rglob("*.png"):  # the same size and time, other bytes: only the cache can know
        stat = image.stat()
        image.write_bytes(bytes(stat.st_size))
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = image_folder(str(root))
    assert torch.equal(first.data(Part.SEARCH).inputs, second.data(Part.SEARCH).inputs)
    assert first.fingerprint(Part.TRAIN) == second.fingerprint(Part.TRAIN)
    assert [path.stat().st_mtime_ns for path in cache.rglob("*.npy")] == kept


@pytest.mark.parametrize("change", ["content", "new", "gone", "renamed"])
def test_changed_folders_are_read_again(root: Path, change: str) -> None:
    before = image_folder(str(root))
    folder = root / "train" / "bee"
    if change == "content":
        write(folder / "2.png", picture(999))
    elif change == "new":
        write(folder / "22.png", picture(999))
    elif change == "gone":
        (folder / "2.png").unlink()
    else:
        (folder / "2.png").rename(folder / "9.png")
    after = image_folder(str(root))
    assert before.fingerprint(Part.TRAIN) != after.fingerprint(Part.TRAIN)


def test_the_same_images_elsewhere_have_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    other = tree(tmp_path / "elsewhere")
    tasks = [image_folder(str(root)), image_folder(str(other)), image_folder(f"{root}@8")]
    prints = [task.fingerprint(Part.TRAIN) for task in tasks]
    assert prints[0] == prints[1] != prints[2]


def test_one_may_write_to_what_came_from_the_cache(root: Path) -> None:
    inputs = image_folder(str(root)).data(Part.SEARCH).inputs
    before = inputs.clone()
    inputs.zero_()
    assert torch.equal(image_folder(str(root)).data(Part.SEARCH).inputs, before)


def test_test_images_are_not_even_listed_before_the_test(root: Path, cache: Path) -> None:
    for image in (root / "test" / "ant").iterdir():
        image.write_bytes(b"broken")
    (root / "test" / "unknown").mkdir()
    task = image_folder(str(root))
    assert task.has_test
    for part in (Part.TRAIN, Part.VALID, Part.SEARCH):
        task.fingerprint(part)
    assert len(list(cache.rglob("*.npy"))) == 1
    with pytest.raises(InvalidInputError, match="unknown: this class folder has no images"):
        task.data(Part.TEST)


def test_without_test_images(root: Path) -> None:
    (root / "test").rename(root / "elsewhere")
    task = image_folder(str(root))
    assert not task.has_test
    with pytest.raises(InvalidInputError, match="has no test data"):
        task.data(Part.TEST)


# Refusals -----------------------------------------------------------------------------------------------------


def test_no_such_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", f"{tmp_path / 'nowhere'}@32"):
        with pytest.raises(InvalidInputError, match="nowhere: there is no such folder"):
            image_folder(str(path))
    with pytest.raises(InvalidInputError, match="'image-folder' needs an argument: image-folder:PATH"):
        registry.create("task", "image-folder")


def test_no_train_folder(root: Path, tmp_path: Path) -> None:
    (root / "train").rename(root / "training")
    message = "expected a folder train/ with a folder for each class in it, got "
    with pytest.raises(InvalidInputError, match=message + "test, training"):
        image_folder(str(root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=message + "an empty folder"):
        image_folder(str(tmp_path / "empty"))


def test_images_without_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "train" / "0.png", picture(0))
    with pytest.raises(InvalidInputError, match="train: expected a folder for each class, got none"):
        image_folder(str(tmp_path / "flat"))


def test_a_class_without_images(root: Path) -> None:
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / "readme.txt").write_text("none yet")
    with pytest.raises(InvalidInputError, match=r"train/dog: this class folder has no images \(\.bmp, .*\); fill or"):
        image_folder(str(root))


def test_only_one_class(tmp_path: Path) -> None:
    write(tmp_path / "one" / "train" / "ant" / "0.png", picture(0))
    with pytest.raises(InvalidInputError, match="expected two classes or more, got only 'ant'"):
        image_folder(str(tmp_path / "one"))


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_an_unreadable_image_is_named(root: Path, content: bytes | str) -> None:
    path = root / "train" / "bee" / "3.png"
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:-60])
    with pytest.raises(InvalidInputError, match=r"cannot read image .*train/bee/3\.png \(.*\); repair or remove it"):
        image_folder(str(root))


def test_a_link_to_nowhere(root: Path) -> None:
    (root / "train" / "bee" / "4.png").unlink()
    (root / "train" / "bee" / "4.png").symlink_to(root / "gone.png")
    with pytest.raises(InvalidInputError, match=r"cannot read .*train/bee/4\.png: No such file"):
        image_folder(str(root))


def test_images_of_sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((6, 8), 4000, dtype=np.uint16)).save(root / "train" / "ant" / "0.png")
    with pytest.raises(InvalidInputError, match=r"ant/0\.png has more than 8 bits a channel \(I;16\)"):
        image_folder(str(root))


def test_a_class_that_only_the_test_has(root: Path) -> None:
    (root / "test" / "ant").rename(root / "test" / "aunt")
    task = image_folder(str(root))
    with pytest.raises(InvalidInputError, match="test: class 'aunt' is not among those of train/"):
        task.data(Part.TEST)


def test_a_class_that_only_train_has_keeps_the_numbers(root: Path) -> None:
    (root / "test" / "bee").rename(root / "elsewhere")
    assert image_folder(str(root)).data(Part.TEST).targets.tolist() == [0] * 5 + [2] * 5


def test_colour_in_the_test_of_grey_images(tmp_path: Path) -> None:
    root = tree(tmp_path / "grey", shape=(8, 8))
    write(root / "test" / "bee" / "3.png", picture(1, (8, 8, 3)))
    task = image_folder(str(root))
    with pytest.raises(InvalidInputError, match=r"test/bee/3\.png is in colour, expected a grey one like all"):
        task.data(Part.TEST)


# It trains ----------------------------------------------------------------------------------------------------


def test_a_network_trains_on_it(root: Path) -> None:
    task = image_folder(str(root))
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3))
    trainer = Trainer(task, task.recipe, torch.device("cpu"))
    normalization, _ = trainer.train(network, task.data(Part.TRAIN), Fidelity(2), 0)
    assert 0 <= trainer.evaluate(network, task.data(Part.TEST), normalization, Fidelity(2))["accuracy"] <= 1


def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    taken: Counter[str] = Counter()
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            taken[folder] += member.isfile()
            if member.isfile() and taken[folder] <= 10:
                archive.extract(member, tmp_path, filter="data")
    task = image_folder(str(tmp_path))
    assert task.input_shape == (3, 32, 32)
    assert task.classes[0] == "airplane"
    assert task.data(Part.SEARCH).targets.bincount().tolist() == [10] * 10
    assert task.data(Part.TEST).targets.bincount().tolist() == [10] * 10
    assert 100 < task.data(Part.SEARCH).inputs.float().mean() < 140
