"""The command line: its help, and `graph` and `negatives`, which accept any file and report what they skip."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sclip.config import Config
from sclip.data.caption_text import clean_caption
from sclip.launch import cluster
from sclip.report import sinks
from sclip.run.summary import Summary, show
from sclip.scenegraph.window import MOST_WORDS
from support.commands import command
from support.paths import ROOT

graph, negatives = command("graph"), command("negatives")
SCLIP = [sys.executable, "-m", "sclip.cli"]
JOBS = [path for path in (ROOT / "jobs").glob("*.py") if path.stem != "checkout"]
IMPORTED = os.environ | {"PYTHONPATH": str(ROOT)}

LINES = [
    b"a small red circle to the left of a blue square",
    b"",
    b"x",
    b"a dog on a mat " * 2500,
    b"\x00\x1b[31m a dog \x07",
    b"\xff\xfe a cat on a mat",
    b"<script>alert(1)</script> a <b>dog</b> &amp; a cat",
    "כלב יושב על ספה".encode(),
    "🐶 on a 🛋️ next to 👩‍👩‍👧".encode(),
    "a \u202egod\u202c and a \u2028line".encode(),
    b"a dog on a mat <3",
]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_bytes(b"\n".join(LINES))
    return path


@pytest.mark.parametrize("main", [graph, negatives])
def test_every_line_is_answered_and_unread_parts_are_reported(
    main, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    assert main(captions, "--out", out, "--html", page, "--show") == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["caption"] for row in rows] == [
        clean_caption(line.decode(errors="replace")) for line in LINES
    ]
    assert f"read only up to word {MOST_WORDS}" in captured.err
    assert captured.err.startswith("of 11 captions: ")
    assert " without an object, 1 read only" in captured.err
    assert captured.err.endswith(", 1 with bytes that are no text\n")
    assert "\x1b" not in captured.out
    assert "└─ at the left of ─▶ square" in captured.out
    assert '"caption"' not in captured.out
    assert ("negative" in captured.out) == (main is negatives)
    assert "<3" not in page.read_text()
    assert "&lt;3" in page.read_text()


def test_page_of_a_long_file_holds_the_same_sample_every_time_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "PAGE_CAPTIONS", 5)
    source, pages = tmp_path / "captions.txt", [tmp_path / "one.html", tmp_path / "two.html"]
    source.write_text("".join(f"a dog on {number} mats\n" for number in range(2, 42)))
    for page in pages:
        assert graph(source, "--html", page) == 0
        assert capsys.readouterr() == ("", f"{page}: 5 of 40 captions, drawn at random\n")
    html = pages[0].read_text()
    assert html == pages[1].read_text()
    assert html.count("<svg") == 5
    lines = [int(part.split("<")[0]) for part in html.split("<bdi>line ")[1:]]
    assert lines == sorted(lines) != [1, 2, 3, 4, 5]
    assert graph(source, "--html", tmp_path / "absent" / "page.html", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()  # the error comes before anything is parsed


def test_a_closed_output_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("a man rides a horse on a beach\n" * 900)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*SCLIP, "graph", "FILE"], **pipes, cwd=tmp_path, env=IMPORTED) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""


def test_help_names_every_option_keeps_the_lines_of_examples_and_imports_no_library_of_the_training() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'ray', 'mlflow', 'spacy', 'open_clip'):\n"
        "    sys.modules[name] = None  # an import of it fails\n"
        "from sclip.cli import main\n"
        "from sclip.cli.command import app\n"
        "for command in app.registered_commands:\n"
        "    try:\n"
        "        main([command.name, '--help'])\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=IMPORTED)
    assert done.returncode == 0, done.stderr
    pages = re.split(r"^ *Usage: (?=sclip)", done.stdout, flags=re.MULTILINE)[1:]
    assert {page.split()[1] for page in pages} > {path.stem for path in JOBS}
    for page in pages:
        usage, rest = re.split(r"\n *\n", page, maxsplit=1)
        listed = set(re.findall(r"^│ [* ]*(--[\w-]+)", rest, flags=re.MULTILINE))
        assert listed == set(re.findall(r"--[\w-]+", usage)), page
    assert "  sclip pretrain --config paper train.num_workers=8\n" in done.stdout


def test_a_model_that_cannot_be_trained_is_refused_before_a_cluster_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("a cluster is asked for"))
    assert command("pretrain")("model.name=RN50") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pretrain: model.name='RN50': ")
    assert "set model.pretrained or run.init_from" in line


def test_what_a_run_says_at_its_end_can_be_pasted_into_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a disk/my [bold]runs[/bold]/runs/first"
    folder.mkdir(parents=True)
    (folder / "quarantine.jsonl").write_text('{"shard": "0.tar", "key": "7", "reason": "no image"}\n')
    trained = {"samples": 8, "step": 2, "filtered": 0, "quarantined": 1}
    uri = f"sqlite:///{folder.parent.parent}/mlflow.db"
    show(Summary(folder, trained, {}, "", [], [folder / "report.html"], uri), Config(), Console(width=60))
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    ends = {tuple(line[-2:]) for line in lines if line}
    assert ("--backend-store-uri", uri) in ends
    assert ("sync", str(folder)) in ends
    assert ("folder", str(folder)) in ends
    assert (f"{folder}/report.html",) in ends
    assert ("on:", f"{folder}/quarantine.jsonl") in ends
