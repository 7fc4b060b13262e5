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
from search.options import STORAGE, Storage, StudyOptions, with_study_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocks.site import SiteTable
    from search.engine import StudyResult

INTERRUPTED = 130
RETRY_FAILED = " --retry-failed"

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
@with_study_options
def run(options: StudyOptions) -> None:
    """Run a study, or go on with it; ends with the front and the report's path.

    A setting without a flag is the stored study's, else the space file's, else the default.
    Interrupted or killed, the same command goes on where it stopped; so it does after a budget has
    ended it, with a larger one.

    Examples: search run --space attention.yaml --trials 40; search run --space attention.yaml
    --trials 500 --time-limit 2h --patience 50; search run --space mine.yaml --sampler auto
    --enqueue type=se,reduction=16
    """
    from reports.page import check_place, report_path
    from search.study import execute

    plan = options.plan()
    check_place(report_path(plan.study, options.report))
    result = execute(plan, _watch())
    if options.look and result.front:
        _look(result.study, options.storage)
    _close_result(result, options.storage, options.report)


@app.command("plan")
@with_study_options
def plan_study(
    options: StudyOptions,
    first: Annotated[
        int, typer.Option(help="How many of the first proposals are shown.", metavar="N")
    ] = 5,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing",
            help="Train three networks for some steps to forecast the time, and measure memory;"
            " without, torch is not loaded.",
        ),
    ] = True,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What fits into this much time, and which differences it can detect: 64gpu*6h,"
            " 2cpu*90m, or 8h (of the given workers).",
            metavar="B",
        ),
    ] = None,
    form: DataFormat = "table",
) -> None:
    """Say what search run with the same options would do; nothing is trained, nothing written.

    The size of the space, what caps reject, costs, the first proposals, a stored study's standing,
    and a forecast of the time. docs/plan.md says how each number comes about.

    Examples: search plan --space attention.yaml; search plan --space attention --budget 2cpu*90m;
    search plan --space attention --no-timing --format json
    """
    from blocks.cached import untouched
    from reports.page import check_place, report_path
    from search import output
    from search.plan_view import plan_parts
    from search.preview import preview

    _known_format(form, ("table", "json"))
    with untouched():
        plan = options.plan(fetch=False)
        check_place(report_path(plan.study, options.report))
        found = preview(plan, first=first, timing=timing, budget=budget, say=_remark)
    if form == "json":
        output.emit(output.json_text(found))
        return
    for part in plan_parts(found):
        output.results.print(Text(output.clean(part)) if isinstance(part, str) else part)


def _remark(words: str) -> None:
    from search import output

    output.remarks.print(Text(output.clean(words), style="dim"))


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
    from search.show import front_table, reused_words

    if result.front:
        title = f"Front of {result.study}: {len(result.front)} of {len(result.trials)} trials"
        drawn = front_table(result.trials, result.front, title=title, tuned=result.tuned)
        output.results.print(drawn)
    note = "" if result.stopped else result.note  # what has stopped it is said at the end
    mirror = result.warning and f"Optuna's mirror: {result.warning}"
    reused = reused_words(result.trials)
    for remark in (*result.remarks, result.proposals, reused, result.rejected, note, mirror):
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
    from search.beside import beside_parts
    from search.proposed import proposal_words

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
        for part in beside_parts(data.get("published", ())):
            output.results.print(part)
        if counted := proposal_words(data["proposals"]):
            output.results.print(Text(counted))
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
def merge(
    others: Annotated[
        list[str],
        typer.Argument(
            help="Databases to take studies from.", metavar="OTHER.db...", show_default=False
        ),
    ],
    storage: Storage = STORAGE,
    study: Annotated[
        str | None, typer.Option(help="Take this study alone. (default: all of them)")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--as", help="The name that it gets here. (default: its own)", metavar="NAME"),
    ] = None,
    form: DataFormat = "table",
) -> None:
    """Take the studies of other databases into one, by digest and without doubles.

    A study that is not here yet comes whole; of one that is, the trials that are lacking. The
    others are not changed, and merging them again changes nothing. docs/sharing.md says the rest.

    Examples: search merge laptop.db; search merge laptop.db --study attention --as attention-2
    """
    from search import output
    from search.merge import joined_table, refusals
    from search.merge import merge as join

    _known_format(form, ("table", "json"))
    rows = join(others, storage=storage, study=study, name=name)
    if form == "json":
        output.emit(output.json_text([row.to_json() for row in rows]))
    else:
        output.results.print(joined_table(rows))
    if refused := refusals(rows):
        raise StudyError(refused)


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
