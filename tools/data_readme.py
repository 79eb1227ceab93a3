"""Write data/README.md from the registry of data sets: python tools/data_readme.py"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from colorlib import registry  # noqa: E402

HEAD = """<!-- made by tools/data_readme.py from colorlib/registry.py: change it there -->
# The data sets

The `dataset` field of `01_data` takes any of these names, or **the path of a folder, or of a zip or tar archive, of
photos of your own**. What is fetched and prepared lands in this folder (in Colab, in `data` below the folder that you
work in; or where `COLORLIB_DATA` points) and is never committed.

With `use_drive`, the prepared photos are also kept in Drive, as one archive in `colorization/data/prepared`, and come
back from there on the next day. 10,000 photos take 0.3 to 0.5 GB. Another choice of `max_photos` or `keep_grey` makes
another archive: delete those that you no longer need.

A download shows its progress, continues if it was interrupted, is verified, and is unpacked beside its place before it
is moved there. If every address fails, the message says what to download by hand and where to put it: into this folder,
or into `colorization/data` in Drive, under the archive's own name.

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
Imagewoof's numbers of photos are not verified.
"""

SCALE = """
## Very large sets

Photos are checked and resized a few at a time, with as many threads as there are cores. If that is interrupted, run the
cell again: it continues. {measured}

For ImageNet-1k (1,281,167 photos, about 150 GB) that makes on two such cores, by arithmetic and not tried (a
Colab machine's may be slower):

| step | time | room |
|---|---|---|
| the archive, unpacked | not estimated | 150 GB, and as much again for what is in it |
| checking and resizing | {hours} hours on two cores | about {prepared} GB |
| keeping it in Drive | not estimated | the same: more than the 15 GB that are free of charge |

That is more than a free machine has. What works there: `max_photos`, say 100,000; or `imagenet-val`. With a larger
machine at hand, prepare there by `data.ready("imagenet", "SOME_FOLDER")`, and copy `SOME_FOLDER/prepared` to
`colorization/data/prepared` in Drive: 01 restores it from there.

Training reads photos with `workers` processes, one for each core. A set too large to be packed (more than half of the
free disk at the recipe's size) is decoded anew in every epoch: then the number of cores decides how fast a GPU is fed,
and `torchrun` with several machines shares the work. What grows with the number of photos is the list of their names:
about 2 KB of memory for each while they are prepared.
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
        details += [f"- {entry.note}\n"] * bool(entry.note)
        for file in entry.files:
            details.append(f"- `{file.name}`: {'; '.join([file.facts, *file.links])}\n")
        for handle in entry.kaggle:
            other = ", if these fail" if entry.files else ""
            details.append(
                f"- Kaggle's `{handle}`{other}: by kagglehub (`pip install kagglehub`), which checks them, or by hand "
                f"from https://www.kaggle.com/datasets/{handle} (log in), as `{name}.zip`\n"
            )
    return "".join(lines + details) + SCALE.format(**MEASURED)


# By benchmarks/preparing.py on 2026-11-21, beside other work; photos of 500 x 375, as ImageNet's are on average.
MEASURED = {
    "measured": "Two cores of an AMD EPYC prepared 122 photos of 500 x 375\na second, 1.7 times as many as "
    "with one thread; 1,600 photos took no more memory than 400. The manifest of a million\nphotos is read in 1.5 "
    "seconds.",
    "hours": "3",
    "prepared": "60",
}

if __name__ == "__main__":
    (ROOT / "data" / "README.md").write_text(text())
