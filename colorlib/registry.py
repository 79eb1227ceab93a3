"""The named data sets: what each is, where it comes from, its size, checksum, terms, layout and split.

The figures are those of the sets' own pages, of published loaders and of download logs; data/README.md shows them.
"""

from dataclasses import dataclass

from colorlib.downloads import File


@dataclass(frozen=True)
class Dataset:
    """A set of photos: what it is and where it comes from.

    All of `files` are fetched, and the first one, an archive, is unpacked; failing that, one of `kaggle` is used:
    public sets that hold the same, which kagglehub fetches. `split` says in words which one is used; `val` and `test`
    are drawn from the training photos where the set has no such part of its own: counts, or shares under 1.
    """

    title: str
    n_photos: int
    terms: str
    layout: str
    split: str
    files: tuple = ()
    kaggle: tuple = ()
    account: str = "none"
    note: str = ""
    val: float = 0.1
    test: float = 0.1

    @property
    def version(self):
        """Changes with what the set consists of, and not with what is said about it."""
        return repr([(file.name, file.size, file.checksum) for file in self.files] + list(self.kaggle))


_PLACES = "http://data.csail.mit.edu/places/"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas/"
_LISTS = "https://web.mit.edu/torralba/www/"
_RESEARCH = "research only; the photos belong to their owners; no redistribution"
_IMAGENET = "non-commercial research only; the photos belong to their owners"
_DRAWN = "none is published: drawn at random"
_VALIDATION = (
    File("ILSVRC2012_devkit_t12.tar.gz", checksum="md5:fa75699e90414af021442c21a62c3abf"),
    File("ILSVRC2012_img_val.tar", checksum="md5:29b22e2961454d5413ddabcf34fc5622"),
)


def _places365(archive, folder, what, n_photos, size, checksum, split=_DRAWN, **drawn):
    file = File(archive, (f"{_PLACES}places365/{archive}",), size, checksum)
    return Dataset(f"Places365-Standard: {what}", n_photos, _RESEARCH, folder, split, (file,), **drawn)


def _fastai(archive, what, n_photos, size, checksum=None):
    file = File(f"{archive}.tgz", (f"{_FASTAI}{archive}.tgz",), size, checksum)
    layout, split = f"{archive}/train/n01440764/….JPEG", "its own train and val; test drawn from train"
    return Dataset(what, n_photos, _IMAGENET, layout, split, (file,))


DATASETS = {
    "places365": _places365(
        "val_256.tar",
        "val_256/Places365_val_00000001.jpg",
        "the validation photos, 100 of each of 365 kinds of scenes, 256 x 256; as many as document 001 trained on",
        36_500,
        525_158_400,
        "sha256:24b4e639ef12a0012af525bc4cb443e4ab4aaea8369a1fb009b70e4a4aad5d48",
    ),
    "places365-large": _places365(
        "val_large.tar",
        "val_large/Places365_val_00000001.jpg",
        "the same validation photos, larger",
        36_500,
        2_270_320_640,
        "md5:9b71c4993ad89d2d8bcbdc4aef38042f",
    ),
    "places365-train": _places365(
        "train_256_places365standard.tar",
        "data_256/a/airfield/00000001.jpg",
        "the training photos, 256 x 256",
        1_803_460,
        26_103_685_120,
        "md5:53ca1c756c3d1e7809517cc47c5561c5",
        "drawn at random: 10,000 to validate, 10,000 to test",
        val=10_000,
        test=10_000,
    ),
    "places205": Dataset(
        "Places205: the test photos, 256 x 256; what document 003 trained on",
        41_000,
        _RESEARCH,
        "testSet_resize/….jpg",
        "40,000 to train and 1,000 to validate, as document 003 has it, drawn at random; none to test",
        (
            File(
                "testSetPlaces205_resize.tar.gz", (f"{_PLACES}places205/testSetPlaces205_resize.tar.gz",), 2_341_250_899
            ),
        ),
        val=1_000,
        test=0,
    ),
    "imagenet": Dataset(
        "ImageNet (ILSVRC2012), training and validation photos: what document 000 trained on",
        1_331_167,
        _IMAGENET,
        "train/n01440764/….JPEG and val/n01440764/….JPEG",
        "its own train and val, and 10,000 photos of train to test, as document 000 has it",
        (*_VALIDATION, File("ILSVRC2012_img_train.tar", checksum="md5:1d675b47d978889d74fa0da5fadfb00e")),
        account="at image-net.org",
        note="Kaggle's ImageNet has no such archives: there, give the path of ILSVRC/Data/CLS-LOC as a folder of yours",
        test=10_000,
    ),
    "imagenet-val": Dataset(
        "ImageNet (ILSVRC2012), the validation photos alone",
        50_000,
        _IMAGENET,
        "photos/n01440764/….JPEG",
        "10,000 photos to test, a tenth of the rest to validate, drawn at random",
        _VALIDATION,
        account="at image-net.org",
        test=10_000,
    ),
    "imagenette": _fastai(
        "imagenette2-160",
        "Imagenette: ten easy classes of ImageNet, short side 160",
        13_394,
        99_003_388,
        "sha256:64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
    ),
    "imagenette-320": _fastai(
        "imagenette2-320",
        "Imagenette, short side 320",
        13_394,
        341_663_724,
        "sha256:569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c",
    ),
    "imagenette-full": _fastai(
        "imagenette2",
        "Imagenette, full size",
        13_394,
        1_557_161_267,
        "sha256:6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd",
    ),
    "imagewoof": _fastai(
        "imagewoof2-160", "Imagewoof: ten breeds of dogs of ImageNet, short side 160", 12_954, 92_612_825
    ),
    "imagewoof-320": _fastai(
        "imagewoof2-320",
        "Imagewoof, short side 320",
        12_954,
        328_387_740,
        "sha256:4e4905ed7643120daaf9bf3b2ef7f3a7e8396d9bdaf254a38c6f01f618b4973d",
    ),
    "imagewoof-full": _fastai("imagewoof2", "Imagewoof, full size", 12_954, 1_343_715_595),
    "cvpr09": Dataset(
        "CVPR09 (MIT Indoor 67): 67 kinds of rooms",
        15_620,
        _RESEARCH,
        "Images/airport_inside/….jpg",
        "its official lists: 5,360 to train (a tenth of them to validate) and 1,340 to test; the rest is left out",
        (
            File(
                "indoorCVPR_09.tar",
                ("http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar",),
                2_592_010_240,
                "sha1:0b252516e746ba428b96af408d2e8162d9b08ac5",
            ),
            File(
                "TrainImages.txt",
                (f"{_LISTS}TrainImages.txt",),
                checksum="sha256:7ec85f88735739d8159061e4bcf6a9765aab8606ab444605b3f8e0641be0260e",
            ),
            File(
                "TestImages.txt",
                (f"{_LISTS}TestImages.txt",),
                checksum="sha256:906c529a5a0918feec371de5b07a465ddb1f15ebaebc90a33cc321c371133bf1",
            ),
        ),
        kaggle=("itsahmad/indoor-scenes-cvpr-2019",),
        note="the official address was reported gone (404) in September 2026; Kaggle's copy is used then",
    ),
    "celeba": Dataset(
        "CelebA: faces of celebrities, aligned and cropped to 178 x 218",
        202_599,
        "non-commercial research only; no redistribution",
        "img_align_celeba/000001.jpg",
        "its official partition: 162,770 to train, 19,867 to validate, 19,962 to test",
        (
            File(
                "img_align_celeba.zip",
                ("gdrive:0B7EVK8r0v71pZjFTYXZWM3FlRnM",),
                1_443_490_838,
                "sha256:46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
            ),
            File(
                "list_eval_partition.txt",
                ("gdrive:0B7EVK8r0v71pY0NSMzRuSXJEVkk",),
                checksum="md5:d32c9cbf5e040fd4025c592c306e6668",
            ),
        ),
        kaggle=("jessicali9530/celeba-dataset",),
        note="Google Drive often answers that its quota is used up; Kaggle's copy is used then",
    ),
    "mirflickr-lab": Dataset(
        "MIRFLICKR-25k as arrays of OpenCV's 8-bit Lab, 224 x 224: what document 003 planned to use at first",
        25_000,
        "see the set's page; the photos come from Flickr",
        "l/gray_scale.npy and ab/ab/ab1.npy, ab2.npy, ab3.npy; written out as PNG files",
        _DRAWN,
        kaggle=("shravankumar9892/image-colorization",),
    ),
    "kaggle-5739": Dataset(
        "5,739 photos of 400 x 400, each with a grey copy that is not needed here: what document 004 trained on",
        11_478,
        "see the set's page",
        "data/train_color/….jpg, data/test_color/….jpg, and train_black, test_black",
        "its own: 5,000 to train (a tenth of them to validate) and 739 to test; the grey copies are left out",
        kaggle=("aayush9753/image-colorization-dataset",),
    ),
}
NAMES = ("sample", *DATASETS)
