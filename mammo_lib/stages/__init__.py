"""The steps of the paper, one short function each, where the rooms meet: what a notebook calls and what a shell calls.

Each step reads what the step before wrote, writes its own files, and skips what is already done. Arrays come from
`data`, networks from `models`; `training` and `evaluation` get both as arguments. The heavy imports stand inside the
steps that need them, so that a host without pydicom can train and a host without torch can make the tables.
"""

from mammo_lib.stages.answers import overview
from mammo_lib.stages.archive import integrity, lesion_boxes, load, parts, prepare, read_archive, split
from mammo_lib.stages.attention import first_steps, gates
from mammo_lib.stages.comparison import draw_evaluation, evaluate, predictions
from mammo_lib.stages.exhibits import captioned
from mammo_lib.stages.experiment import Experiment, check, describe_environment, executor, forget
from mammo_lib.stages.explanation import draw_explanations, explain, localisation_tables
from mammo_lib.stages.fetching import download
from mammo_lib.stages.finished import is_current, remember
from mammo_lib.stages.mapping import map_masses, transfer_map
from mammo_lib.stages.page import draw_everything, report
from mammo_lib.stages.pictures import draw_data, show
from mammo_lib.stages.probing import choose_reading, probe, transfer_probe
from mammo_lib.stages.published import audit
from mammo_lib.stages.trainings import cells, draw_learning_curves, kept_epochs, status, train, weights_missing
from mammo_lib.stages.transferring import transfer_cells
from mammo_lib.stages.tuning import controls, tune
