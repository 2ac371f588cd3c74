"""Kill trainings repeatedly, and count the rows that they miss and repeat, in sclip and with the usual way to resume.

sclip's side is `jobs/pretrain.py` itself with a tiny model. The benchmark kills its driver, a worker or an encoder at
random moments, and restarts a killed driver with another number of workers. Then it counts the rows in the run's ledger
(files with a line per step). The peer (this module as a program) is a training loop over webdataset and a DataLoader. A
restarted peer skips as many batches of the epoch as its checkpoint has counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import Found
from sclip.run.audit.account import Audit, audit

__all__ = ["PeerTraining", "count", "killed", "kills", "peer_killed"]

BATCH, EVERY = 32, 5
_STEPS_A_KILL = 16
"""Steps of a run for each kill, which waits for at most `2 * EVERY` (10) of them."""
_ROOT = Path(__file__).resolve().parent.parent.parent
_WORKERS = (2, 1)  # in turns, at each start of the driver
_TARGETS = ("", "RayTrainWorker", "_ImportedEncoder")
"""Part of the command line of the process to kill; "" means the driver with all its descendants."""
_PATIENCE_S = 600


def kills(folder: Path, shards: tuple[str, ...], samples: int, number: int) -> Found:
    """Return the number of rows that each side missed and repeated over `number` kills."""
    epochs = max(2, -(-number * _STEPS_A_KILL * BATCH // samples))
    audits = killed(folder, shards, epochs, number)
    missed, repeated = sum(record.missed for record in audits), sum(record.repeated for record in audits)
    orders = sorted({getattr(record, "order", "") for record in audits} - {""})
    order = f", order {' and '.join(orders)}" if orders else ""
    peer_rows = peer_killed(PeerTraining(str(folder / "peer"), shards, _WORKERS[0], epochs), samples, number)
    return (
        f"{missed} missed, {repeated} repeated{order} after {number} kills, runs: {len(audits)} of {epochs} epochs; "
        f"the peer {peer_rows[0]}, {peer_rows[1]}",
        {"kills": [number], "runs": [len(audits)], "missed": [missed], "repeated": [repeated]}
        | {"peer_missed": [peer_rows[0]], "peer_repeated": [peer_rows[1]]},
    )


def killed(folder: Path, shards: tuple[str, ...], epochs: int, number: int) -> list[Audit]:
    """Start trainings one after another, with `number` kills in all at random moments; return each training's audit."""
    random, audits, done = Random(0), list[Audit](), 0
    while done < number:
        run = folder / "runs" / f"kills-{len(audits)}"
        made = _train(run, shards, epochs, number - done, random)
        if not made:
            raise BenchmarkError(f"{run.name} ended before it could be killed; raise --samples")
        done += made
        audits.append(audit(run))
    return audits


def _train(run: Path, shards: tuple[str, ...], epochs: int, most: int, random: Random) -> int:
    starts = done = 0
    process = _start(run, shards, epochs, _WORKERS[0])
    while done < most and _reached(run, _step(run) + random.randint(0, 2 * EVERY), process):
        # A random delay lets kills hit steps, checkpoint writes and restarts of other processes.
        time.sleep(random.random())
        if process.poll() is not None:
            break
        target = random.choice(_TARGETS)
        done += _kill(process, target)
        if not target:
            starts += 1
            process = _start(run, shards, epochs, _WORKERS[starts % len(_WORKERS)])
    if process.wait():
        raise BenchmarkError(f"the killed run ended with status {process.returncode}: {_tail(run)}")
    return done


def _start(run: Path, shards: tuple[str, ...], epochs: int, workers: int) -> subprocess.Popen[bytes]:
    overrides = [
        f"run.name={run.name}", f"run.storage={run.parent.parent}", "run.max_failures=1000",
        f"data.shards={Path(shards[0]).parent}/*.tar",
        "model.name=scenes-conv", "model.kee.layers=1", f"train.epochs={epochs}", f"train.batch_size={BATCH}",
        f"train.num_workers={workers}", "train.worker_cpus=0.4", "data.actor_cpus=0.4", "data.actors_max=1",
        f"checkpoint.every={EVERY}",
    ]  # fmt: skip
    with _log(run).open("a") as log:
        return subprocess.Popen(
            [sys.executable, "jobs/pretrain.py", *overrides], cwd=_ROOT, stdout=log, stderr=log,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )  # fmt: skip


def _reached(run: Path, step: float, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while _step(run) < step:
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            process.kill()
            raise BenchmarkError(f"the killed run makes no progress: {_tail(run)}")
        time.sleep(0.1)
    return process.poll() is None


def _step(run: Path) -> int:
    files = sorted((run / "ledger").glob("*.jsonl"))
    lines = files[-1].read_text().splitlines()[-1:] if files else []
    try:
        return int(json.loads(lines[0]).get("step", 0)) if lines else 0
    except ValueError:  # the line is still being written
        return 0


def _kill(process: subprocess.Popen[bytes], target: str) -> bool:
    import psutil  # bundled with Ray; importing Ray adds it to the path

    children = psutil.Process(process.pid).children(recursive=True)
    if not target:
        process.kill()
        process.wait()
        _, survivors = psutil.wait_procs(children, timeout=10)
        for child in survivors:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        return True
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if target in " ".join(child.cmdline()):
                child.kill()
                return True
    return False


def _log(run: Path) -> Path:
    return run.parent.parent / f"{run.name}.log"


def _tail(run: Path) -> str:
    return _log(run).read_text()[-1000:]


@dataclass(frozen=True)
class PeerTraining:
    """Training loop of the peer, which resumes by epoch and number of batches."""

    folder: str
    shards: tuple[str, ...]
    workers: int
    epochs: int
    killed_after: int = 0
    """Batches after which the loop kills itself; 0 means never."""


def peer_killed(peer: PeerTraining, samples: int, number: int) -> tuple[int, int]:
    """Run the peer's loop to its end, with `number` kills; return the numbers of missed and of repeated rows."""
    Path(peer.folder).mkdir(parents=True)
    random = Random(0)
    between = max(2, peer.epochs * samples // BATCH // (number + 1))  # so it ends after the last kill
    for start in range(number + 1):
        workers = _WORKERS[start % len(_WORKERS)]
        after = random.randrange(1, between) if start < number else 0
        attempt = replace(peer, workers=workers, killed_after=after)
        command = [sys.executable, "-m", "sclip.benchmark.stream_kills", json.dumps(asdict(attempt))]
        process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        if process.returncode != (-signal.SIGKILL if after else 0):
            raise BenchmarkError(
                f"the killed peer ended with status {process.returncode}: {process.stderr[-1000:]}"
            )
    return count(Path(peer.folder), peer.epochs * samples)


def count(folder: Path, rows: int) -> tuple[int, int]:
    """Return how many of `rows` rows the peer missed and repeated. Steps that a restart rolled back do not count."""
    trained: list[tuple[int, list[str]]] = []
    for line in (folder / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "from_step" in entry:
            del trained[entry["from_step"] :]
        else:
            trained.append((entry["epoch"], entry["keys"]))
    times = Counter((epoch, key) for epoch, keys in trained for key in keys)
    return rows - len(times), sum(times.values()) - len(times)


def _loop(peer: PeerTraining) -> None:
    from torch.utils.data import DataLoader
    from webdataset import WebDataset

    state = Path(peer.folder, "state.json")
    step, first, skipped = json.loads(state.read_text()) if state.exists() else (0, 0, 0)
    data = (
        WebDataset(list(peer.shards), shardshuffle=100)
        .shuffle(1000)
        .map(_key)
        .batched(BATCH, collation_fn=list)
    )
    loader = DataLoader(data, batch_size=None, num_workers=peer.workers)
    with Path(peer.folder, "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"from_step": step}) + "\n")
        begun = step
        for epoch in range(first, peer.epochs):
            for batches, keys in enumerate(islice(loader, skipped, None), start=skipped + 1):
                step += 1
                ledger.write(json.dumps({"epoch": epoch, "keys": keys}) + "\n")
                ledger.flush()
                if step % EVERY == 0:
                    state.write_text(json.dumps((step, epoch, batches)))
                if peer.killed_after and step - begun == peer.killed_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            skipped = 0


def _key(sample: dict[str, object]) -> str:
    return str(sample["__key__"])


if __name__ == "__main__":
    _loop(PeerTraining(**json.loads(sys.argv[1])))
