"""The options of a study, which ``search run`` and ``search plan`` share: declared once.

A command that takes them is written with ``StudyOptions`` as its first parameter and its own
options after it; ``with_study_options`` gives it the signature that typer reads.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from blocks.errors import StudyError

if TYPE_CHECKING:
    from search.plan import StudyPlan

STORAGE = "sqlite:///studies.db"
DATA_NAMES = "digits, fashion-mnist, mnist, cifar10, cifar100, svhn, fer2013, folder"

Storage = Annotated[
    str, typer.Option(help="Database with the results, as an SQLAlchemy URL.", metavar="URL")
]
Includes = Annotated[
    list[str] | None,
    typer.Option(help="A Python file with your own blocks or data sets.", metavar="PATH"),
]

P = ParamSpec("P")


@dataclass(frozen=True)
class StudyOptions:
    """What is given on the command line of a study; docs and defaults are in each one's help."""

    space: Annotated[
        str,
        typer.Option(help="A space file, or the name of a shipped space.", metavar="F"),
    ]
    study: Annotated[
        str | None, typer.Option(help="Name of the study. (default: the space's name)")
    ] = None
    storage: Storage = STORAGE
    trials: Annotated[
        int | None,
        typer.Option(help="The study's total of trials, baseline included. (default: 24)"),
    ] = None
    seeds: Annotated[
        int | None, typer.Option(help="Trials per candidate, paired by seed. (default: 1)")
    ] = None
    max_seeds: Annotated[
        int | None,
        typer.Option(
            help="Seeds, at most, of a candidate that is proposed again and is or could come on the"
            " front. (default: as --seeds: it is replaced)",
            metavar="N",
            show_default=False,
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a trial. (default: the space's, else 12)")
    ] = None
    data: Annotated[
        str | None, typer.Option(help=f"Data set: {DATA_NAMES}, or your own. (default: digits)")
    ] = None
    data_dir: Annotated[
        str | None,
        typer.Option(
            help="Where the data's files are. (default: where the study last had them, ./data, or"
            " the user's data folder)",
            metavar="DIR",
        ),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data's files where they are not there.")
    ] = False
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Who proposes (default: nsga2): nsga2, nsga3, tpe, gp, evolution, random, grid,"
            " auto, or a sampler of Optuna's kind by its dotted name.",
            metavar="NAME",
        ),
    ] = None
    enqueue: Annotated[
        list[str] | None,
        typer.Option(
            help="A proposal to take right after the baseline, such as type=se,reduction=16; the"
            " sampler chooses what it leaves out. Several times: in this order.",
            metavar="SETTINGS",
        ),
    ] = None
    pruner: Annotated[
        str | None, typer.Option(help="Who stops trials early: none. (default: none)")
    ] = None
    workers: Annotated[
        str | None,
        typer.Option(
            help="Trials that train at once, or auto: one per core, on GPUs as many as memory and"
            " measured throughput say. (default: auto)",
            metavar="N",
        ),
    ] = None
    device: Annotated[str, typer.Option(help="Where trials train: cpu or cuda.")] = "cpu"
    gpus: Annotated[
        str,
        typer.Option(
            help="GPUs to spread workers over, such as 0,1; implies cuda. (default: all visible)"
        ),
    ] = ""
    processes: Annotated[
        int,
        typer.Option(
            "--processes-per-trial",
            help="Processes that train one trial together, each on a GPU of its own.",
            metavar="K",
        ),
    ] = 1
    deterministic: Annotated[
        bool | None,
        typer.Option(
            help="Make trainings on a GPU repeat bit for bit; blocks that cannot are refused."
            " (default: not)",
            show_default=False,
        ),
    ] = None
    executor: Annotated[
        str, typer.Option(help="Who runs the workers: local (processes on this machine).")
    ] = "local"
    seed: Annotated[
        int | None, typer.Option(help="First seed; replicate r has seed + r. (default: 0)")
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a key of the space: training.epochs=5.", metavar="KEY=VALUE"
        ),
    ] = None
    include: Includes = None
    extend: Annotated[
        bool, typer.Option(help="Go on although the stored study has another space.")
    ] = False
    latency: Annotated[
        bool | None,
        typer.Option(
            help="Time every complete trial in turn with the baseline; trials that have no"
            " latency yet are timed, not trained again. (default: where latency_ratio is an"
            " objective)",
            show_default=False,
        ),
    ] = None
    keep_weights: Annotated[
        str | None,
        typer.Option(
            help="Whose final weights are kept beside the database: all, front (and the"
            " baseline's) or none; what is kept already stays with none. (default: front)",
            metavar="WHICH",
        ),
    ] = None
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Say how many epochs and seconds trials need to this validation accuracy, a"
            " share such as 0.95. (default: none)",
            show_default=False,
        ),
    ] = None
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once the study has been run for so long, over restarts: 90s, 30m,"
            " 2h, 1d, 1h30m, or none. (default: none)",
            metavar="TIME",
        ),
    ] = None
    device_hours: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once attempts have taken so many hours of GPUs, or of processes on"
            " a processor, over restarts; or none. (default: none)",
            metavar="HOURS",
        ),
    ] = None
    patience: Annotated[
        str | None,
        typer.Option(
            help="Begin no trial once the front has not moved for so many, or none. (default:"
            " none)",
            metavar="N",
        ),
    ] = None
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train failed trials again, under their numbers and seeds."
        ),
    ] = False
    report: Annotated[
        str | None,
        typer.Option(help="Where the report goes. (default: STUDY-report.html)", metavar="PATH"),
    ] = None
    look: Annotated[
        bool,
        typer.Option(
            "--explain", help="At the end, look at the baseline and the front (search explain)."
        ),
    ] = False

    def plan(self, *, fetch: bool = True) -> "StudyPlan":
        """The plan that space file and options make together.

        Args:
            fetch: Whether ``--download`` may fetch files.

        Raises:
            ToolError: A file or option is wrong; which, and what is allowed.
        """
        from search.devices import read_gpus
        from search.plan import EXECUTORS, make_plan

        if self.executor not in EXECUTORS:
            raise StudyError(
                f"--executor {self.executor!r} is unknown. Allowed: {', '.join(EXECUTORS)}"
            )
        plan = make_plan(
            self.space,
            study=self.study,
            storage=self.storage,
            trials=self.trials,
            seeds=self.seeds,
            epochs=self.epochs,
            data=self.data,
            data_dir=self.data_dir,
            download=self.download and fetch,
            sampler=self.sampler,
            max_seeds=self.max_seeds,
            enqueue=self.enqueue or (),
            pruner=self.pruner,
            workers=self.workers,
            device="cuda" if self.gpus else self.device,
            gpus=read_gpus(self.gpus),
            processes=self.processes,
            deterministic=self.deterministic,
            seed=self.seed,
            overrides=self.overrides or (),
            includes=self.include or (),
            extend=self.extend,
            latency=self.latency,
            keep_weights=self.keep_weights,
            target_accuracy=self.target_accuracy,
            time_limit=self.time_limit,
            device_hours=self.device_hours,
            patience=self.patience,
            retry_failed=self.retry_failed,
        )
        if self.look and plan.keep_weights == "none":
            raise StudyError(
                "--explain looks at kept networks: it needs --keep-weights front, or all"
            )
        return plan


def with_study_options(
    command: Callable[Concatenate[StudyOptions, P], None],
) -> Callable[..., None]:
    """Give a command the options of a study beside its own; they reach it as one value."""
    shared = list(inspect.signature(StudyOptions).parameters.values())
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    names = [field.name for field in fields(StudyOptions)]

    def called(**given: Any) -> None:
        options = StudyOptions(**{name: given.pop(name) for name in names})
        command(options, **given)  # type: ignore[call-arg]

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared, *own)]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    return called
