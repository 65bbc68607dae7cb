"""A run folder: the files each stage writes, so that any stage can be resumed from what is there."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwsearch.errors import JobError
from hwsearch.files import write_whole
from hwsearch.service.job import Job, read_job


class RunFolder:
    """Paths and bookkeeping of one run. `open` creates it or continues it; a different job in the same folder is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job_file = path / "job.toml"
        self.float_file = path / "float.pt"
        self.supernet_file = path / "supernet.pt"
        self.trials_file = path / "trials.jsonl"
        self.front_file = path / "front.json"
        self.front_table = path / "front.csv"
        self.final_file = path / "final.npz"
        self.bundle = path / "bundle"
        self.report_file = path / "report.html"
        self.stages_file = path / "stages.jsonl"

    @classmethod
    def open(cls, path: Path, job: Job) -> "RunFolder":
        folder = cls(path)
        if not folder.job_file.exists():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise JobError(
                    f"A run folder must be new, empty, or hold a run, but {path} holds something else; choose another."
                )
            path.mkdir(parents=True, exist_ok=True)
            write_whole(folder.job_file, job.to_toml())
            return folder
        found = read_job(folder.job_file)
        if found.result_fields() != job.result_fields():
            changed = [key for key, value in job.result_fields().items() if found.result_fields()[key] != value]
            raise JobError(
                f"A run continues with the job it began with, but {folder.job_file} differs in {', '.join(changed)}; "
                "choose another folder or delete this one."
            )
        return folder

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; its seconds are appended when it ends well (a resumed stage has several lines)."""
        start = time.monotonic()
        yield
        line = json.dumps({"stage": name, "seconds": round(time.monotonic() - start, 3)})
        with self.stages_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, summed over resumptions that ended well."""
        total: dict[str, float] = {}
        if self.stages_file.exists():
            for line in self.stages_file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                total[record["stage"]] = total.get(record["stage"], 0.0) + record["seconds"]
        return total
