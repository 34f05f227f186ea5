"""What stands under each figure and beside each stored table: one sentence for each, said here and nowhere else.

Keys are the names of the files, without their ending.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mammo_lib.evaluation.comparisons import QUESTIONS
from mammo_lib.evaluation.protocols import ASKED

_SETS = {"P": "patches (set P)", "G": "whole mammograms (set G)"}
_INTERVAL = "over patients"

FIGURES = {
    "fig1_work_flow": "The work from the archive to the explained decision (Fig. 1 of the paper).",
    "fig2_views": "The views of one patient, lesions outlined in red (Fig. 2 of the paper).",
    "fig3_patch_and_global": "From mammogram to network: a patch of set P, the whole mammogram that it was cut from "
    "(dashed), the global image of set G; lesions outlined in red (Fig. 3 of the paper).",
    "fig7_gradcam": "Grad-CAM of the main network, the proposed one where it is trained, beside the lesion: two benign "
    "and three malignant test images, chosen by a rule and not by looks (Fig. 7 of the paper).",
    "gradcam_contact_sheet": "Successes and failures of the main network, by truth and decision; the number is its "
    "probability of malignancy.",
    "protocols": f"{ASKED} Squares: AUC of the first protocol minus that of the second, with its interval "
    f"{_INTERVAL}, in AUC points, of the networks (the line below says from what they start) and of our own rows. "
    "p is not corrected.",
    "localisation": f"Grad-CAM and its controls against the lesion: mean over test images, interval {_INTERVAL}.",
}
for _stage, _set in _SETS.items():
    FIGURES |= {
        f"roc_{_stage}": f"ROC curves on the test {_set}; bands: interval {_INTERVAL}.",
        f"confusion_{_stage}": f"Decisions on the test {_set} at the threshold: counts, and shares of the truth.",
        f"calibration_{_stage}": f"Calibration on the test {_set}: observed share malignant against the mean score, in "
        "bins of equally many cases (ECE, the calibration error, is of bins of equal width).",
        f"curves_{_stage}": f"Training on {_set}: loss and accuracy by epoch.",
    }


@dataclass(frozen=True)
class Told:
    """formats: of columns that need other decimals than three."""

    caption: str
    note: str = ""
    formats: Mapping[str, str] | None = None


TABLES = {
    "integrity": Told(
        "Named checks of the archive.",
        "Counts. Expected is blank where the archive has no official number.",
        {"expected": "{:g}"},
    ),
    "leakage": Told(
        "Test cases with a relative among the cases trained on.",
        "Counts of patches (P) or images (G), folds pooled; P into G: G's test images whose patches are in P's "
        "training part. Share of 1.",
    ),
    "problems": Told("Set aside, repaired or noted.", "One row an event; stage note: nothing was set aside."),
    "candidates": Told(
        "Settings of stage G, tried on the main network.",
        "Validation: accuracy (share of 1) and AUC of the best epoch, the one that would be kept; no test case was "
        "looked at. Losses: mean cross-entropy of the first and the last epoch.",
        {"learning rate": "{:g}", "batch size": "{:g}"},
    ),
    "controls": Told(
        "What training learns when there is something to learn, and when there is not.",
        "Set P. Overfit: training patches by heart, at the best epoch. Shuffled labels: test AUC after training on "
        f"labels exchanged at random, interval {_INTERVAL}; of the mean, Student's over the shuffles. Cases: patches.",
        {"cases": "{:.0f}", "epochs": "{:.0f}"},
    ),
    "gates": Told(
        "How far open the gates of CBAM are.",
        "Channel gate: equation (1), spatial gate: equation (2) of the paper; means over validation images, fold 0, "
        "in 0 to 1: before training, with the first seeds, and of the epoch kept. Where the spatial gate is 0 nothing "
        "passes, and training cannot open it.",
        {"seed": "{:.0f}", "channel gate": "{:.2g}", "spatial gate": "{:.2g}"},
    ),
    "gates_first_steps": Told(
        "The spatial gate of ResNet50+CBAM, the paper's network, in the first steps of stage G.",
        "From random weights, with this profile's settings, also where the profile trains other networks: mean "
        "cross-entropy and mean gate of each batch.",
        {"step": "{:.0f}", "spatial gate": "{:.2g}"},
    ),
    "probe/readings": Told(
        "Ways of reading an image that the probe was chosen from.",
        "AUC by cross-validation within the training and validation patients, over the pairs of images of one fold.",
    ),
    "readings": Told(
        "Ways of reading an image with the mass map.",
        "AUC on the validation part, mean over a cross-validation of the regression on it; no test case was looked at.",
        {"fold": "{:.0f}"},
    ),
    "outcomes": Told(
        "Every cell of the experiment and what became of it.", "Cell: stage, network, initial weights, fold, seed."
    ),
    "environment": Told("What this ran on."),
    "rows": Told(
        "Test sets that each printed row allows.",
        "Share: malignant share of test cases that the row implies. Test sets: pairs of malignant and benign counts, "
        "each at most 1000, that print as the row does.",
    ),
    "test_sets": Told(
        "Test sets that explain the most rows of a table.",
        "Counts of cases. Chance: share of tables with fine digits drawn at random in which some test set explains as "
        "many rows, one added to both counts. Explained: each number rounded or cut, whichever fits; all rounded, all "
        "cut: rows explained when the whole table was printed in one of these ways.",
        {"chance": "{:.2g}"},
    ),
    "hypotheses": Told(
        "Named test sets and the rows they explain.",
        "Counts of cases. Chance: upper bound of the probability that any of the sets named explains as many rows of "
        "such a table, with fine digits at random; that of the test sets above is drawn, over all sizes. Which: the "
        "rows explained.",
        {"chance": "{:.2g}"},
    ),
    "repairs": Told(
        "Rows the best test set leaves unexplained, with the one-digit changes that would repair them.",
        "Malignant and benign: counts of cases in that test set.",
        {"printed": "{:.4f}"},
    ),
    "auc": Told(
        "Printed AUCs with intervals at the inferred size.",
        "95% intervals after Hanley and McNeil; malignant and benign: inferred counts of cases.",
        {"auc": "{:.4f}"},
    ),
    "headlines": Told(
        "The paper's headline differences in AUC.",
        "p independent: as if the two networks were tested on different cases. Correlation needed: least correlation "
        "of the two AUCs at which the difference is significant on the same cases. Least p accuracy: lowest two-sided "
        "exact McNemar p that the two printed accuracies allow at the inferred size, if every case on which the "
        "networks differ went to the better one; blank where none fits.",
        {"difference": "{:.4f}", "least p accuracy": "{:.2g}"},
    ),
}


def questions(asked: Iterable[str]) -> dict[str, str]:
    """Captions of the forest plots: question_1 and so on, in the order in which the questions are in their table."""
    return {
        f"question_{number}": f"{QUESTIONS[question]} Squares: our difference in AUC with its interval {_INTERVAL}; "
        "p after Holm."
        for number, question in enumerate(asked, start=1)
    }
