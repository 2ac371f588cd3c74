"""Check shell commands of a documentation page: split them, and parse each one as its program would.

A program's own parser is used where one is installed (Ray, MLflow, pip, the AWS CLI's service models, our jobs). For
other programs the options that we use are listed below, from their manuals. A command without a parser is an error.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise, takewhile

import botocore.session
import click
import typer
from botocore import xform_name

from sclip.cli.command import app
from sclip.config import ConfigError
from sclip.config.loader import load
from support.click_commands import parse_click
from support.kustomized import require_kubectl
from support.paths import ROOT
from support.processes import require


class WrongCommand(ValueError):
    """A command that its program would refuse. The message contains the command and the reason."""


def blocks(markdown: str) -> list[str]:
    return re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


def split(script: str) -> Iterator[list[str]]:
    """Yield the words of each command of a script, also in pipes and in `$(..)`, without redirections."""
    for line in script.replace("\\\n", " ").splitlines():
        while inner := re.search(r"\$\(([^()]*)\)", line):
            yield from split(inner[1])
            line = f"{line[: inner.start()]}WHAT_IT_PRINTS{line[inner.end() :]}"
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        words.whitespace_split = True
        command: list[str] = []
        redirected = False
        for word in [*words, ";"]:
            if re.fullmatch("[|&;]+", word):
                if command:
                    yield command
                command = []
            elif redirected or re.fullmatch("[<>]+", word):
                redirected = not redirected
            elif command or not re.match(r"\w+=", word):  # skips assignments before a command, or alone
                command.append(word)


def understand(command: Sequence[str]) -> None:
    """Raise WrongCommand if the command's program would refuse the command, or if PARSERS has no parser for it."""
    line = shlex.join(command)
    name = "cluster/" if command[0].startswith("cluster/") else command[0]
    if name not in PARSERS:
        raise WrongCommand(f"{line}: no parser for {name}; add one to PARSERS")
    try:
        PARSERS[name](command)
    except (
        click.ClickException, typer.TyperException, ConfigError, SystemExit, WrongCommand, AssertionError,
    ) as error:  # fmt: skip
        raise WrongCommand(f"{line}: {getattr(error, 'message', error)}") from error


def _ray(command: Sequence[str]) -> None:
    entrypoint = parse_click(command).get("entrypoint")
    if entrypoint:
        understand(entrypoint)


def _python(command: Sequence[str]) -> None:
    job = ROOT / command[1]
    assert job.is_file(), f"no {command[1]}"
    _sclip(["sclip", job.stem, *command[2:]])


def _sclip(command: Sequence[str]) -> None:
    program = typer.main.get_command(app)
    context = program.make_context("sclip", list(command[1:]))
    name, subcommand, rest = program.resolve_command(context, [*context._protected_args, *context.args])
    params = subcommand.make_context(name, rest, parent=context).params
    if "overrides" in params:
        load(params["overrides"], params.get("config") or "scenes")


def _script(command: Sequence[str]) -> None:
    path = ROOT / command[0]
    assert path.is_file(), f"no {command[0]}"
    assert path.stat().st_mode & 0o111, "not executable"


def _pip(command: Sequence[str]) -> None:
    from pip._internal.commands import create_command

    _, packages = create_command(command[1]).parse_args(list(command[2:]))
    assert packages == []  # -e installs the checkout; nothing else is installed


def _sed(command: Sequence[str]) -> None:
    assert (ROOT / command[-1]).is_file(), f"no {command[-1]}"
    text = (ROOT / command[-1]).read_text()
    for expression in [word for before, word in pairwise(command) if before == "-e"]:
        _, old, new, _ = expression.split("/")
        assert old in text, f"{command[-1]} has no {old}"
        text = text.replace(old, new)
    settings = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    placeholder = re.search(r"\b(ACCOUNT|SECURITY_GROUP|SUBNET|PROJECT)\b", settings)
    assert not placeholder, f"leaves a {placeholder[0]}"


def _aws(command: Sequence[str]) -> None:
    _, service, operation, *rest = command
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    options -= {"--region", "--query", "--output"}
    own = _MANUAL.get(f"aws {service} {operation}")
    unknown = options - (set(own) if own is not None else _aws_options(service, operation))
    assert not unknown, f"has no {', '.join(sorted(unknown))}"


@cache
def _aws_options(service: str, operation: str) -> set[str]:
    session = botocore.session.get_session()
    assert service in session.get_available_services(), f"no service {service}"
    model = session.get_service_model(service)
    (name,) = [n for n in model.operation_names if xform_name(n, "-") == operation] or [None]
    assert name, f"no operation {operation}"
    return {f"--{xform_name(member, '-')}" for member in model.operation_model(name).input_shape.members}


def _by_manual(command: Sequence[str]) -> None:
    words = [word for word in command[1:] if not word.startswith("-")]
    names = [f"{command[0]} {' '.join(words[:length])}" for length in (3, 2, 1)]
    if command[:2] == ["docker", "compose"]:
        file = command[command.index("-f") + 1]
        assert (ROOT / file).is_file(), f"no {file}"
        names = [f"docker compose {words[2]}"]
    known = next((_MANUAL[name] for name in names if name in _MANUAL), None)
    assert known is not None, f"no options of {names[0]} stand here"
    options = {word.partition("=")[0] for word in command[1:] if word.startswith("-")}
    assert options <= set(known), f"has no {', '.join(sorted(options - set(known)))}"
    target = re.search(r"--target (\S+)", " ".join(command))
    if target:
        assert f" AS {target[1]}\n" in (ROOT / command[command.index("-f") + 1]).read_text(), "no such target"


def _by_help(command: Sequence[str]) -> None:
    """Check that the help of kubectl or helm lists the command and each of its options."""
    require_kubectl()
    program = shutil.which(command[0])
    if program is None:  # CI installs helm together with kubectl
        require("SCLIP_KUBECTL", f"no {command[0]} to ask")
    words = list(takewhile(lambda word: not word.startswith("-"), command[1:]))
    help_ = _help(str(program), *words)
    assert f"  {command[0]} {words[0]}" in help_, f"no command {words[0]}"
    known = set(re.findall(r"(?<![\w-])--?[\w-]+", help_ + _help(str(program), "options")))
    unknown = {word.partition("=")[0] for word in command if word.startswith("-")} - known
    assert not unknown, f"has no {', '.join(sorted(unknown))}"
    if "-k" in command or "-f" in command:
        path = command[list(command).index("-k" if "-k" in command else "-f") + 1]
        assert (ROOT / path).exists(), f"no {path}"


@cache
def _help(program: str, *words: str) -> str:
    command = [program, *words] if words == ("options",) else [program, *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def _openssl(command: Sequence[str]) -> None:
    """Accept `req`, which other tests run to make a certificate authority, and `rand -hex N` from N = 16."""
    assert command[1] == "req" or (command[1:3] == ["rand", "-hex"] and int(command[3]) >= 16)


_MANUAL: dict[str, Sequence[str]] = {
    "aws cloudformation deploy": "--stack-name --template-file --capabilities --parameter-overrides".split(),
    "aws ecr get-login-password": [],
    "docker build": ["-f", "-t", "--target", "--push", "--build-arg"],
    "docker login": ["--username", "--password-stdin"],
    "docker compose up": ["-f", "--build", "--detach"],
    "docker compose down": ["-f", "--volumes"],
    "gcloud auth configure-docker": ["--quiet"],
    "gcloud compute start-iap-tunnel": ["--listen-on-stdin", "--project", "--zone"],
}
"""Options of programs that the tests cannot install, from their manuals; only those that we use."""

PARSERS: dict[str, Callable[[Sequence[str]], None]] = {
    "ray": _ray, "python": _python, "sclip": _sclip, "pip": _pip, "sed": _sed, "aws": _aws, "gcloud": _by_manual,
    "docker": _by_manual, "kubectl": _by_help, "helm": _by_help, "openssl": _openssl, "cluster/": _script,
    "export": lambda command: None,
}  # fmt: skip
"""Maps the first word of a command to its parser; `cluster/` stands for any script in that folder."""
