"""Write data/README.md from the registry of data sets: python tools/data_readme.py"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from colorlib import registry  # noqa: E402

HEAD = """<!-- made by tools/data_readme.py from colorlib/registry.py: change it there -->
# The data sets

The `dataset` field of `01_data` takes any of these names, or **the path of a folder, or of a zip or tar archive, of
photos of your own**. What is fetched and prepared lands in this folder (or where `COLORLIB_DATA` points) and is never
committed. With `use_drive`, the prepared photos are also kept in Drive, as one archive in `colorization/data/prepared`,
and come back from there on the next day.

A download shows its progress, goes on where it broke off, is verified, and is unpacked beside its place before it is
moved there. If every address fails, the message says what to download by hand and where to put it: into this folder, or
into `colorization/data` in Drive, under the archive's own name.

To have grey photos coloured, no data set is needed: give their folder to `04_qualitative_study`.

| name | what | photos | download | account | terms |
|---|---|---|---|---|---|
| `sample` | five everyday scenes from scikit-image's wheel, cut into crops | 210 crops | none | none | free to use; \
scikit-image lists each photo's |
"""

DETAILS = """
## Layout, split, addresses

No address was tried by us: this project was built where the web cannot be reached. Sizes and checksums are published
ones, or those that others found. MD5 and SHA-1 guard against broken downloads, not against a forger. Imagenette's and
Imagewoof's numbers of photos are as stated by others.
"""

SCALE = """
## Very large sets

Photos are checked and resized a few at a time, in as many threads as there are cores, and noted down in chunks of 256:
broken off, the cell goes on where it was. {measured}

For ImageNet-1k (1,281,167 photos, 138 GB) on the two cores of a Colab machine that makes, by arithmetic and not tried:

| step | time | room |
|---|---|---|
| the archive, read from Drive or downloaded | | 138 GB, and as much again while it is unpacked |
| checking and resizing | {hours} hours on two cores | about {prepared} GB prepared |
| keeping it in Drive | | the same; more than the 15 GB that are free of charge |

That is more than a free machine has. What works there: `max_photos`, say 100,000; `imagenet` with the archive of the
validation photos alone (50,000); or preparing on a machine of your own and giving the prepared folder's
path as `dataset`. For training, `workers` follows the number of cores; a set too large to be packed (more than half of
the free disk at the recipe's size) is decoded anew in every epoch, by all workers. What grows with the number of photos
is the list of their names: about 1 KB of memory for each while they are prepared. See `benchmarks/preparing.py` and
`benchmarks/scaling.py`.
"""


def text():
    """All of data/README.md."""
    lines, details = [HEAD], [DETAILS]
    for name, entry in registry.DATASETS.items():
        size = f"{entry.files[0].size / 1e6:,.0f} MB" if entry.files and entry.files[0].size else "see below"
        account = "none" if entry.account == "none" else "needed"
        lines.append(f"| `{name}` | {entry.title} | {entry.n_photos:,} | {size} | {account} | {entry.terms} |\n")
        details.append(f"\n### `{name}`\n\n- layout: `{entry.layout}`\n- split: {entry.split}\n")
        details += [f"- account: {entry.account}\n"] * (account == "needed")
        for file in entry.files:
            urls = [url.replace("gdrive:", "https://drive.google.com/uc?id=") for url in file.urls]
            details.append(f"- `{file.name}`: {file.facts}{'; ' if urls else ''}{', '.join(urls)}\n")
        for handle in entry.kaggle:
            other = ", if these fail" if entry.files else ""
            details.append(
                f"- Kaggle's `{handle}`{other}: by kagglehub (`pip install kagglehub`), or by hand from "
                f"https://www.kaggle.com/datasets/{handle} as `{name}.zip`; size and checksum are Kaggle's matter\n"
            )
    return "".join(lines + details) + SCALE.format(**MEASURED)


# By benchmarks/preparing.py; photos of 500 x 375, as ImageNet's are on average.
MEASURED = {"measured": "TO MEASURE", "hours": "?", "prepared": "?"}

if __name__ == "__main__":
    (ROOT / "data" / "README.md").write_text(text())
