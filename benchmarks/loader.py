"""Photos per second per core until a batch is ready: ours against the ways five public projects load theirs.

Everybody gets the same photos, JPEGs of 500 x 375 like ImageNet's, one process and one thread; what follows on the
GPU is not counted. Each peer's way is written here anew from a description of its loader (repository and commit stand
beside it) and shows what it does per photo, not its code. Ours reads the copies that `data.prepare` and `loading.pack`
made of the photos once; what that costs is measured too, and the peers also read the prepared JPEGs.

Time is the processor's, so that a busy machine does not count, and the contestants take turns. All files are in
the system's cache: how fast a disk is does not show.

    python -m benchmarks.loader [--photos 300] [--rounds 5]
"""

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage.color import rgb2gray, rgb2lab
from torch.utils.data import default_collate
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from colorlib import color, data, loading, photos, sample

try:
    import cv2
except ImportError:
    cv2 = None

PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[2] / "shared" / "photos")
SIZE, BATCH, PEER_BATCH = 224, 128, 16  # peers' batches are small ones, as theirs are: large ones take longer to stack
GOAL = 7

FILTERS = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC, InterpolationMode.LANCZOS)
FLIP = T.RandomHorizontalFlip()
CROP_224 = T.Compose([T.RandomResizedCrop(224), FLIP])
SQUASH_256 = T.Compose([T.Resize((256, 256), InterpolationMode.BICUBIC), FLIP])
CROP_176 = T.Compose(
    [
        T.RandomChoice([T.Resize(256, f) for f in FILTERS]),
        T.RandomChoice([T.RandomResizedCrop(176, interpolation=f) for f in FILTERS]),
        FLIP,
        T.ToTensor(),
    ]
)


def opened(path):
    return Image.open(path).convert("RGB")


def tensor(array):
    """`(H, W, C)` of any float type -> float32 `(C, H, W)`."""
    return torch.from_numpy(array.transpose(2, 0, 1)).float()


def lukemelas(path):
    """lukemelas/Automatic-Image-Colorization at dda9397: grey and ab of a random crop."""
    rgb = np.asarray(CROP_224(opened(path)))
    return torch.from_numpy(rgb2gray(rgb)).float()[None], tensor((rgb2lab(rgb)[..., 1:] + 128) / 255)


def moein(path):
    """moein-shariatnia/Deep-Learning at 707b258: L / 50 - 1 and ab / 110 of the squashed photo."""
    lab = tensor(rgb2lab(np.asarray(SQUASH_256(opened(path)))))
    return lab[:1] / 50 - 1, lab[1:] / 110


def ddcolor(path):
    """piddnad/DDColor at 2adb63f: OpenCV reads and resizes; L, ab and whole-numbered ab."""
    bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    bgr = cv2.resize(bgr, (256, 256)).astype(np.float32) / 255
    lab = rgb2lab(bgr[..., ::-1])
    return tensor(lab[..., :1]), tensor(lab[..., 1:]), torch.from_numpy(lab[..., 1:].round().astype(np.int64))


def zhang(path):
    """The worker's part of richzhang/colorization-pytorch at 66a1cb2: float RGB of a random crop, Lab is the GPU's."""
    return CROP_176(opened(path))


def hou_pan(path):
    """usfzhou2/Image-Colorization at 921353c: Lab as float64 of photos that are 256 x 256 already."""
    lab = np.add(rgb2lab(np.asarray(Image.open(path))), [0, 128, 128]) / [100, 255, 255]
    return torch.from_numpy(lab[..., :1].transpose(2, 0, 1)), torch.from_numpy(lab[..., 1:].transpose(2, 0, 1))


PEERS = {
    lukemelas: "float L', ab at 224",
    moein: "float L, ab at 256",
    ddcolor: "float L, ab, int ab at 256",
    zhang: "float RGB at 176",
    hou_pan: "double L, ab at 256",
}


def real_photos(n):
    """`n` photos of 500 x 375: real ones where there are any, else random windows of scikit-image's scenes."""
    found = photos.find_photos(PHOTOS / "test") if (PHOTOS / "test").is_dir() else []
    rng, scenes = np.random.default_rng(0), list(sample.scenes().values())
    for i in range(n):
        if found:
            image = Image.fromarray(photos.open_photo(found[i * len(found) // n]))
        else:
            scene = scenes[i % len(scenes)]
            top, left = rng.integers(0, np.subtract(scene.shape[:2], (225, 300)) + 1)
            image = Image.fromarray(scene[top : top + 225, left : left + 300])
        yield ImageOps.fit(image, (500, 375), Image.Resampling.LANCZOS)


def write(n, folder):
    """The photos as JPEGs, 4:2:0 and of quality 75 to 90 as in ImageNet; and squashed to 256 x 256, for `hou_pan`."""
    for kind in ("500x375", "256x256"):
        (folder / kind).mkdir()
    for i, image in enumerate(real_photos(n)):
        settings = {"quality": 75 + 5 * (i % 4), "subsampling": "4:2:0"}
        image.save(folder / "500x375" / f"{i:04d}.jpg", **settings)
        squashed = image.resize((256, 256), Image.Resampling.LANCZOS)
        squashed.save(folder / "256x256" / f"{i:04d}.jpg", **settings)


def peer(load, files):
    """A turn of one peer: all photos once, in batches as its DataLoader would stack them."""

    def turn(_):
        for k in range(0, len(files), PEER_BATCH):
            default_collate([load(file) for file in files[k : k + PEER_BATCH]])

    return turn


def ours(photo_set, then=lambda batch: None):
    """A turn of ours: all photos once, shuffled and flipped anew, in batches as our DataLoader makes them."""

    def turn(number):
        for keys in loading.Batches(range(len(photo_set)), BATCH, epoch=number, seed=0):
            then(photo_set.__getitems__(keys))

    return turn


def take_turns(turns, rounds, n):
    """Median milliseconds of processor time per photo, for each of the turns; the first round is not counted."""
    times = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            begin = time.process_time()
            turn(number)
            times[name].append(1000 * (time.process_time() - begin) / n)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def timed(function, *args, **settings):
    """`(result, seconds on the clock)`; its progress bar goes to the error stream."""
    begin = time.perf_counter()
    with redirect_stdout(sys.stderr):
        result = function(*args, **settings)
    return result, time.perf_counter() - begin


def mean_bytes(files):
    return sum(file.stat().st_size for file in files) / len(files)


def machine():
    """The processor and the versions that matter."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", info.read_text() if info.is_file() else "")
    packages = ("torch", "torchvision", "pillow", "scikit-image", "numpy")
    versions = [f"{p} {version(p)}" for p in packages] + ([f"OpenCV {cv2.__version__}"] if cv2 else [])
    return f"{name[1] if name else platform.processor()}, Python {platform.python_version()}, {', '.join(versions)}"


def lab_in_parts(batch):
    for part in batch.split(PEER_BATCH):  # fits the processor's caches
        color.rgb_to_lab(part)


def measure(n, rounds, folder):
    """What `report` prints, as a dict."""
    write(n, folder)
    prepared, prepare_seconds = timed(data.prepare, folder / "500x375", folder, val=0, test=0)
    files = prepared.files("train")
    pack, pack_seconds = timed(loading.pack, files, SIZE, "squash", folder / "packs")
    originals, squares = ([folder / kind / name for name in prepared.kept.source] for kind in ("500x375", "256x256"))
    packed, unpacked = (loading.Photos(files, SIZE, flip=True, pack=p) for p in (pack, None))
    peers = [p for p in PEERS if cv2 or p is not ddcolor]
    turns = {(p.__name__, "own"): peer(p, squares if p is hou_pan else originals) for p in peers}
    turns |= {(p.__name__, "prepared"): peer(p, files) for p in peers}
    turns |= {"packed": ours(packed), "unpacked": ours(unpacked)}
    turns |= {"lab": ours(packed, color.rgb_to_lab), "lab in parts": ours(packed, lab_in_parts)}
    return {
        "n": len(files),
        "peers": peers,
        "ms": take_turns(turns, rounds, len(files)),
        "seconds": (1000 * prepare_seconds / len(files), 1000 * pack_seconds / len(files)),
        "bytes": (mean_bytes(originals), mean_bytes(files), pack.stat().st_size / len(files)),
    }


def cell(ms):
    return f"{1000 / ms:9,.0f} ({ms:5.2f})"


def report(n, peers, ms, seconds, bytes):
    """The table, what has to be known about it, and the ratios in a sentence."""
    source = "real ones" if (PHOTOS / "test").is_dir() else "windows of scikit-image's scenes"
    print(f"{n} photos ({source}); photos per second and core (ms per photo)\n")
    print(f"{'':26}{'hands over':28}{'from 500 x 375':>17}{'from prepared':>18}")
    for p in peers:
        own, prepared = (cell(ms[p.__name__, kind]) for kind in ("own", "prepared"))
        print(f"{p.__name__:26}{PEERS[p]:28}{own}{'*' if p is hou_pan else ' '} {prepared}")
    for name, key in {"ours, without a pack": "unpacked", "ours, from the pack": "packed"}.items():
        print(f"{name:26}{f'uint8 RGB at {SIZE}':28}{'':19}{cell(ms[key])}")
    for size, key in {BATCH: "lab", PEER_BATCH: "lab in parts"}.items():
        print(f"{f'the same, and Lab by {size}s':26}{f'float L, ab at {SIZE}':28}{'':19}{cell(ms[key])}")
    if not cv2:
        print("ddcolor is missing: it needs OpenCV (opencv-python-headless).")
    whole, parts = ms["lab"] - ms["packed"], ms["lab in parts"] - ms["packed"]
    print(f"""
* from JPEGs of 256 x 256, the only size it takes. L' is luma, which lukemelas takes for L.
Sizes differ, and zhang and ours leave Lab to the GPU. On this core it costs {whole:.2f} ms per photo of a batch of
{BATCH}, or {parts:.2f} ms where {PEER_BATCH} are converted at a time.
Once, by the clock on {os.cpu_count()} cores: {seconds[0]:.1f} s to prepare 1,000 photos, {seconds[1]:.1f} s to pack.
Bytes per photo: {bytes[0]:,.0f} original, {bytes[1]:,.0f} prepared, {bytes[2]:,.0f} in the pack.
(ImageNet's own show more detail, 110,000 bytes on average, and take every peer longer to decode than these.)
A pack larger than the memory needs a disk of {bytes[2] / ms["packed"] / 1000:,.0f} MB/s to be read at this speed.
""")
    own, prepared = (min((ms[p.__name__, kind], p.__name__) for p in peers) for kind in ("own", "prepared"))
    copies, unpacked, lab = prepared[0] / ms["packed"], own[0] / ms["unpacked"], own[0] / ms["lab in parts"]
    ratio = own[0] / ms["packed"]
    print(
        f"Ours loads {1000 / ms['packed']:,.0f} photos per second and core, {ratio:.1f} times the fastest peer "
        f"({own[1]}, {1000 / own[0]:,.0f}): the goal of {GOAL} is {'reached' if ratio >= GOAL else 'missed'}.\n"
        f"With the peers on the prepared copies it is {copies:.1f} times ({prepared[1]}), without the pack "
        f"{unpacked:.1f} times,\nand with Lab on the same core {lab:.1f} times."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        report(**measure(given.photos, given.rounds, Path(folder)))
    print(f"Medians of {given.rounds} rounds. {machine()}")


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy's threads cannot be told later
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | one)
    main()
