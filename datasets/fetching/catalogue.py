"""Catalogue: the data sets and checkpoints of the paper, and where each comes from.

A cell is empty where nothing was published or we are not sure of it. Folders and files are relative
to the root of the repository.
"""

from dataclasses import dataclass

# Archives wait here; git ignores every folder below datasets/.
ARCHIVES = "datasets/downloads"
DVE = "https://github.com/jamt9000/DVE/tree/master/misc/datasets"
PUBLISHED = "https://people.cs.umass.edu/~zezhoucheng/contrastive_landmark/"
DROPBOX = "https://www.dropbox.com/sh/"


@dataclass(frozen=True)
class Item:
    """One thing to fetch."""

    name: str  # what the user asks for
    title: str
    licence: str  # what the owners allow
    folder: str  # where it lands
    file: str  # name of the archive, or of the file itself if it isn't packed
    page: str  # for people: describes it or has the address
    url: str = ""  # of the file, where it has a public one
    size: str = ""  # of the file, in words
    checksum: str = ""  # MD5, SHA-1 or SHA-256 of the file, where published
    holds: tuple[str, ...] = ()  # names that the folder has when the item is in place
    is_exact: bool = True  # an archive without those names is refused
    only: str = ""  # the part of the archive that is wanted
    steps: str = ""  # what to do by hand, or beforehand
    packed: bool = True  # the file is an archive


def _dve(name: str, title: str, licence: str, folder: str, official: str, *holds: str) -> Item:
    file = f"{name}.tar"
    steps = (
        "By hand: the page links DVE's packed copy, laid out as the scripts expect. Copy that link "
        f"and run: python datasets/download.py {name} --url LINK (and --checksum HEX if the page "
        f"gives one). Or save the copy as {ARCHIVES}/{file}, be it tar, tar.gz or zip, and run: "
        f"python datasets/download.py {name}. {official}"
    )
    return Item(name, title, licence, folder, file, page=DVE, holds=holds, steps=steps)


def _checkpoint(name: str, title: str, share: str, *holds: str) -> Item:
    return Item(
        name=name,
        title=title,
        licence="none stated; trained on images for non-commercial research",
        # A folder of its own for those whose file names were not published: they cannot collide.
        folder="Pretrained" if holds else f"Pretrained/{name}",
        file=f"{name}.zip",
        page=PUBLISHED,
        url=f"{DROPBOX}{share}?dl=0",
        holds=holds,
        is_exact=False,
    )


_ITEMS = (
    _dve(
        "celeba",
        "CelebA, aligned, with the MAFL lists (MAFLAligned and MoCo training on faces)",
        "non-commercial research only",
        "datasets/celeba",
        "The owners' page: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, for MAFL's lists "
        "https://github.com/zhzhanp/TCDCN-face-alignment",
        *("Anno", "Eval", "Img", "MAFL"),
    ),
    _dve(
        "aflw-mtfl",
        "AFLW_M: AFLW crops and the MTFL test images (AFLW_MTFL)",
        "AFLW: registration, non-commercial research only; MTFL: see its page",
        "datasets/face_datasets/aflw-mtfl",
        "MTFL's own page: http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html",
        *("MTFL", "aflw_cropped"),
    ),
    _dve(
        "aflw",
        "AFLW_R: AFLW with the released crops and five points (AFLW)",
        "registration with the owners needed, non-commercial research only",
        "datasets/face_datasets/aflw/aflw_release-2",
        "AFLW itself is given out by TU Graz, after registration.",
        *("aflw_train_images.txt", "aflw_test_images.txt", "output"),
    ),
    _dve(
        "300w",
        "300-W: AFW, HELEN, LFPW and iBUG with 68 points (ThreeHundredW)",
        "non-commercial research only",
        "datasets/face_datasets/300w/300w",
        "The owners' page: https://ibug.doc.ic.ac.uk/resources/300-W/",
        *("Bounding Boxes", "afw", "helen", "ibug", "lfpw"),
    ),
    Item(
        name="cub",
        title="CUB-200-2011: images of birds (CUB)",
        licence="non-commercial research and education only",
        folder="datasets/CUB_200_2011",
        file="CUB_200_2011.tgz",
        page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        size="1.15 GB",
        checksum="97eceeb196236b17998738112f37df78",
        holds=("images",),
        steps="The scripts also need cub-lists, and the points, anno/train.dat and anno/val.dat, "
        "for which the authors published no address of their own.",
    ),
    Item(
        name="cub-lists",
        title="CUB: the lists of training, validation and test images",
        licence="none stated",
        folder="datasets/CUB_200_2011/split",
        file="cub_filelist.zip",
        page=PUBLISHED,
        url=f"{PUBLISHED}datasets/cub_filelist.zip",
        holds=("test.txt", "train.txt", "val.txt"),
    ),
    Item(
        name="inat-aves",
        title="iNaturalist 2017: the birds among its training and validation images",
        licence="non-commercial research only; each image under its photographer's licence",
        folder="datasets/inat",
        file="train_val_images.tar.gz",
        page="https://github.com/visipedia/inat_comp/tree/master/2017",
        url="https://ml-inat-competition-datasets.s3.amazonaws.com/2017/train_val_images.tar.gz",
        size="186 GB",
        checksum="7c784ea5e424efaec655bd392f87301f",
        holds=("Aves",),
        only="train_val_images/Aves",
    ),
    Item(
        name="inat-aves-list",
        title="iNaturalist 2017: the list of the 100,000 birds used in the paper",
        licence="none stated",
        folder="datasets/inat",
        file="inat_aves_100K.txt",
        page=PUBLISHED,
        url=f"{PUBLISHED}datasets/inat_aves_100K.txt",
        holds=("inat_aves_100K.txt",),
        packed=False,
    ),
    _checkpoint(
        "moco-resnet18-celeba",
        "MoCo, ResNet-18, trained on CelebA",
        "f9act9d7wlspm3c/AAACHwe9BZVKFQkokvGvhYrKa",
    ),
    _checkpoint(
        "moco-resnet50-celeba",
        "MoCo, ResNet-50, trained on CelebA",
        "jys3jerh0utxr49/AAAEzPJ3ZN4XLUmc4pmXEytFa",
        "ckpt_epoch_800_resnet50_celeba.pth",
    ),
    _checkpoint(
        "moco-resnet18-inat",
        "MoCo, ResNet-18, trained on iNaturalist birds",
        "vf6l9t4e5rbzaf1/AAAgeIcD-TjYHw9B41LcIMbTa",
    ),
    _checkpoint(
        "moco-resnet50-inat",
        "MoCo, ResNet-50, trained on iNaturalist birds",
        "g1folefnc351eyf/AAD5bmVrvNesTY8Put95WIV0a",
        "ckpt_epoch_800_resnet50_inat.pth",
    ),
    _checkpoint(
        "dve-hourglass-inat",
        "DVE, hourglass, trained on iNaturalist birds",
        "hmks0is2v67zn5x/AABS4cxUlH-oVv8zH8pzgLzSa",
    ),
    _checkpoint(
        "regressors-face",
        "Landmark regressors for the face benchmarks",
        "cx3m6s4soompt9r/AADDDPeYeOtvCazN7x53vXiFa",
        "ckpt_epoch_45_resnet50_AFLW_R.pth",
    ),
    _checkpoint(
        "regressors-bird",
        "Landmark regressors for the bird benchmark",
        "jqn6umci2vlngkb/AAB5740XNLzyAQSPohjkXUOOa",
        "CUB_resnet50.pth",
    ),
)
CATALOGUE = {item.name: item for item in _ITEMS}
