"""The command line: verbs over the library. Results go to stdout, progress to stderr; every reading verb has --json.

Heavy libraries are imported inside the verbs, so that --help answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsearch.errors import HwsearchError, JobError

if TYPE_CHECKING:
    from hwsearch.service.inputs import JobInputs
    from hwsearch.service.pipeline import Pipeline

app = typer.Typer(
    name="hwsearch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search input-aware dynamic mixed-precision networks that fit and run on real microcontrollers.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job to run.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; default: runs/<job name>.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Search workers; default: as the job says.")]
RayAddress = Annotated[str | None, typer.Option(help="Ray cluster (host:port) to search on; default: this computer.")]
ProfileName = Annotated[str, typer.Option(help="Hardware profile: a name or a folder.")]
SpaceName = Annotated[str, typer.Option(help="Search space: a name or a TOML file.")]

Widen = Annotated[bool, typer.Option("--widen", help="Run widths that a profile lacks at the next wider one it has.")]


def main() -> None:
    """Entry point: errors a user can mend become one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except HwsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("stopped; finished work is kept, run the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None


def _emit(record: Any, text: str, as_json: bool) -> None:
    print(json.dumps(record, indent=2) if as_json else text)


@app.callback()
def _root(
    profiles: Annotated[Path | None, typer.Option(help="Folder of your own hardware profiles, looked into first.")] = None,
) -> None:
    if profiles is not None:
        os.environ["HWSEARCH_PROFILES"] = str(profiles)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("hwsearch-demo"),
    workers: Annotated[int, typer.Option(min=1, help="Search workers.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    as_json: Json = False,
) -> None:
    """The whole job on scikit-learn's digits for a Cortex-M4 board; nothing to download, no board needed."""
    from hwsearch.service.inputs import JobInputs
    from hwsearch.service.job import demo_job

    _run_whole(_pipeline(JobInputs(demo_job(seed, workers)), out, workers, None), as_json)


@app.command()
def run(
    job_file: JobFile,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """The whole job of a job file, from training to the verified bundle and its report."""
    _run_whole(_pipeline_of(job_file, out, workers, ray_address, resume=resume), as_json)


def _run_whole(pipeline: "Pipeline", as_json: bool) -> None:
    from hwsearch.service import views

    summary = pipeline.run()
    _emit(summary, views.run_text(summary), as_json)


def _pipeline(inputs: "JobInputs", out: Path, workers: int | None, ray_address: str | None) -> "Pipeline":
    from hwsearch.service.run_folder import RunFolder

    folder = RunFolder.open(out, inputs.job)
    from hwsearch.service.console import stage_progress
    from hwsearch.service.pipeline import Pipeline

    return Pipeline(inputs, folder, stage_progress, workers=workers, ray_address=ray_address)


def _pipeline_of(
    job_file: Path, out: Path | None, workers: int | None = None, ray_address: str | None = None, *, resume: bool = True
) -> "Pipeline":
    from hwsearch.errors import JobError
    from hwsearch.service.job import read_job

    job = read_job(job_file)
    folder = out or Path("runs") / job_file.stem
    if not resume and (folder / "job.toml").exists():
        raise JobError(
            f"A new run needs a new folder, but {folder} holds one already; add --resume to continue it, or choose --out."
        )
    from hwsearch.service.inputs import JobInputs
    from hwsearch.service.preflight import check_job

    inputs = JobInputs(job)
    check_job(inputs, ray_address)
    return _pipeline(inputs, folder, workers, ray_address)


@app.command()
def train(job_file: JobFile, out: Out = None) -> None:
    """Train the float model and the supernet of a job."""
    pipeline = _pipeline_of(job_file, out)
    pipeline.supernet  # noqa: B018
    print(pipeline.folder.supernet_file)


@app.command()
def search(
    job_file: JobFile, out: Out = None, workers: Workers = None, ray_address: RayAddress = None, as_json: Json = False
) -> None:
    """Search the front of a job (training first what is missing)."""
    from hwsearch.service import views

    pipeline = _pipeline_of(job_file, out, workers, ray_address)
    record = views.front_record(pipeline.front)
    _emit(record, views.front_text(record), as_json)


@app.command()
def finalize(job_file: JobFile, out: Out = None) -> None:
    """Train the chosen front point to the end under the job's budget."""
    pipeline = _pipeline_of(job_file, out)
    pipeline.final  # noqa: B018
    print(pipeline.folder.final_file)


@app.command()
def export(job_file: JobFile, out: Out = None) -> None:
    """Write the bundle of a job's final model."""
    print(_pipeline_of(job_file, out).bundle.path)


@app.command()
def report(job_file: JobFile, out: Out = None) -> None:
    """Write report.html of a run anew."""
    print(_pipeline_of(job_file, out).report())


@app.command()
def preview(
    space: SpaceName = "digits_cnn",
    profile: ProfileName = "nucleo_l4r5zi",
    task: Annotated[str, typer.Option(help="Task the space's network learns.")] = "digits",
    data: Annotated[str | None, typer.Option(help="Folder of the task's data.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Trained float weights (a state_dict); else they are trained first.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """A static accuracy-latency front in seconds: per-op sensitivity and an exact integer programme, no supernet."""
    from hwsearch.service import views
    from hwsearch.service.previewing import preview_front

    record = views.front_record(preview_front(task, data, space, profile, weights, seed))
    _emit(record, views.front_text(record), as_json)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Exported folder.")],
    as_json: Json = False,
) -> None:
    """Recompute everything a bundle promises; exit 1 if a check fails."""
    from hwsearch.exporters.verify import verify as verify_bundle
    from hwsearch.service import views

    result = verify_bundle(bundle)
    record = {"ok": result.ok, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in result.checks]}
    _emit(record, views.verification_text(record), as_json)
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def profiles(
    name: Annotated[str | None, typer.Argument(help="Show this one.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw it to an .svg or .html file: where low bits pay.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print its whole table, latency and energy with it, and nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the hardware profiles, or show one."""
    from hwsearch.hardware.profile import list_profiles, load_profile, wide_text
    from hwsearch.service import views

    if as_csv and as_json:
        raise JobError("A profile must be printed in one form, but both --csv and --json are given; choose one.")
    if name is None:
        if picture is not None:
            raise JobError("A picture must be of one profile, but none is named; run hwsearch profiles NAME --picture FILE.")
        if as_csv:
            raise JobError("A table must be of one profile, but none is named; run hwsearch profiles NAME --csv.")
        records = [views.profile_record_or_fault(found) for found in list_profiles()]
        _emit(records, views.profiles_text(records), as_json)
        return
    profile = load_profile(name)
    if picture is not None:
        from hwsearch.report.profile_picture import write_picture

        write_picture(profile, picture)
    if as_csv:
        print(wide_text(profile.measurements), end="")
        return
    record = views.profile_record(profile) | views.profile_details(profile)
    _emit(record, views.profile_text(record), as_json)


@app.command()
def spaces(name: Annotated[str | None, typer.Argument(help="Show this one.")] = None, as_json: Json = False) -> None:
    """List the search spaces, or show one: every unit, its precisions and the reason for each restriction."""
    from hwsearch.graph.space import list_spaces, load_space, network_for_space
    from hwsearch.service import views

    names = list_spaces() if name is None else [name]
    records = [views.space_record(load_space(found, network_for_space(found))) for found in names]
    _emit(records if name is None else records[0], views.spaces_text(records, whole=name is not None), as_json)


@app.command()
def cost(
    space: SpaceName,
    profile: Annotated[list[str], typer.Option(help="Hardware profile: a name or a folder; several stand side by side.")],
    bits: Annotated[str, typer.Option(help="Uniform precision such as w4a8, or op=w4a8,op=… for each op.")],
    widen: Widen = False,
    as_json: Json = False,
) -> None:
    """Price an assignment, op by op, on one device or on several side by side."""
    from hwsearch.graph.space import load_space, network_for_space
    from hwsearch.hardware.profile import load_profile
    from hwsearch.service import views
    from hwsearch.service.repricing import compare

    devices = [load_profile(name) for name in profile]
    loaded = load_space(space, network_for_space(space))
    records = compare(loaded, devices, views.read_bits(loaded, bits), wider=widen)
    if len(records) > 1:
        _emit({"profiles": records}, views.comparison_text(records), as_json)
    else:
        only = {key: value for key, value in records[0].items() if key not in ("profile", "uncertainty")}
        _emit(only, views.cost_text(only), as_json)


@app.command()
def price(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a finished search, or its front.json.")],
    profile: ProfileName,
    widen: Widen = False,
    as_json: Json = False,
) -> None:
    """Price a finished front on another device, without training."""
    from hwsearch.service.repricing import price_run

    record, text = price_run(run, profile, wider=widen)
    _emit(record, text, as_json)


@app.command()
def measure(
    device: Annotated[str, typer.Argument(help="Profile folder's name, or `host` for this computer.")],
    target: Annotated[str | None, typer.Option(help="emulator, host or ssh:USER@HOST; default: as the profile says.")] = None,
    space: Annotated[list[str] | None, typer.Option(help="Also measure the shapes of this search space.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of profiles to write to; default: hardware_profiles.")] = None,
    meter: Annotated[
        Path | None, typer.Option(help="CSV that your power meter writes meanwhile: time_s (since 1970), power_w or power_mw.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Measure rows anew that still hold.")] = False,
) -> None:
    """Time every kernel at every shape and precision on a device, and write its table."""
    from hwsearch.service.measurement import measure_device

    print(measure_device(device, target, space or [], folder, meter, again=again))


@app.command()
def check(paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Profiles, spaces, jobs, bundles.")]) -> None:
    """Say what is wrong with a profile, space, job or bundle."""
    from hwsearch.service.preflight import check_path

    failed = 0
    for path in paths:
        try:
            print(f"{path}: {check_path(path)}")
        except HwsearchError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed += 1
    if failed:
        raise typer.Exit(2)
