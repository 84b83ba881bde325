"""`selfalign-compare`: the jobs of a sweep, or any runs, side by side.

selfalign-compare FOLDER           the runs in it; leaves comparison.md, .csv and .png there
selfalign-compare RUN RUN ...      prints the same of some run_dirs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from selfalign_ray.errors import UserError
from selfalign_ray.places import fault_of, place_of
from selfalign_ray.report.comparison import jobs_in, markdown, read_job, write_comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="selfalign-compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="or s3://bucket/...")
    given = parser.parse_args(arguments).folders
    try:
        folders = [place_of(folder) for folder in given]
        jobs = [read_job(run_dir) for folder in folders for run_dir in jobs_in(folder)]
        text = write_comparison(jobs, folders[0]) if len(folders) == 1 else markdown(jobs)
    except UserError as error:
        sys.stderr.write(f"selfalign-compare: error: {error}\n")
        return 2
    except Exception as error:
        fault = next(filter(None, (fault_of([error], place_of(one)) for one in given)), None)
        if fault is None and isinstance(error, OSError):
            fault = f"{error.filename}: {error.strerror}"
        if fault is None:
            raise
        sys.stderr.write(f"selfalign-compare: error: {fault}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
