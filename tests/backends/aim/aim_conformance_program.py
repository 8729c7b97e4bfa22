"""Try the back end with the contract's own suite, read by Aim; started by the tests.

Usage: python aim_conformance_program.py REPOSITORY
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from aim import Repo

from tracer.backends.aim import AimBackend
from tracer.testing import check_backend


def main(folder: str) -> None:
    """Try it."""

    def read(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        repo = Repo.from_path(folder)
        repo.container_pool.clear()
        found = {}
        for one in repo.query_metrics(f"run.hash == '{remote['run_hash']}'", report_mode=0).iter_runs():
            for metric in one:
                steps, (values, *_) = metric.data.numpy()
                found[metric.name] = list(zip(steps.tolist(), values.tolist(), strict=True))
        return found

    dead = {"remote_uri": "aim://127.0.0.1:9"}
    tried = check_backend(AimBackend, read=read, options={"repo_path": folder}, dead=dead, many=5000)
    sys.stdout.write("\n".join(tried))


if __name__ == "__main__":
    main(sys.argv[1])
