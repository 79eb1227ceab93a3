"""Bring a data set to this machine by its name, and tell its published split. Everything lands below one folder."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colorlib import color, downloads, photos, runtime, sample
from colorlib.registry import DATASETS, NAMES


def fetch(name, root, places=()):
    """Bring a data set to this machine, unless it is there already.

    Args:
        name: "sample", a key of `DATASETS`, or the path of a folder of photos (used where it is) or of an archive.
        root: folder below which data sets are kept, and in which archives that were put there by hand are found.
        places: more folders in which these may be.

    Returns:
        The folder of photos.

    Raises:
        ValueError: if the name is neither a data set nor a path, or an archive of the user's is damaged.
        ConnectionError: if the download fails; says how to do it by hand.
        OSError: if there is not enough room.
    """
    name, root = str(name).strip(), Path(root)
    own = Path(name or "?").expanduser() if name not in NAMES else None
    if own and own.is_dir():
        return own
    if own and not (own.is_file() and own.name.lower().endswith(downloads.ARCHIVES)):
        known = ", ".join(NAMES)
        raise ValueError(f"{name!r} is no data set ({known}), no folder and no zip or tar archive: correct it.")
    if own:
        target = root / f"{stem(own)}-{hashlib.sha256(version(own).encode()).hexdigest()[:8]}"
    else:
        target = root / name
    if target.is_dir():
        return target
    # Build beside the target and rename at the end: a half-unpacked set is never taken for a whole one.
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if name == "sample":
        sample.cut(partial)
    elif own:
        _unpack(own, partial)
    else:
        print(f"{DATASETS[name].title}. Terms: {DATASETS[name].terms}.")
        whole = _bring(name, root, partial, [Path(place) for place in places])
        if whole != partial:  # a folder of kagglehub's, which may be read only
            shutil.rmtree(partial)
            target.unlink(missing_ok=True)  # a link to one that is gone
            target.symlink_to(whole, target_is_directory=True)
            return target
    partial.rename(target)
    return target


def stem(archive):
    """An archive's name without what tells its kind."""
    return archive.name.split(".")[0]


def version(archive):
    """What tells an archive of the user's own from others: its size, and a hash of its first and its last megabyte."""
    with open(archive, "rb") as stream:
        ends = stream.read(1 << 20)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - (1 << 20)))
        return f"{size} {hashlib.sha256(ends + stream.read()).hexdigest()}"


def _bring(name, root, partial, places):
    """The folder that holds the whole set: `partial`, or one of kagglehub's."""
    dataset, faults = DATASETS[name], []
    try:
        if dataset.account != "none":
            return _from_imagenets_archives(dataset, root, partial, places)
        if dataset.files:
            return _from_files(dataset, root, partial, places)
    except (ConnectionError, ValueError, FileNotFoundError) as error:
        faults.append(str(error))
    for handle in dataset.kaggle:
        shutil.rmtree(partial)
        partial.mkdir()
        given = [place / f"{name}.zip" for place in (root, *places) if os.path.isfile(place / f"{name}.zip")]
        try:
            whole = _unpack(given[0], partial) if given else _from_kaggle(handle)
            if name == "mirflickr-lab":
                _write_arrays(whole, partial)
                whole = partial
            photos.find_photos(whole)
            return whole
        except (ConnectionError, ValueError, FileNotFoundError) as error:
            faults.append(f"Kaggle's {handle}: {error}")
    why = "; ".join(fault.rstrip(".") for fault in faults)
    raise ConnectionError(f"{name} could not be fetched: {why}.\n{by_hand(name, root, places)}")


def by_hand(name, root, places=()):
    """Two lines: what to download in a browser, and where to put it."""
    dataset = DATASETS[name]
    what = " and ".join(f"{file.name} from {file.links[0]}" for file in dataset.files if file.links)
    if dataset.account != "none":
        what = f"{' and '.join(file.name for file in dataset.files)}, with an account {dataset.account},"
    copies = [f"https://www.kaggle.com/datasets/{handle} as {name}.zip" for handle in dataset.kaggle]
    where = " or ".join(str(place) for place in (root, *places))
    return (
        f"By hand: download {', or '.join(filter(None, [what, *copies]))} in a browser,\nput it into {where} and retry."
    )


def _unpack(archive, folder):
    downloads.need_space(folder, archive.stat().st_size, f"unpacking {archive.name}")
    downloads.unpack(archive, folder)
    return folder


def _from_files(dataset, root, partial, places):
    archive, ours = dataset.files[0], root / "downloads"  # ours: what lies elsewhere was put there by hand, and stays
    begun = [place / name for place in (ours, root, *places) for name in (archive.name, f"{archive.name}.part")]
    have = max(path.stat().st_size if os.path.isfile(path) else 0 for path in begun)
    downloads.need_space(root, max(archive.size, 2 * archive.size - have), archive.name)
    paths = [downloads.fetch(file, ours, [root, *places]) for file in dataset.files]
    try:
        downloads.unpack(paths[0], partial)
        found = len(photos.find_photos(partial))
        if found != dataset.n_photos and not archive.checksum:
            raise ValueError(f"{paths[0]} holds {found:,} photos instead of {dataset.n_photos:,}: delete it and retry")
    except (ValueError, FileNotFoundError):
        (ours / archive.name).unlink(missing_ok=True)  # where no checksum is known it would be taken again
        raise
    for path in paths[1:]:
        shutil.copy(path, partial)
    for path in paths:
        if path.parent == ours:
            path.unlink()
    return partial


def _from_imagenets_archives(dataset, root, partial, places):
    from torchvision.datasets import imagenet

    where = [[(place / file.name).resolve() for place in (root, *places)] for file in dataset.files]
    found = [next(filter(os.path.isfile, paths), None) for paths in where]
    missing = [file.name for file, path in zip(dataset.files, found) if path is None]
    if missing:
        raise ConnectionError(f"{' and '.join(missing)} must be put there, since only an account can download it")
    devkit, val, *train = found
    downloads.need_space(root, sum(path.stat().st_size for path in found), "unpacking ImageNet")
    try:
        imagenet.parse_devkit_archive(partial, str(devkit))
        wnids = imagenet.load_meta_file(partial)[1]
        imagenet.parse_val_archive(partial, str(val), wnids, folder="val" if train else "photos")
        if train:
            imagenet.parse_train_archive(partial, str(train[0]))
    except RuntimeError as error:  # a wrong checksum
        raise ValueError(str(error)) from error
    return partial


def _from_kaggle(handle):
    try:
        import kagglehub
    except ImportError as error:
        raise ConnectionError("needs kagglehub: pip install kagglehub") from error
    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # of kagglehub, requests or the disk
        raise ConnectionError(" ".join(str(error).split()) or type(error).__name__) from error


def _write_arrays(source, folder):
    """OpenCV's 8-bit Lab (L times 2.55, a and b plus 128) -> a PNG file for each photo."""
    try:
        all_L = np.load(next(source.rglob("gray_scale.npy")), mmap_mode="r")  # (25000, 224, 224)
        all_ab = [np.load(path, mmap_mode="r") for path in sorted(source.rglob("ab[123].npy"))]  # (10000, 224, 224, 2)
    except (StopIteration, OSError) as error:
        raise ValueError(f"{source} lacks an array: {error}") from error
    if len(all_L) != sum(map(len, all_ab)):
        raise ValueError(f"{source} has {len(all_L):,} photos in L and {sum(map(len, all_ab)):,} in ab")
    downloads.need_space(folder, 2 * all_L.nbytes, "writing the photos")
    with runtime.bar(len(all_L), "writing the photos") as bar:
        for n, ab in enumerate(ab for part in all_ab for ab in part):
            L = torch.from_numpy(all_L[n] / np.float32(2.55))[None, None]
            ab = torch.from_numpy(ab.astype(np.float32) - 128).permute(2, 0, 1)[None]
            rgb = color.lab_to_rgb(L, ab)[0].permute(1, 2, 0).numpy()
            Image.fromarray(rgb).save(folder / f"{n:05d}.png", compress_level=1)
            bar.update()


LISTED = ("cvpr09", "celeba", "kaggle-5739")  # the sets that `published_split` knows


def published_split(name, folder):
    """The published split of a set whose folders' names do not tell it.

    Returns:
        A function from a photo's path below `folder` to "train", "val", "test", or "" if it is in no part; or None.
    """
    folder = Path(folder)
    if name == "kaggle-5739":
        return lambda path: {"train_color": "train", "test_color": "test"}.get(Path(path).parent.name, "")
    if name == "cvpr09":
        parts = dict.fromkeys(_lines(folder, "TrainImages.txt"), "train")
        parts |= dict.fromkeys(_lines(folder, "TestImages.txt"), "test")
        return lambda path: parts.get("/".join(Path(path).parts[-2:]), "")
    if name == "celeba":  # "000001.jpg 0"; at Kaggle with a comma, below a header
        lines = [line.replace(",", " ").split() for line in _lines(folder, "list_eval_partition.*")]
        parts = {file: ("train", "val", "test")[int(part)] for file, part in lines if part.isdigit()}
        return lambda path: parts.get(Path(path).name, "")
    return None


def _lines(folder, name):
    found = next(folder.rglob(name), None)
    if found is None:
        raise ValueError(f"{folder} lacks {name}, the list of its published split: delete the folder and retry.")
    return [line.strip() for line in found.read_text().splitlines() if line.strip()]
