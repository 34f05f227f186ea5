"""CBIS-DDSM from the Imaging Data Commons: the whole archive, or its sets P and G alone."""

from concurrent.futures import Executor

from mammo_lib.config import DATA_SEED
from mammo_lib.stages.experiment import Experiment


def download(
    experiment: Experiment, executor: Executor | None = None, stream: bool = False, confirmed: bool = True
) -> str:
    """Fetch the mass set into the profile's archive; say what was done, or, unless `confirmed`, what would be.

    With `stream`, each patient is prepared and then deleted: under 3 GB of disk instead of 83. ValueError when the
    profile is of other data; errors as in data/download.py and data/streaming.py.
    """
    from mammo_lib.data import download as room
    from mammo_lib.data import streaming

    profile, archive = experiment.profile, experiment.places.archive
    if profile.source != "cbis_ddsm":
        raise ValueError(f"profile {profile.name} is of other data ({profile.data}): choose --profile paper")
    series = room.select()
    plan = streaming.Stream(archive, experiment.places.prepared, profile, DATA_SEED)
    patients, transfers = streaming.jobs_of(plan, series), room.transfers(series, archive)
    missing = [job for job in transfers if not room.is_fetched(job)]
    undone = [job for job in patients if not streaming.is_done(job)]
    lines = [room.describe(series, undone if stream else missing), f"archive: {archive}", room.missing_tables(archive)]
    print(*filter(None, lines), sep="\n")
    if not confirmed:
        return "nothing was fetched: --yes begins"
    if stream:
        return str(streaming.run(plan, patients, executor))
    room.check_place(archive, sum(job.size for job in missing))
    room.run(room.fetch, missing, executor)
    return f"{archive}: all {len(series)} series are there"
