"""The cells of an experiment on a Slurm cluster: each job of Slurm has one GPU and trains one cell at a time.

    python examples/slurm.py --profile paper --protocol official --jobs 6 --queue gpu --walltime 12:00:00
    python examples/slurm.py --dry-run      shows the script that is handed to Slurm, and starts nothing

To be run on a login node, in a checkout on a disk that all nodes share, after `python -m mammo_lib prepare` and split.
A job that Slurm ends, at its wall time for instance, costs its cell's current epoch: the cell goes on in another job,
and what is still undone when this script ends is done by the same command. `status` shows how far everything is.
Needs the extra `cluster`.
"""

import argparse
import sys

from dask_jobqueue import SLURMCluster
from distributed import Client

from mammo_lib import stages
from mammo_lib.training.experiments import UNFINISHED


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--protocol", default="official")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", default="*", help="pattern of cell names, for instance 'P/*'")
    parser.add_argument("--jobs", type=int, default=6, help="of Slurm at once")
    parser.add_argument("--queue", default="gpu", help="Slurm's partition")
    parser.add_argument("--walltime", default="12:00:00", help="of one job")
    parser.add_argument("--cpus", type=int, default=4, help="of one job")
    parser.add_argument("--memory", default="16GB", help="of one job")
    parser.add_argument("--dry-run", action="store_true", help="show the script, start nothing")
    return parser.parse_args()


def make_cluster(arguments: argparse.Namespace) -> SLURMCluster:
    """One worker a job, of one thread: a process trains one cell at a time."""
    return SLURMCluster(
        queue=arguments.queue,
        processes=1,
        cores=1,
        job_cpu=arguments.cpus,
        memory=arguments.memory,
        walltime=arguments.walltime,
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=[f"export OMP_NUM_THREADS={arguments.cpus}"],
    )


def main() -> int:
    arguments = parse()
    try:
        experiment = stages.Experiment.of(arguments.profile, arguments.protocol, arguments.seed)
        if not arguments.dry_run:
            stages.parts(experiment, "G")  # prepared and split, before a job is asked for
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with make_cluster(arguments) as cluster, Client(cluster) as client:
        if arguments.dry_run:
            print(cluster.job_script())
            return 0
        cluster.adapt(minimum_jobs=0, maximum_jobs=arguments.jobs)  # a job that has ended is replaced
        outcomes = stages.train(experiment, arguments.cells, client.get_executor(pure=False))
    print(outcomes.to_string(index=False))
    return int(outcomes["state"].isin(UNFINISHED).any())


if __name__ == "__main__":
    sys.exit(main())
