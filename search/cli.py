"""The command line: parse, call, print. It decides nothing; torch loads inside commands alone.

The composition root: the one module of ``search`` that calls ``reports``.
"""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from blocks.errors import StorageFault, StudyError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocks.site import SiteTable
    from search.engine import StudyResult

STORAGE = "sqlite:///studies.db"
INTERRUPTED = 130
RETRY_FAILED = " --retry-failed"
DATA_NAMES = "digits, fashion-mnist, mnist, cifar10, cifar100, svhn, fer2013, folder"

app = typer.Typer(
    name="search",
    help="Decide, with evidence, which attention block a convolutional network should have, where,"
    " and how strong.\n\nStart with: search run --space attention.yaml",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Storage = Annotated[
    str, typer.Option(help="Database with the results, as an SQLAlchemy URL.", metavar="URL")
]
Format = Annotated[str, typer.Option("--format", help="table, json or csv.", metavar="FORMAT")]
DataFormat = Annotated[str, typer.Option("--format", help="table or json.", metavar="FORMAT")]
StudyName = Annotated[
    str | None, typer.Option(help="Name of the study. (default: the one that was run last)")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attention-search {version('attention-search')}")
        raise typer.Exit


@app.callback()
def _search(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
def run(
    space: Annotated[
        str,
        typer.Option(help="A space file, or the name of a shipped space.", metavar="F"),
    ],
    study: Annotated[
        str | None, typer.Option(help="Name of the study. (default: the space's name)")
    ] = None,
    storage: Storage = STORAGE,
    trials: Annotated[
        int | None,
        typer.Option(help="The study's total of trials, baseline included. (default: 24)"),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trials per candidate, paired by seed. (default: 1)")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a trial. (default: the space's, else 12)")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"Data set: {DATA_NAMES}, or your own. (default: digits)")
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            help="Where the data's files are. (default: where the study last had them, ./data, or"
            " the user's data folder)",
            metavar="DIR",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data's files where they are not there.")
    ] = False,
    sampler: Annotated[
        str | None,
        typer.Option(help="Who proposes: nsga2, tpe, random, grid. (default: nsga2)"),
    ] = None,
    pruner: Annotated[
        str | None, typer.Option(help="Who stops trials early: none. (default: none)")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Trials that train at once, or auto: one per core, on GPUs as many as memory and"
            " measured throughput say. (default: auto)",
            metavar="N",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where trials train: cpu or cuda.")] = "cpu",
    gpus: Annotated[
        str,
        typer.Option(
            help="GPUs to spread workers over, such as 0,1; implies cuda. (default: all visible)"
        ),
    ] = "",
    processes: Annotated[
        int,
        typer.Option(
            "--processes-per-trial",
            help="Processes that train one trial together, each on a GPU of its own.",
            metavar="K",
        ),
    ] = 1,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            help="Make trainings on a GPU repeat bit for bit; blocks that cannot are refused."
            " (default: not)",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Who runs the workers: local (processes on this machine).")
    ] = "local",
    seed: Annotated[
        int | None, typer.Option(help="First seed; replicate r has seed + r. (default: 0)")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a key of the space: training.epochs=5.", metavar="KEY=VALUE"
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="A Python file with your own blocks or data sets.", metavar="PATH"),
    ] = None,
    extend: Annotated[
        bool, typer.Option(help="Go on although the stored study has another space.")
    ] = False,
    latency: Annotated[
        bool | None,
        typer.Option(
            help="Time every complete trial in turn with the baseline; trials that have no"
            " latency yet are timed, not trained again. (default: where latency_ratio is an"
            " objective)",
            show_default=False,
        ),
    ] = None,
    keep_weights: Annotated[
        str | None,
        typer.Option(
            help="Whose final weights are kept beside the database: all, front (and the"
            " baseline's) or none; what is kept already stays with none. (default: front)",
            metavar="WHICH",
        ),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Say how many epochs and seconds trials need to this validation accuracy, a"
            " share such as 0.95. (default: none)",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once the study has been run for so long, over restarts: 90s, 30m,"
            " 2h, 1d, 1h30m, or none. (default: none)",
            metavar="TIME",
        ),
    ] = None,
    device_hours: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once attempts have taken so many hours of GPUs, or of processes on"
            " a processor, over restarts; or none. (default: none)",
            metavar="HOURS",
        ),
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once the front has not moved for so many, or none. (default:"
            " none)",
            metavar="N",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train failed trials again, under their numbers and seeds."
        ),
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(help="Where the report goes. (default: STUDY-report.html)", metavar="PATH"),
    ] = None,
    look: Annotated[
        bool,
        typer.Option(
            "--explain", help="At the end, look at the baseline and the front (search explain)."
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it; ends with the front and the report's path.

    A setting without a flag is the stored study's, else the space file's, else the default.
    Interrupted or killed, the same command goes on where it stopped; so it does after a budget has
    ended it, with a larger one.

    Examples: search run --space attention.yaml --trials 40; search run --space attention.yaml
    --trials 500 --time-limit 2h --patience 50
    """
    from reports.page import check_place, report_path
    from search.devices import read_gpus
    from search.plan import EXECUTORS, make_plan
    from search.study import execute

    if executor not in EXECUTORS:
        raise StudyError(f"--executor {executor!r} is unknown. Allowed: {', '.join(EXECUTORS)}")
    plan = make_plan(
        space,
        study=study,
        storage=storage,
        trials=trials,
        seeds=seeds,
        epochs=epochs,
        data=data,
        data_dir=data_dir,
        download=download,
        sampler=sampler,
        pruner=pruner,
        workers=workers,
        device="cuda" if gpus else device,
        gpus=read_gpus(gpus),
        processes=processes,
        deterministic=deterministic,
        seed=seed,
        overrides=overrides or (),
        includes=include or (),
        extend=extend,
        latency=latency,
        keep_weights=keep_weights,
        target_accuracy=target_accuracy,
        time_limit=time_limit,
        device_hours=device_hours,
        patience=patience,
        retry_failed=retry_failed,
    )
    check_place(report_path(plan.study, report))
    if look and plan.keep_weights == "none":
        raise StudyError("--explain looks at kept networks: it needs --keep-weights front, or all")
    result = execute(plan, _watch())
    if look and result.front:
        _look(result.study, storage)
    _close_result(result, storage, report)


def _look(study: str, storage: str) -> None:
    """Look at baseline and front; a study is not lost where that cannot be done."""
    from search import output
    from search.explain import explain as look_at

    try:
        look_at(study, storage=storage)
    except ToolError as error:
        output.remarks.print(Text(output.clean(f"--explain: {error}")))


def _watch() -> Any:
    from search import live, output

    return live.LiveWatch() if output.remarks.is_terminal else live.PlainWatch()


def _close_result(result: StudyResult, storage: str, report: str | None) -> None:
    """Print the front, write the report, and end with the exit code that says how it went."""
    from reports.page import write_report
    from search import output
    from search.database import storage_url, tidy
    from search.show import front_table

    if result.front:
        title = f"Front of {result.study}: {len(result.front)} of {len(result.trials)} trials"
        output.results.print(front_table(result.trials, result.front, title=title))
    note = "" if result.stopped else result.note  # what has stopped it is said at the end
    for remark in (
        result.rejected,
        note,
        result.warning and f"Optuna's mirror: {result.warning}",
    ):
        if remark:
            output.remarks.print(Text(output.clean(remark)))
    path = write_report(result.study, storage=storage, output=report)
    tidy(storage_url(storage))
    if result.weights:
        typer.echo(f"weights: {output.clean(result.weights)}")
    typer.echo(f"report: {path}")
    if result.stopped:
        raise StoppedError(result.stopped)
    if not result.succeeded:
        errors = {trial.error for trial in result.trials if trial.error}
        raise NothingSucceededError(next(iter(sorted(errors)), "no trial has ended"))


class StoppedError(Exception):
    """The study has stopped itself, because the same mistake ended too many trials."""


class NothingSucceededError(Exception):
    """The study ran, but no trial has a result."""


@app.command()
def report(
    study: StudyName = None,
    storage: Storage = STORAGE,
    output: Annotated[
        str | None,
        typer.Option(help="File to write. (default: STUDY-report.html)", metavar="PATH"),
    ] = None,
) -> None:
    """Write the one-file report of a study; it opens without a network.

    Example: search report --study attention --output attention.html
    """
    from reports.page import write_report

    typer.echo(f"report: {write_report(study, storage=storage, output=output)}")


@app.command("list")
def list_studies(storage: Storage = STORAGE, form: Format = "table") -> None:
    """List the studies of a database.

    Example: search list --format json
    """
    from search import output, show

    _known_format(form, output.FORMATS)
    with _Reading(storage) as engine:
        rows = show.studies_data(engine)
    if form == "json":
        output.emit(output.json_text(rows))
    elif form == "csv":
        output.emit(output.csv_text(rows))
    else:
        output.results.print(show.studies_table(rows))


@app.command("show")
def show_study(
    study: Annotated[
        str | None, typer.Argument(help="Name of the study. (default: the one run last)")
    ] = None,
    trial: Annotated[int | None, typer.Argument(help="Number of one trial.")] = None,
    storage: Storage = STORAGE,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Say how many epochs and seconds each trial took to this validation accuracy."
            " (default: the study's)",
            show_default=False,
        ),
    ] = None,
    form: Format = "table",
) -> None:
    """Show a study's trials and front, or one trial in full.

    Examples: search show attention; search show attention 7; search show attention --format json;
    search show attention --target-accuracy 0.9
    """
    from search import output, show, trial_view
    from search.beside import beside_table

    _known_format(form, output.FORMATS)
    with _Reading(storage) as engine:
        if trial is not None and study is not None:
            data = show.one_trial_data(engine, study, trial, target=target_accuracy)
            if form == "table":
                for part in trial_view.trial_tables(data):
                    output.results.print(part)
            else:
                output.emit(output.csv_text([data]) if form == "csv" else output.json_text(data))
            return
        data = show.study_data(engine, study, target=target_accuracy)
    if form == "json":
        output.emit(output.json_text(data))
    elif form == "csv":
        rows = [{**row, "front": row["number"] in data["front"]} for row in data["trials"]]
        output.emit(output.csv_text(_same_keys(rows)))
    else:
        title = f"{data['study']}: {data['status']}, {len(data['front'])} on the front (*)"
        output.results.print(show.trials_table(title, data["trials"], data["front"]))
        if "published" in data:
            output.results.print(beside_table(data["published"]))
        for remark in show.remarks(data):
            output.results.print(Text(output.clean(remark)))


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


@app.command()
def explain(
    study: Annotated[
        str | None, typer.Argument(help="Name of the study. (default: the one run last)")
    ] = None,
    trials: Annotated[
        list[int] | None,
        typer.Argument(help="Numbers of trials. (default: the baseline and the front)"),
    ] = None,
    storage: Storage = STORAGE,
    images: Annotated[
        str | None,
        typer.Option(
            help="How many images to look at, or which: 8, or 0,5,9. (default: 8, those on which"
            " the trials disagree first)"
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Where images are from: train, validation or test.")
    ] = "validation",
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output", help="Write Grad-CAM side by side to this figure.", metavar="F.png"
        ),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="A Python file with your own blocks.", metavar="PATH")
    ] = None,
    form: DataFormat = "table",
) -> None:
    """Look at what attention does in trained networks: Grad-CAM, gains, frequencies, maps.

    It needs kept weights (search run --keep-weights front). What is seen is kept in the database
    and shown by the report; docs/explain.md says what each number means.

    Examples: search explain attention; search explain attention 0 7 --output cams.png
    """
    from search import output
    from search.explain import explain as look
    from search.explained import explained_parts
    from search.include import include as bring_in
    from search.insight.panel import check_output, write_panel

    _known_format(form, ("table", "json"))
    place = None if output_file is None else check_output(output_file)
    for path in include or ():
        bring_in(path)
    explanation = look(study, trials or (), storage=storage, images=images, split=split)
    if form == "json":
        output.emit(output.json_text(explanation.to_json()))
    else:
        for part in explained_parts(explanation):
            output.results.print(Text(output.clean(part)) if isinstance(part, str) else part)
    if place is not None:
        write_panel(explanation, place)
        output.remarks.print(f"Grad-CAM: {place}")


@app.command()
def blocks(
    backbone: Annotated[str | None, typer.Argument(help="A backbone.")] = None,
    backbone_option: Annotated[
        str | None, typer.Option("--backbone", help="What every block costs in this backbone.")
    ] = None,
    sites: Annotated[
        bool, typer.Option("--sites", help="The backbone's sites and their maps instead.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="The cost of the backbone's stages instead.")
    ] = False,
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Images, such as 3x224x224. (default: the papers')"),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Outputs of the network. (default: the papers')")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="A Python file with your own blocks.", metavar="PATH")
    ] = None,
    load: Annotated[
        str | None, typer.Option(help="A file of published weights, to load.", metavar="FILE")
    ] = None,
    load_as: Annotated[
        str | None,
        typer.Option("--as", help="The attention block of these weights.", metavar="BLOCK"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="An option that the file does not say: heads=4.", metavar="OPTION=VALUE"
        ),
    ] = None,
    written: Annotated[
        str | None,
        typer.Option("--output", help="Write the loaded network here.", metavar="F.safetensors"),
    ] = None,
    form: DataFormat = "table",
) -> None:
    """List the blocks and their options; with a backbone, what each costs or where it can go.

    With --load, build the network that a file of published weights is of, and say what it is.

    Examples: search blocks; search blocks --backbone resnet50; search blocks --sites resnet18;
    search blocks --stages resnet50;
    search blocks --load fcanet50.pth --as fca --output fcanet50.safetensors
    """
    from blocks.backbone import backbone as row_of
    from blocks.backbone import choices, site_table
    from search import catalogue
    from search.include import include as bring_in

    _known_format(form, ("table", "json"))
    for path in include or ():
        bring_in(path)
    name = backbone_option or backbone
    if load is not None or load_as or settings or written:
        if load is None or load_as is None or name or sites or stages or classes:
            raise StudyError(
                "--load FILE and --as BLOCK go together, with --set, --output and --input alone:"
                " search blocks --load fcanet50.pth --as fca"
            )
        _load_weights(load, load_as, settings or (), shape, written, form)
        return
    if name is None:
        if sites or stages:
            option = "--sites" if sites else "--stages"
            raise StudyError(f"{option} needs a backbone: {choices()}")
        _print_blocks(catalogue.blocks_data(), form)
        return
    usual_shape, usual_classes = catalogue.usual_input(name)
    given = catalogue.parse_input(shape) if shape else usual_shape
    table = site_table(name, given, classes or usual_classes)
    form_of = "sites" if sites else "stages" if stages else "blocks"
    _print_backbone(table, f"{name} ({row_of(name).title})", form_of, form)


def _print_backbone(table: SiteTable, name: str, what: str, form: str) -> None:
    from search import catalogue, measured, output

    data: dict[str, Callable[[SiteTable], list[dict[str, Any]]]] = {
        "sites": catalogue.sites_data,
        "stages": measured.backbone_parts,
        "blocks": catalogue.costs_data,
    }
    rows = data[what](table)
    if form == "json":
        output.emit(output.json_text(rows))
        return
    titles = {"blocks": "what every block adds in every residual unit, default options"}
    size = "x".join(map(str, table.input_shape))
    title = f"{name}, {size}, {table.classes} classes: {titles.get(what, what)}"
    if what == "sites":
        shown = [tuple(str(v) for v in row.values()) for row in rows]
        columns = list(rows[0])
    else:
        make = catalogue.costs_table if what == "blocks" else catalogue.parts_table
        columns, shown = make(rows)
    output.results.print(output.table(title, columns, shown))
    for row in rows:
        if row.get("note"):
            output.results.print(row["note"])


def _load_weights(
    path: str,
    block: str,
    settings: Sequence[str],
    shape: str | None,
    written: str | None,
    form: str,
) -> None:
    from search import catalogue, output, weights

    given = catalogue.parse_input(shape) if shape else None
    data = weights.load_data(path, block, settings=settings, shape=given, output=written)
    if form == "json":
        output.emit(output.json_text(data))
        return
    output.results.print(output.table("", ("", path), weights.facts(data)))
    rows = [(row["theirs"], row["ours"], row["tensors"]) for row in data["renamed"]]
    output.results.print(output.table("Names", ("in the file", "here", "tensors"), rows))


def _print_blocks(rows: list[dict[str, Any]], form: str) -> None:
    from search import catalogue, output

    if form == "json":
        output.emit(output.json_text(rows))
        return
    own, adapted = catalogue.blocks_tables(rows)
    output.results.print(output.table("", ("block", "name", "paper", "options"), own))
    output.results.print(catalogue.EVERY_BLOCK)
    title = "timm's own modules; search blocks --format json says what their options mean"
    output.results.print(output.table(title, ("block", "name", "options"), adapted))


@app.command("check-block")
def check_block(
    block: Annotated[
        str,
        typer.Argument(
            help="MODULE:CLASS of your own block, or a block's name.", show_default=False
        ),
    ],
    include: Annotated[
        list[str] | None, typer.Option(help="A Python file with your own blocks.", metavar="PATH")
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Also inductor and ONNX, which take longer.")
    ] = False,
    channels: Annotated[
        int | None,
        typer.Option(help="Channels of all maps. (default: 32; 64 to compare option values)"),
    ] = None,
    form: DataFormat = "table",
) -> None:
    """Put a block to the conformance suite, which all blocks of this tool pass.

    Ends with 0 where all checks pass and with 1 where one fails; each failure says its cure.

    Examples: search check-block own:Shift; search check-block se --slow
    """
    from search import checking, output

    _known_format(form, ("table", "json"))
    subject = checking.find_subject(block, include or (), channels)
    findings = []
    for finding in checking.findings(subject, slow=slow):
        findings.append(finding)
        if form == "table":
            output.emit(checking.finding_line(finding))
    verdict = checking.verdict_data(subject, findings)
    if form == "json":
        output.emit(output.json_text(verdict))
    else:
        output.emit(checking.summary_line(verdict))
    if not verdict["passed"]:
        raise typer.Exit(1)


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="Print this space's file.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of space files.")
    ] = False,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the recipes of `training: {recipe: ...}`.")
    ] = False,
    form: DataFormat = "table",
) -> None:
    """List the shipped spaces, print one as a start for your own, or print the schema.

    Examples: search spaces; search spaces attention > mine.yaml; search spaces --recipes
    """
    from search import catalogue, output
    from spaces.document import json_schema
    from spaces.space import find_space

    _known_format(form, ("table", "json"))
    if schema:
        output.emit(output.json_text(json_schema()))
    elif name is not None:
        output.emit(find_space(name).read_text(encoding="utf-8"))
    else:
        rows = catalogue.recipes_data() if recipes else catalogue.spaces_data()
        if form == "json":
            output.emit(output.json_text(rows))
            return
        shown = [[", ".join(v) if isinstance(v, list) else v for v in r.values()] for r in rows]
        output.results.print(output.table("", list(rows[0]), shown))


@app.command()
def doctor(storage: Storage = STORAGE, form: DataFormat = "table") -> None:
    """Say what of this machine works, with the cure for what does not.

    Example: search doctor
    """
    from search import output
    from search.doctor import BROKEN, examine

    _known_format(form, ("table", "json"))
    findings = examine(storage)
    rows = [finding.__dict__ for finding in findings]
    if form == "json":
        output.emit(output.json_text(rows))
    else:
        shown = [(f.state, f.what, f"{f.detail}\n{f.cure}".strip()) for f in findings]
        output.results.print(output.table("", ("", "what", "how it is"), shown))
    if any(finding.state == BROKEN for finding in findings):
        raise typer.Exit(1)


class _Reading:
    """The database, opened so that nothing in it can change."""

    def __init__(self, storage: str) -> None:
        self.storage = storage

    def __enter__(self) -> Any:
        from search.database import open_for_reading, storage_url

        self.engine = open_for_reading(storage_url(self.storage))
        return self.engine

    def __exit__(self, *exception: object) -> None:
        self.engine.dispose()


def _known_format(given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise StudyError(f"--format {given!r} is unknown. Allowed: {', '.join(allowed)}")


def _say(message: str) -> None:
    from search.output import clean

    print(f"search: {clean(message)}", file=sys.stderr)


def _refuse_foreign_packages() -> None:
    """Our folders' names are common words: another distribution may have taken one."""
    from search.packages import name_clashes

    clashes = name_clashes()
    if clashes:
        raise StudyError(
            f"another distribution has taken a package name of this tool ({'; '.join(clashes)});"
            " install it in an environment of its own"
        )


def _resume_command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def main() -> None:
    """Run a command; every way in which it can end has its exit code."""
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("ATTENTION_SEARCH_DEBUG"))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = _run(arguments)
    except StorageFault as error:
        if debug:
            raise
        _say(f"{error}; then go on with: {_resume_command()}")
        code = 1
    except ToolError as error:
        if debug:
            raise
        _say(str(error))
        code = 2
    except StoppedError as error:
        again = _resume_command().removesuffix(RETRY_FAILED) + RETRY_FAILED
        _say(f"{error}. Once it is mended, go on with: {again}")
        code = 1
    except NothingSucceededError as error:
        _say(f"no trial succeeded: {error}")
        code = 1
    except Exception as error:
        if debug:
            raise
        _say(f"internal error, {type(error).__name__}: {error}; --debug shows where")
        code = 1
    except KeyboardInterrupt:
        _say(f"stopped; what had finished is kept. Go on with: {_resume_command()}")
        code = INTERRUPTED
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    from search.interruption import Interrupted

    _refuse_foreign_packages()
    command = typer.main.get_command(app)
    try:
        returned = command.main(arguments, prog_name="search", standalone_mode=False)
    except Interrupted:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2
        if hasattr(error, "format_message"):  # typer's errors of usage
            raise StudyError(_usage_message(error, arguments)) from None
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        raise
    if returned == INTERRUPTED:  # typer's word for an interrupt that it met itself
        raise KeyboardInterrupt
    return returned if isinstance(returned, int) else 0


def _usage_message(error: Any, arguments: list[str]) -> str:
    """Typer's words, with what was given and where to read on."""
    text = str(error.format_message()).rstrip(".")
    options = getattr(getattr(error, "param", None), "opts", [])
    for option, value in pairwise(arguments):
        if option in options:
            text += f"; given: {value!r}"
    named = arguments and not arguments[0].startswith("-") and "No such command" not in text
    command = f"search {arguments[0]}" if named else "search"
    return f"{text}; `{command} --help` shows its use"


if __name__ == "__main__":
    main()
