"""The catalogue: the six collections of faces behind the notebook, where each comes from, and what its names tell.

Nothing here was taken on trust: a fact that could not be confirmed from a public source stands in `unverified`.
"""

from __future__ import annotations

import difflib
from pathlib import PurePosixPath
from typing import Final

from fakeface.config.collection import Archive, Checksum, Collection, Label
from fakeface.system.errors import UserError

CELEBA_IDENTITIES: Final = "identity_CelebA.txt"


def _drive(file_id: str) -> str:
    return f"https://drive.google.com/uc?id={file_id}"


_UTKFACE_PAGE: Final = "https://susanqq.github.io/UTKFace/"
_UTKFACE_LICENCE: Final = (
    "Non-commercial research only; the copyright stays with the photographs' owners (the project page)."
)
_UTKFACE_CITATION: Final = (
    "Zhifei Zhang, Yang Song, Hairong Qi: Age Progression/Regression by Conditional Adversarial Autoencoder. "
    "CVPR 2017. arXiv:1702.08423"
)
_UTKFACE_IDENTITY: Final = (
    "The date and time in the name (`age_gender_race_yyyymmddHHMMSSFFF`) is the photograph's and the same in both "
    "forms of UTKFace; it does not tell the person."
)
_UTKFACE_MD5_BY: Final = (
    "two unrelated public projects for files of these names, one of them for the archive.org item `UTKFace`"
)
_STYLEGAN_CITATION: Final = (
    "Tero Karras, Samuli Laine, Timo Aila: A Style-Based Generator Architecture for Generative Adversarial Networks. "
    "CVPR 2019. arXiv:1812.04948"
)
_FAKES_ITEM: Final = "1mFakeFaces"

_COLLECTIONS: Final = (
    Collection(
        name="utkface_aligned",
        title="UTKFace, aligned and cropped, part 1",
        label="real",
        used_for="stage 1, real",
        page=_UTKFACE_PAGE,
        licence=_UTKFACE_LICENCE,
        citation=_UTKFACE_CITATION,
        archives=(
            Archive(
                file="crop_part1.tar.gz",
                method="drive",
                address=_drive("0BxYys69jI14kRjNmM0gyVWM2bHM"),
                images=9_780,
            ),
        ),
        images=9_780,
        layout="crop_part1.tar.gz → part1/<age>_<gender>_<race>_<date and time>.jpg.chip.jpg, 200×200 JPEG",
        identity_from=_UTKFACE_IDENTITY,
        unverified=(
            "No checksum is publicly known; the first download pins it.",
            "9,780 images: the notebook's 19,780 less 10,000 fakes, and a public course text that counts the landmarks "
            "of the same part; not counted in the archive itself.",
        ),
        notes=(
            "The owners' folder also holds UTKFace.tar.gz, all 23,708 aligned images "
            "(https://drive.google.com/drive/folders/0BxYys69jI14kU0I1YUQyY1ZDRUE); the notebook's count is part 1's.",
            "The same photographs, uncropped, are in utkface_wild: stage 1 and stage 3 share people and pictures.",
        ),
    ),
    Collection(
        name="utkface_wild",
        title="UTKFace, in the wild",
        label="real",
        used_for="stage 3, real",
        page=_UTKFACE_PAGE,
        licence=_UTKFACE_LICENCE,
        citation=_UTKFACE_CITATION,
        archives=tuple(
            Archive(
                file=f"part{number}.tar.gz",
                method="drive",
                address=_drive(file_id),
                checksums=(Checksum("md5", md5, _UTKFACE_MD5_BY),),
                mirrors=(f"https://archive.org/download/UTKFace/part{number}.tar.gz",),
            )
            for number, file_id, md5 in (
                (1, "0BxYys69jI14kb2o4ajJwQ3FOUm8", "4c987669d98b4385d5279056cecdd88b"),
                (2, "0BxYys69jI14kNEt1SnNJN1Z2WWc", "ff9a734ffcab5ae235dc7c5e665900b8"),
                (3, "0BxYys69jI14kVkVTZHZHa21zUXM", "9038f25ba7173fae23ea805c5f3ba1e4"),
            )
        ),
        images=24_107,
        layout="three archives: partN.tar.gz → partN/<age>_<gender>_<race>_<date and time>.jpg, 1.3 GB in all",
        identity_from=_UTKFACE_IDENTITY,
        unverified=(
            "The md5 sums were stated for archive.org's copy; that the owners' Drive files are the same bytes "
            "could not be compared.",
            "24,107 images: the notebook's 44,107 less 20,000 fakes, and a published benchmark's count; "
            "not counted in the archives.",
        ),
    ),
    Collection(
        name="fakes_1m",
        title="1 million fake faces (StyleGAN)",
        label="fake",
        used_for="stage 1, stage 3 and held-out, fake",
        page=f"https://archive.org/details/{_FAKES_ITEM}",
        licence="CC BY-NC 4.0, as the maker announced it with the release in 2019.",
        citation=_STYLEGAN_CITATION,
        archives=tuple(
            Archive(
                file=f"1m_faces_{number:02d}.tar",
                method="http",
                address=f"https://archive.org/download/{_FAKES_ITEM}/1m_faces_{number:02d}.tar",
                listing=f"https://archive.org/metadata/{_FAKES_ITEM}/files",
                images=10_000,
            )
            for number in range(4)
        ),
        images=40_000,
        layout="many tars, of which the first four: 1m_faces_NN.tar → 1m_faces_NN/<name>.jpg, 1024×1024",
        identity_from="The name, ten capitals and digits, which faces_140k keeps for the fakes that it took from here.",
        unverified=(
            "10,000 images a tar: 1,000,000 in a hundred tars, and a public project that draws 10,000 from the first; "
            "not counted in the tars, and the number of tars was not seen.",
            "Size and checksum are read from archive.org's metadata when fetching; they could not be read beforehand.",
        ),
        notes=("The 70,000 fakes of faces_140k were sampled from this archive: stage 2 overlaps with stages 1 and 3.",),
    ),
    Collection(
        name="faces_140k",
        title="140k real and fake faces (FFHQ and StyleGAN)",
        label=None,
        used_for="stage 2, real and fake",
        page="https://www.kaggle.com/datasets/xhlulu/140k-real-and-fake-faces",
        licence="FFHQ: CC BY-NC-SA 4.0 for the collection, each photograph under its own Creative Commons licence; "
        "the fakes: CC BY-NC 4.0.",
        citation=f"{_STYLEGAN_CITATION} (FFHQ and StyleGAN); compiled by Kaggle user xhlulu",
        archives=(
            Archive(
                file="140k-real-and-fake-faces.zip",
                method="kaggle",
                address="xhlulu/140k-real-and-fake-faces/versions/2",
                images=140_000,
            ),
        ),
        images=140_000,
        layout="real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}/*.jpg, 256×256; 100,000, 20,000 and 20,000; "
        "train.csv, valid.csv, test.csv beside it",
        identity_from="The FFHQ number of a real (five digits), the StyleGAN name of a fake (ten capitals and digits).",
        unverified=(
            "The licence shown on the Kaggle page could not be read; those of its two halves are given.",
            "No checksum is publicly known; Kaggle's own is checked while fetching, and the first download pins it.",
        ),
    ),
    Collection(
        name="lag",
        title="Large Age-Gap (LAG)",
        label="real",
        used_for="held-out, real",
        page="http://www.ivl.disco.unimib.it/activities/large-age-gap-face-verification/",
        licence="Academic and non-commercial use only; no redistribution without permission (the README inside).",
        citation="Simone Bianco: Large Age-Gap Face Verification by Feature Injection in Deep Networks. "
        "Pattern Recognition Letters 90, 36-42, 2017. doi:10.1016/j.patrec.2017.03.006",
        archives=(
            Archive(
                file="LAGdataset_200.zip",
                method="http",
                address="http://www.ivl.disco.unimib.it/wp-content/uploads/2016/09/LAGdataset_200.zip",
                images=3_828,
            ),
        ),
        images=3_828,
        layout="LAGdataset_200.zip (200×200, 215 MB) → LAGdataset_200/<person>/*, younger faces in <person>/y/*",
        identity_from="The folder of the person, 1,010 of them.",
        unverified=(
            "The page offers a 100×100 and a 200×200 archive; the address of the 200×200 one is inferred from the "
            "confirmed address of LAGdataset_100.zip.",
            "Which of the two the notebook used is not known; 100×100 would be enlarged to 128×128, a shortcut.",
            "No checksum is publicly known; the first download pins it.",
            "The owners count 3,828 images; the notebook's held-out set of 13,818 leaves 3,818 for LAG.",
        ),
    ),
    Collection(
        name="celeba",
        title="CelebA, aligned and cropped",
        label="real",
        used_for="held-out, real",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="Non-commercial research only; no copy, publication or distribution of any portion (CelebA agreement).",
        citation="Ziwei Liu, Ping Luo, Xiaogang Wang, Xiaoou Tang: Deep Learning Face Attributes in the Wild. "
        "ICCV 2015. arXiv:1411.7766",
        archives=(
            Archive(
                file="img_align_celeba.zip",
                method="drive",
                address=_drive("0B7EVK8r0v71pZjFTYXZWM3FlRnM"),
                checksums=(
                    Checksum(
                        "sha256",
                        "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
                        "TensorFlow Datasets (url_checksums/celeb_a.txt)",
                    ),
                    Checksum("md5", "00d2c5bc6d35e252742224ab0c1e8fcb", "torchvision (datasets/celeba.py)"),
                ),
                bytes=1_443_490_838,
                images=202_599,
            ),
            Archive(
                file=CELEBA_IDENTITIES,
                method="drive",
                address=_drive("1_ee_0u7vcNLOfNLegJRHmolfH5ICW-XS"),
                checksums=(
                    Checksum(
                        "sha256",
                        "c6143857c3e2630ac2da9f782e9c1232e5e59be993a9d44e8a7916c78a6158c0",
                        "torchvision (prototype/datasets/celeba.py)",
                    ),
                    Checksum("md5", "32bd1bd63d3c78cd57e08160ec5ed1e2", "torchvision (datasets/celeba.py)"),
                ),
                unpack=False,
            ),
        ),
        images=202_599,
        layout="img_align_celeba.zip → img_align_celeba/NNNNNN.jpg, 178×218",
        identity_from=f"The table {CELEBA_IDENTITIES} beside the images: 10,177 people.",
        unverified=(
            "Which 5,000 images the notebook meant is not known, nor whether its test held any: 13,818 images "
            "leave no room for CelebA. The first 5,000 by name are taken.",
        ),
        notes=("Google Drive limits the daily downloads of this file; where it refuses, fetch it in a browser.",),
    ),
)


def list_sources() -> tuple[Collection, ...]:
    """Every collection of the catalogue, in the order in which the notebook uses them."""
    return _COLLECTIONS


def get_source(name: str) -> Collection:
    """The collection called `name`; an unknown name raises UserError with the nearest known one."""
    known = {collection.name: collection for collection in _COLLECTIONS}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'" if near else f"known are {', '.join(known)}"
    raise UserError(f"There is no data set called '{name}' in the catalogue; {hint}.")


def get_label(collection: Collection, path: str) -> Label | None:
    """The label of an image by its path inside the collection; None where the path does not tell."""
    if collection.label is not None:
        return collection.label
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        if folder in ("real", "fake"):
            return "real" if folder == "real" else "fake"
    return None
