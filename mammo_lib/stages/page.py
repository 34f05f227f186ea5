"""Everything on one page: the figures drawn again from stored results, and the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mammo_lib import paths
from mammo_lib.config import EXTRA_LABELS, MASS_MAP, NETWORK_LABELS
from mammo_lib.stages import facts, sources
from mammo_lib.stages.comparison import compare, draw_evaluation, evaluate
from mammo_lib.stages.exhibits import Exhibits, notebooks, printed
from mammo_lib.stages.experiment import Experiment, extra_folder
from mammo_lib.stages.explanation import (
    LOCALISATION,
    draw_explanations,
    draw_localisation,
    has_maps,
    is_measured,
    localisation_tables,
    tables_of_maps,
)
from mammo_lib.stages.mapping import SHOWN as MAP
from mammo_lib.stages.pictures import draw_images, draw_work_flow
from mammo_lib.stages.published import audit
from mammo_lib.stages.trainings import any_history, draw_learning_curves

if TYPE_CHECKING:
    from mammo_lib.evaluation import export
    from mammo_lib.evaluation.report import Section, Table

PAPER = "https://doi.org/10.3788/LOP202158.0410007"
PAPER_CITATION = (
    "Xu W, Pei Y, Gao D, Zhu J, Liu Y. Mass classification of breast mammogram based on attention mechanism and "
    "transfer learning. Laser & Optoelectronics Progress 58(4), 0410007, 2021. doi 10.3788/LOP202158.0410007."
)
OUR_CITATION = "This reproduction: CITATION.cff of the repository."
STAGES = (("P", "table1", "Table 1: patches"), ("G", "table2", "Table 2: whole mammograms"))
IN_SHORT = ("aim", "protocol", "parts", "performance", "spread")
FURTHER = ("birads", "added", "intervals", "units", "scores", "operating_points", "spread")  # tables of each stage
UNTESTED = "{} from {} has no result on whole mammograms in this run."
ONE_PROTOCOL = "Only one protocol has results; with a second one, the optimism of random splits is measured here."
WHERE = ("localisation", "fig7_gradcam", "gradcam_contact_sheet")  # figures of Grad-CAM
TRIED = ("candidates", "controls", "gates", "gates_first_steps", "probe/readings", "readings")
NOT_TRIED = "Other settings (python -m mammo_lib tune) and the controls of training (controls) have not been run."
ARITHMETIC = "Arithmetic on the paper's Tables 1 and 2; our data and networks play no part in it."
CHECKLIST = "What the records of this run can answer of two reporting checklists; what is open needs a person."
NOT_CLINICAL = "For research on methods; not for clinical use."


def draw_everything(experiment: Experiment) -> list[Path]:
    """Every figure that can be drawn again from what is stored; trains nothing.

    Curves, comparisons and localisation need results/ alone. Figures that show images need the prepared data and the
    heat maps, and are left as they are on a host that has neither.
    """
    compare(experiment)
    trained = [stage for stage in experiment.profile.main_initial if any_history(experiment, stage)]
    drawn = [path for stage in trained for path in draw_learning_curves(experiment, stage)]
    drawn += draw_evaluation(experiment) + draw_work_flow(experiment)
    if (experiment.places.prepared / "prepare.json").exists():
        drawn += draw_images(experiment)
    else:
        print(f"not drawn: Fig. 2 and 3, as nothing is prepared in {experiment.places.prepared}")
    if has_maps(experiment):
        drawn += draw_explanations(experiment)
        return drawn
    print(f"not drawn: Grad-CAM's images, as {experiment.runs} has no heat maps of them")
    return drawn + (draw_localisation(experiment) if is_measured(experiment) else [])


def report(experiment: Experiment) -> Path:
    """The experiment's page, from the tables and figures that are there; returns its path."""
    from mammo_lib.evaluation import report as page

    profile = experiment.profile
    sentence, warning = page.first_line(profile.source, profile.data)
    made = evaluate(experiment)
    page.write_report(
        experiment.report,
        page.Report(
            title=f"Masses in mammograms: {NETWORK_LABELS[profile.main_network]}, patches to whole images",
            data_sentence=sentence,
            warning=warning,
            subtitle=f"Reproduction of Xu et al. 2021. Profile {profile.name}, protocol {experiment.protocol}, "
            f"seed {experiment.seed}.",
            sections=_sections(experiment, made, facts.facts(experiment, made)),
            footer=NOT_CLINICAL,
        ),
    )
    return experiment.report


def _sections(experiment: Experiment, made: "dict[str, export.Table]", known: Mapping[str, str]) -> "list[Section]":
    from mammo_lib.evaluation.captions import FIGURES, questions
    from mammo_lib.evaluation.report import Link

    asked = questions(made["questions"].frame["question"].unique())
    citations = (PAPER_CITATION, sources.of(experiment.profile).citation, OUR_CITATION)
    section, of_map = Exhibits(experiment, known, made, FIGURES | asked).section, extra_folder(experiment, MASS_MAP)
    return [
        section("In short", prose=[*_tested(experiment, known), *facts.answers(experiment, made)]),
        section(
            "Data",
            facts=("flow", "preprocessing", "leakage", "checks"),
            stored=("leakage", "integrity", "problems"),
            folded=True,
            figures=("fig1_work_flow", "fig2_views", "fig3_patch_and_global"),
            files=("near_duplicates",),
        ),
        *(
            section(
                title,
                made=(table, *(f"{name}_{stage}" for name in FURTHER)),
                figures=(f"roc_{stage}", f"confusion_{stage}", f"calibration_{stage}", f"curves_{stage}"),
                drawable=_networks(made[table]),
            )
            for stage, table, title in STAGES
        ),
        section(
            "Does CBAM help, does patch transfer help",
            made=("questions", "questions_seeds"),
            figures=tuple(asked),
            drawable=bool(made["questions"].frame["difference"].notna().any()),
        ),
        section("Does training learn", stored=TRIED, otherwise=NOT_TRIED),
        section(
            "Where the network looks",
            tables=_localisation(experiment),
            figures=WHERE if is_measured(experiment) else (),
            files=("localisation", "localisation_differences", "localisation_cases") if is_measured(experiment) else (),
            links=[Link(f"{MAP}: {path.name}", path) for path in sorted(of_map.glob("localisation*.csv"))],
        ),
        section(
            "Split protocols",
            made=("protocols",),
            figures=("protocols",) if "protocols" in made else (),
            otherwise=ONE_PROTOCOL,
        ),
        section("What the printed numbers imply", prose=[ARITHMETIC], stored=tuple(audit(experiment))),
        section("Systems the paper cites", made=("cited",)),
        section("Checklist", prose=[CHECKLIST], tables=_checklist(experiment, known), files=("checklist",)),
        section(
            "Runs",
            facts=("training", "final_model", "software"),
            stored=("outcomes", "environment"),
            links=notebooks(experiment),
        ),
        section(
            "How to cite",
            prose=citations,
            facts=("availability",),
            links=[Link("the paper", PAPER)],
        ),
    ]


def _tested(experiment: Experiment, known: Mapping[str, str]) -> list[str]:
    """What was asked, of whom, and how the main network did; or that it was not tested."""
    told = [known[name] for name in IN_SHORT if name in known]
    if "performance" in known:
        return told
    return [*told, UNTESTED.format(*experiment.main_in_words)]


def _networks(table: "export.Table") -> bool:
    """Whether Table 1 or 2 has a network's numbers."""
    return bool(table.frame.loc[table.frame["block"] == "network", "auc"].notna().any())


def _localisation(experiment: Experiment) -> "list[Table]":
    """Of Grad-CAM and of the mass map, whichever was measured."""
    shown = localisation_tables(experiment) if is_measured(experiment) else []
    folder = extra_folder(experiment, MASS_MAP)
    if (folder / LOCALISATION).exists():
        shown += tables_of_maps(experiment, MAP, folder, EXTRA_LABELS[MASS_MAP])
    return [printed(table) for table in shown]


def _checklist(experiment: Experiment, known: Mapping[str, str]) -> "list[Table]":
    """CLAIM and TRIPOD+AI, a table each; also written to checklist.csv."""
    from mammo_lib.evaluation import checklist
    from mammo_lib.evaluation.report import Table

    filled = checklist.fill(known)
    paths.write_table(filled, experiment.results / "checklist.csv")
    tables = []
    for name, rows in filled.groupby("guideline", sort=False):
        answered = (rows["state"] == checklist.ANSWERED).sum()
        tables.append(Table(f"{name}: {answered} of {len(rows)} answered", rows.drop(columns="guideline"), folded=True))
    return tables
