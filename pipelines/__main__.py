"""The command line: dhpf run | describe | list | match | pairs | models."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhpf.errors import InputError
from dhpf.pipelines.config import STAGES, Workflow
from dhpf.pipelines.outputs.store import remove_objects

EXIT_INPUT, EXIT_REJECTS, EXIT_REFUSED, EXIT_INTERRUPTED = 2, 3, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 2 for input that cannot be used; 3 when all is done but some pairs were rejected; 4 when a model version
        does not hold what a champion must.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except InputError as error:
        print(f"dhpf: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("dhpf: interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dhpf", description="Which point of one image is which point of another.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a workflow of workflows.yaml")
    _add_workflow_options(run)
    run.add_argument("--only", choices=STAGES, help="run this stage alone")
    run.add_argument("--restart", choices=STAGES, metavar="STAGE", help="delete this stage's output first")
    run.add_argument("--dry-run", action="store_true", help="say what matching its collections takes, and stop there")
    run.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: one here)")
    run.set_defaults(command=_run)

    describe = commands.add_parser("describe", help="say what a workflow would do and what is complete")
    _add_workflow_options(describe)
    describe.set_defaults(command=_describe)

    listing = commands.add_parser("list", help="list the workflows")
    listing.add_argument("--file", type=Path, default=Path("workflows.yaml"), help="workflow file")
    listing.set_defaults(command=_list)

    match = commands.add_parser("match", help="match two images and draw the result")
    match.add_argument("source", type=Path)
    match.add_argument("target", type=Path)
    match.add_argument("--model", help="checkpoint, or models:/NAME@ALIAS (default: untrained, works at once)")
    match.add_argument("--weights", help="file with the backbone's weights")
    match.add_argument("--points", help='source points to transfer, "x,y;x,y;..." in pixels')
    match.add_argument("--limit", type=int, default=30, help="matches to draw (default 30)")
    match.add_argument("--output", type=Path, default=Path("match.png"), help="picture (default match.png)")
    match.add_argument("--work", type=Path, default=Path("dhpf-work"), help="folder of the model registry")
    match.set_defaults(command=_match)

    pairs = commands.add_parser("pairs", help="write the pairs of a folder of images as a table, or count them")
    pairs.add_argument("collection", help="folder of images")
    pairs.add_argument(
        "--select", default="all", help="all, within-folders, reference, neighbours or list (default all)"
    )
    pairs.add_argument("--reference", metavar="ID", help="this image with all others; its path below the folder")
    pairs.add_argument("--reach", type=int, metavar="K", help="how many next images are an image's neighbours")
    pairs.add_argument("--list", type=Path, metavar="FILE", help="CSV or Parquet with the columns source and target")
    pairs.add_argument("--output", "-o", type=Path, help="the table, a Parquet file")
    pairs.add_argument(
        "--dry-run", action="store_true", help="print the number of pairs and their blocks, write nothing"
    )
    pairs.add_argument("--max-images", type=int, default=100, help="images that a block may hold (default 100)")
    pairs.add_argument("--max-pairs", type=int, default=500, help="pairs that a block may hold (default 500)")
    pairs.set_defaults(command=_pairs)

    models = commands.add_parser("models", help="list, compare, promote and roll back registered models")
    _add_models_commands(models.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _add_models_commands(commands: Any) -> None:
    work = {"type": Path, "default": Path("dhpf-work"), "help": "folder of the model registry (default dhpf-work)"}
    listing = commands.add_parser("list", help="versions, their aliases, metrics and verdicts")
    listing.add_argument("name", nargs="?", metavar="NAME", help="registered model (default: all)")
    listing.add_argument("--work", **work)
    listing.set_defaults(command=_models_list)
    for name, what in (
        ("compare", "judge a version by the workflow's promotion settings, against the champion"),
        ("promote", "the same, and make the version champion if it passes"),
    ):
        judging = commands.add_parser(name, help=what)
        _add_workflow_options(judging)
        judging.add_argument("version", nargs="?", default="latest-trained", metavar="VERSION", help=_VERSION_HELP)
        judging.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: one here)")
        judging.set_defaults(command=_models_judge, promote=name == "promote")
    rollback = commands.add_parser("rollback", help="make the champion before the present one champion again")
    rollback.add_argument("name", nargs="?", default="dhpf", metavar="NAME", help="registered model (default dhpf)")
    rollback.add_argument("--work", **work)
    rollback.set_defaults(command=_models_rollback)


_VERSION_HELP = "number or alias of a version of the workflow's model (default latest-trained)"


def _add_workflow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workflow")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help="change a setting")
    parser.add_argument("--file", type=Path, default=Path("workflows.yaml"), help="workflow file")
    parser.add_argument("--work", type=Path, default=Path("dhpf-work"), help="where outputs go (default dhpf-work)")
    data = Path(os.environ.get("DHPF_DATA", "datasets"))
    parser.add_argument("--data", type=Path, default=data, help="where data sets lie (default $DHPF_DATA or datasets)")


def _run(options: argparse.Namespace) -> int:
    from dhpf.pipelines.cluster import needed_cpus, ray_cluster, set_ray_environment
    from dhpf.pipelines.workflow_file import load_workflow

    workflow = load_workflow(options.file, options.workflow, options.set, options.data.resolve())
    folder = (options.work / workflow.name).resolve()
    if options.dry_run:
        return _dry_run(workflow, folder, options.work)

    set_ray_environment(options.address, options.work)
    from dhpf.pipelines.tracking.mlflow_runs import Tracker
    from dhpf.pipelines.workflow import WorkflowRun

    tracker = Tracker(options.work)
    run = WorkflowRun(workflow, folder, tracker)
    run.require_models(options.only)
    if options.restart:
        _remove(folder / options.restart)
    with ray_cluster(options.address, needed_cpus(workflow)):
        outcome = run.run(options.only)
    print(f"\n{workflow.name}: done")
    for line in outcome.lines:
        print(f"  {line}")
    print(f"  outputs   {folder}")
    print(f"  tracking  {tracker.uri}   (look: mlflow ui --backend-store-uri {tracker.uri})")
    if outcome.num_rejected:
        print(
            f"dhpf: {outcome.num_rejected} pairs rejected, all others done; the first: {outcome.first_rejection}; "
            f"all in {folder}/**/rejects.parquet and in column status of {folder / 'match'}",
            file=sys.stderr,
        )
        return EXIT_REJECTS
    return 0


def _remove(folder: Path) -> None:
    remove_objects(folder)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"--restart: {error.filename} cannot be removed ({error.strerror})") from error


def _dry_run(workflow: Workflow, folder: Path, work: Path) -> int:
    from dhpf.pipelines.tracking.mlflow_runs import Tracker
    from dhpf.pipelines.workflow import WorkflowRun

    for line in WorkflowRun(workflow, folder, Tracker(work)).dry_run():
        print(line)
    return 0


def _describe(options: argparse.Namespace) -> int:
    from dhpf.pipelines.workflow import stage_states
    from dhpf.pipelines.workflow_file import load_workflow

    workflow = load_workflow(options.file, options.workflow, options.set, options.data.resolve())
    print(f"{workflow.name}: {workflow.summary}")
    model = workflow.model
    print(f"  model: {model.backbone}, selection {model.selection}, image side {model.image_side}")
    states = stage_states(workflow, options.work / workflow.name)
    width = max(len(title) for title, _ in states)
    for title, state in states:
        print(f"  {title:<{width}}  {state}")
    if workflow.promotion is not None:
        print(f"  promotion by {', '.join(workflow.promotion.on)}: dhpf models promote {workflow.name}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from dhpf.pipelines.workflow_file import read_workflows

    workflows = read_workflows(options.file)
    width = max(map(len, workflows))
    for name, content in workflows.items():
        print(f"{name:<{width}}  {(content or {}).get('summary', '')}")
    return 0


def _match(options: argparse.Namespace) -> int:
    import numpy as np

    from dhpf.drawing import draw_matches, save_picture
    from dhpf.images import read_image
    from dhpf.pipelines.load import load_matcher

    source, target = read_image(options.source), read_image(options.target)
    wanted = _parse_points(options.points) if options.points else None
    matcher = load_matcher(options.model, options.work, options.weights)
    if wanted is not None:
        points, valid, confidence = matcher.transfer(source, target, wanted)
        picture = draw_matches(
            source, target, np.array(wanted, dtype=np.float32), points, valid=valid, confidence=confidence
        )
        for (x, y), (u, v), found, sure in zip(wanted, points, valid, confidence, strict=True):
            where = f"{u:.1f},{v:.1f}  confidence {sure:.2f}" if found else "no prediction"
            print(f"{x:g},{y:g} -> {where}")
    else:
        matches = matcher.match(source, target, options.limit)
        picture = draw_matches(
            source, target, matches.source_points, matches.target_points, confidence=matches.confidence
        )
        layers = ", ".join(map(str, matches.layers)) or "none (layer 0 answered)"
        print(f"{len(matches)} mutual matches; layers used: {layers}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_picture(picture, options.output)
    print(f"picture: {options.output}")
    return 0


def _pairs(options: argparse.Namespace) -> int:
    from dhpf.pipelines.inputs.pair_table import planned_table, rejects_path, require_absent, write_pair_table
    from dhpf.pipelines.inputs.planned_pairs import PairsRequest

    if not options.dry_run:
        if options.output is None:
            raise InputError("--output: is missing; name a Parquet file, or give --dry-run to write nothing")
        require_absent(options.output)
    chosen = (options.collection, options.select, options.reference, options.reach, options.list and str(options.list))
    request = PairsRequest(*chosen, max_images=options.max_images, max_pairs=options.max_pairs)
    with planned_table(request, None if options.dry_run else options.output.parent) as plan:
        print(plan)
        if not options.dry_run:
            write_pair_table(plan, options.output)
            print(f"pairs: {options.output}")
    if plan.num_rejected:
        where = "" if options.dry_run else f"; all in {rejects_path(options.output)}"
        print(f"dhpf: {plan.num_rejected} rows rejected; the first: {plan.first_rejection}{where}", file=sys.stderr)
        return EXIT_REJECTS
    return 0


def _models_list(options: argparse.Namespace) -> int:
    from dhpf.pipelines.promotion.contest import list_lines
    from dhpf.pipelines.promotion.registry import Registry
    from dhpf.pipelines.tracking.mlflow_runs import Tracker

    for line in list_lines(Registry(Tracker(options.work)), options.name):
        print(line)
    return 0


def _models_judge(options: argparse.Namespace) -> int:
    from dhpf.pipelines.cluster import needed_cpus, ray_cluster, set_ray_environment
    from dhpf.pipelines.workflow_file import load_workflow

    workflow = load_workflow(options.file, options.workflow, options.set, options.data.resolve())
    set_ray_environment(options.address, options.work)
    from dhpf.pipelines.promotion.contest import Contest
    from dhpf.pipelines.tracking.mlflow_runs import Tracker

    folder = (options.work / workflow.name).resolve()
    contest = Contest(workflow, folder, Tracker(options.work), options.version)
    version = contest.candidate.version
    before = contest.champion.version if contest.champion else "none"
    if contest.is_decided:
        print(f"models:/{contest.name}/{version} is the champion already")
        return 0
    with ray_cluster(options.address, needed_cpus(workflow)):
        verdict = contest.promote() if options.promote else contest.compare()
    for line in verdict.lines():
        print(line)
    if not verdict.passed:
        sentence = f"version {version} does not hold what a champion must; the champion stays {before}"
        print(f"dhpf: model {contest.name}: {sentence}", file=sys.stderr)
        return EXIT_REFUSED
    if options.promote:
        print(f"champion of {contest.name}: version {version}, before it {before}")
    return 0


def _models_rollback(options: argparse.Namespace) -> int:
    from dhpf.pipelines.promotion.registry import Registry
    from dhpf.pipelines.tracking.mlflow_runs import Tracker

    before, now = Registry(Tracker(options.work)).rollback(options.name)
    print(f"champion of {options.name}: version {now}, rolled back from {before}")
    return 0


def _parse_points(text: str) -> list[list[float]]:
    try:
        points = [[float(number) for number in part.split(",")] for part in text.split(";")]
    except ValueError as error:
        raise InputError(f"--points {text!r}: write x,y;x,y;...") from error
    if any(len(point) != 2 for point in points):
        raise InputError(f"--points {text!r}: write x,y;x,y;...")
    return points


if __name__ == "__main__":
    sys.exit(main())
