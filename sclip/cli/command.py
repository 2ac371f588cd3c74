"""Define what all commands of `sclip` share: the layout of the help, error messages and common options.

A command is a function that parses its arguments, calls another package, prints, and returns its exit status (None
means 0). Each error that the command lists in `errors` becomes one line on standard error and an exit status.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.markup import escape
from typer.core import TyperCommand

from sclip.config import Config, ConfigError, DataConfig, RunConfig
from sclip.config.data import READING_KEYS
from sclip.run import stopping
from sclip.storage.masking import mask

app = typer.Typer(
    help="Pretrain Structure-CLIP on Ray: WebDataset shards in, a registered model out. "
    "`sclip COMMAND --help` lists the arguments and options of a command.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PANELS = ("Train", "Runs", "Shards", "Models", "Cluster", "Study")  # of the help, in display order

STORAGE = RunConfig().storage


class Refused(Exception):
    """Error that ends a command with a message for the user and an exit status."""

    def __init__(self, message: object, status: int = 2) -> None:
        super().__init__(str(message))
        self.status = status


@contextmanager
def errors(*kinds: type[BaseException], status: int = 2) -> Iterator[None]:
    """Turn an error of these kinds into `Refused` with the error's message and `status`."""
    try:
        yield
    except BrokenPipeError:  # an OSError, but not a fault of the command
        raise
    except kinds as error:
        raise Refused(error, status) from error


@contextmanager
def printing() -> Iterator[None]:
    """Let the command end quietly if a reader such as `| head` stops early."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # without a new target, Python would flush again at exit and print an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_UNBROKEN = {ord(" "): "\xa0", ord("-"): "\u2011"}
"""Map from a character that allows a line break to a similar character that forbids it."""


class Command(TyperCommand):
    """Typer command with all options in its usage line and with unchanged line breaks in its examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the options and arguments of the usage line, each without a place for a line break."""
        params = sorted(self.get_params(ctx), key=lambda param: param.param_type_name == "argument")
        return [_usage(param).translate(_UNBROKEN) for param in params]

    def get_usage(self, ctx: Any) -> str:
        """Return the usage line with ordinary spaces and hyphens."""
        return super().get_usage(ctx).translate({ord(sign): key for key, sign in _UNBROKEN.items()})

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, the examples and, if the command takes overrides, the keys of the config."""
        text = inspect.cleandoc(self.callback.__doc__ or "")
        blocks = text.split("\n\n")
        self.help = escape("\n\n".join(" ".join(b.split()) for b in blocks if not b.startswith(" ")))
        super().format_help(ctx, formatter)
        examples = [block for block in blocks if block.startswith(" ")]
        if examples:
            print(" Examples:\n", *examples, sep="\n", end="\n\n")
        if any(param.name == "overrides" for param in self.params):
            from sclip.config.loader import keys

            print(" Keys, with their defaults:\n")
            for key, (default, about) in keys().items():
                print(f"  {key}={json.dumps(default)}\n      {about}")


def _usage(param: Any) -> str:
    if param.param_type_name == "argument":
        text = f"{param.metavar}..." if param.nargs == -1 else param.metavar
    else:
        name = max(param.opts, key=len)
        text = name if param.is_flag else f"{name} {param.metavar}"
    text = text if param.required else f"[{text}]"
    return f"{text}..." if getattr(param, "multiple", False) else text


def group(panel: str, name: str, help_: str) -> typer.Typer:
    """Add a group of commands (`sclip NAME COMMAND`) to a panel of the help, and return it."""
    commands = typer.Typer(name=name, help=help_, no_args_is_help=True)
    app.add_typer(commands, rich_help_panel=panel)
    return commands


def command(
    panel: str, interrupted: str = "interrupted", of: typer.Typer = app, **settings: Any
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Return a decorator that adds a function as a command to `sclip` or to the group `of`, in `panel` of the help.

    The function's docstring is the help; indented blocks are examples. `interrupted` is the message after Ctrl-C, and
    may contain the command's parameters in braces.
    """

    def add(function: Callable[..., int | None]) -> Callable[..., int | None]:
        name = function.__name__ if of is app else f"{of.info.name} {function.__name__}"

        @functools.wraps(function)
        def guarded(**arguments: Any) -> int | None:
            try:
                with printing():
                    return function(**arguments)
            except Refused as refused:
                for line in str(refused).splitlines() or [""]:
                    print(f"{name}: {mask(line)}", file=sys.stderr)
                return refused.status
            except (KeyboardInterrupt, stopping.Stopped) as ended:
                is_stopped = isinstance(ended, stopping.Stopped)
                print(f"{name}: {ended if is_stopped else interrupted.format(**arguments)}", file=sys.stderr)
                return stopping.left(ended)
            finally:  # so that Ctrl-C during Python's shutdown ends it at once
                atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)

        of.command(function.__name__, cls=Command, rich_help_panel=panel, context_settings=settings)(guarded)
        return guarded

    return add


def option(metavar: str, help_: str, *names: str, **more: Any) -> Any:
    """Return an option that takes a value."""
    return typer.Option(*names, metavar=metavar, help=help_, **more)


def flag(name: str, help_: str) -> Any:
    """Return an option that takes no value."""
    return typer.Option(name, metavar="", help=help_, show_default=False)


def repeatable(metavar: str, help_: str, name: str) -> Any:
    """Return an option that may be repeated."""
    help_ = f"{help_}; repeatable"
    return typer.Option(name, metavar=metavar, help=help_, default_factory=list, show_default=False)


def argument(metavar: str, help_: str, **more: Any) -> Any:
    """Return an argument."""
    return typer.Argument(metavar=metavar, help=help_, **more)


def positive(text: str) -> float:
    """Parse the value of an option as a number above 0. Raises typer.BadParameter for any other value."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise typer.BadParameter(f"{text!r}: a number above 0")
    return number


# Options that several commands share. An option with a corresponding config key has the name of this key.

Overrides = Annotated[
    list[str],
    argument(
        "KEY=VALUE", "new value of a config key, as train.batch_size=256", default_factory=list, show_default=False,
    ),
]  # fmt: skip
ConfigName = Annotated[
    str, option("NAME_OR_FILE", "config to start from: a name in jobs/configs, or a YAML file", "--config")
]
PrintConfig = Annotated[bool, flag("--print-config", "print the resolved config and stop")]
Shards = Annotated[
    list[str],
    argument("SHARDS", "tar or Parquet files: paths or URIs, also with * ? or {00..99}, or folders of tars"),
]
Actors = Annotated[
    int, option("N", "maximum number of Ray actors; 0: as many as the cluster's CPUs allow", min=0)
]
ActorCpus = Annotated[float, option("CPUS", "CPUs that each Ray actor reserves", parser=positive)]
CaptionField = Annotated[
    str,
    option(
        "NAME",
        "field or column with the captions, as data.caption_field in a config; by default the usual names",
        show_default=False,
    ),
]
DataKeys = Annotated[
    list[str],
    repeatable(
        "KEY=VALUE",
        "how to read the shards, as data.KEY in a config: image_suffixes, key_ends_at, negatives_field, ..",
        "--data",
    ),
]
SpacyModel = Annotated[
    str,
    option(
        "NAME",
        "spaCy pipeline of the parser, as data.spacy_model in a config; by default en_core_web_sm",
        show_default=False,
    ),
]
Storage = Annotated[
    str,
    option(
        "FOLDER",
        "storage folder (run.storage) with the runs that are given by name, and the default MLflow store",
    ),
]
TrackingUri = Annotated[
    str,
    option(
        "URI",
        "MLflow store to use; by default the one that the run recorded, or the one in --storage",
        show_default=False,
    ),
]
Json = Annotated[
    str,
    option(
        "FILE", "write the result as JSON to FILE; - is the standard output", "--json", show_default=False
    ),
]
SamplesPerShard = Annotated[int, option("N", "maximum number of samples in a shard", min=1)]
Overwrite = Annotated[bool, flag("--overwrite", "replace the shards that are in OUT")]
Root = Annotated[
    str,
    option("FOLDER", "folder with the benchmark files of the suites that come with sclip (see sclip fetch)"),
]


def read_config(overrides: list[str], name: str, print_config: bool = False) -> Config:
    """Return the config of a command line. With `print_config`, print the config and exit instead."""
    from sclip.config.loader import load, to_yaml

    with errors(ConfigError):
        config = load(overrides, name)
    if print_config:
        print(to_yaml(config), end="")
        raise typer.Exit
    return config


def read_data(overrides: list[str], caption_field: str = "", spacy_model: str = "") -> DataConfig:
    """Return the section `data` for --data, --caption-field and --spacy-model. Raises ConfigError for a bad value."""
    from sclip.config.loader import changed, read_value

    options = {"caption_field": caption_field, "spacy_model": spacy_model}
    values: dict[str, Any] = {f"data.{name}": value for name, value in options.items() if value}
    for text in overrides:
        name, _, value = text.removeprefix("data.").partition("=")
        if name not in READING_KEYS:
            raise ConfigError(f"--data {text}: write KEY=VALUE, with a key of {', '.join(READING_KEYS)}")
        values[f"data.{name}"] = read_value(f"data.{name}", value)
    return changed(Config(), values).data


def reading_overrides(data: DataConfig) -> str:
    """Return the overrides (" KEY=VALUE ..") that make a run read shards as `data` says; "" means the defaults."""
    differ = DataConfig().reading().items() ^ data.reading().items()
    texts = {
        name: value if isinstance(value, str) else f"[{', '.join(value)}]"
        for name, value in data.reading().items()
    }
    return "".join(
        f" data.{name}={shlex.quote(texts[name])}" for name in sorted({name for name, _ in differ})
    )


def write_json(text: str, file: str, standard_output: TextIO | None = None) -> None:
    """Write JSON to `file`, the value of --json; "-" is standard output."""
    if file == "-":
        print(text, file=standard_output or sys.stdout, flush=True)
    else:
        Path(file).write_text(text + "\n")


def quiet_ray() -> None:
    """Silence Ray's warning about every actor that Ray Data starts. Call this function before importing Ray."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
