"""The commit protocol as a model, searched by Spin: in every order of its steps, with every failure, each claim holds.

Small bounds with the other tests, wide ones too under scripts/torture. Each mistake that the model can make must be found, and by
the claim that it breaks. `pytest -s` shows how many states there were, and what they took.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "src/camber/storage/postgres/commit_protocol.pml"
PAGE = REPOSITORY / "docs/explanation/commit-protocol.md"
TORTURE = bool(os.environ.get("CAMBER_TORTURE"))
MEGABYTES = 4096
SECONDS = 1800 if TORTURE else 900

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(  # scripts/torture installs them
        not TORTURE and not (shutil.which("spin") and shutil.which("cc")),
        reason="spin or a C compiler for what it generates is not installed",
    ),
]

# Bounds, and the processes of which every step happens within them: what never happens proves nothing.
SMALL = {
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=1 FORGETS=1": ("Server", "Dying", "Time"),
    "MUTATIONS_0=1 MUTATIONS_1=1 FAULTS=1 QUERIES_1=1": ("Looks", "Client"),
    "MUTATIONS_0=1 MUTATIONS_1=1 FAULTS=1 READERS=1": ("Reader",),
}
WIDE = [
    "MUTATIONS_0=2 MUTATIONS_1=2 FAULTS=1 KINDS=5",
    "MUTATIONS_0=2 MUTATIONS_1=2 FAULTS=2 FORGETS=1",
    "MUTATIONS_0=3 MUTATIONS_1=1 FAULTS=1",
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=3 FORGETS=1",
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=1 FORGETS=1 READERS=1",
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=1 QUERIES_1=1",
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=0 FORGETS=1 QUERIES_0=1",
    "MUTATIONS_0=2 MUTATIONS_1=1 FAULTS=0 FORGETS=1 QUERIES_1=1",
    "MUTATIONS_0=1 MUTATIONS_1=1 FAULTS=1 FORGETS=1 QUERIES_1=1",
    "MUTATIONS_0=1 MUTATIONS_1=1 FAULTS=1 QUERIES_1=2",
    "MUTATIONS_0=1 MUTATIONS_1=1 FAULTS=0 QUERIES_0=1 QUERIES_1=1",
]

# Where each mistake shows, and as what: part of the assertion that fails.
MISTAKES = {
    "TIMESTAMP_AFTER_COMMIT": ("MUTATIONS_0=1 FAULTS=0 READERS=1", "largest!=timestamp"),
    "TIMESTAMP_OF_SNAPSHOT": ("MUTATIONS_0=1 FAULTS=0", "timestamp>log[(newest-1)].timestamp"),
    "LOCK_INSIDE_BEGIN": ("FAULTS=0", "!(alone)"),
    "LATER_MEMBERS_KEPT": ("FAULTS=0", "saw_"),
    "ANSWER_BEFORE_COMMIT": ("MUTATIONS_0=1 FAULTS=0", "(members&in_log)==members"),
    "UNLOCK_FORGOTTEN": ("FAULTS=0", "invalid end state"),
    "DOUBT_WITHOUT_LOCK": ("MUTATIONS_0=1", "members&refused"),
    "DROPPED_ROWS_FORGOTTEN": ("FORGETS=1", "(members&in_log)==0"),
    "LOOK_BEGUN_BEFORE": ("MUTATIONS_0=1 FAULTS=0 QUERIES_1=1", "touched&1"),
    "ROWS_BEFORE_SNAPSHOT_UNMARKED": ("MUTATIONS_0=1 FAULTS=0 QUERIES_1=1", "touched&1"),
    "RESULT_ENTERS_UNCHECKED": ("MUTATIONS_0=1 FAULTS=0 QUERIES_1=2", "touched&1"),
}


def searched(folder: Path, defined: str, *, optimized: str = "-O1") -> str:
    """Have Spin search the model with these bounds and mistakes; returns what it reports."""
    definitions = [f"-D{name}" for name in defined.split()]
    run(folder, "spin", "-a", *definitions, str(MODEL))
    run(folder, "cc", optimized, "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-o", "pan", "pan.c")
    return run(folder, "./pan", "-m100000", "-w22")


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def not_reached(report: str, process: str) -> list[str]:
    """The steps of a process that no order of events led to; the end of a process that goes on for ever is none."""
    (steps,) = re.findall(rf"^unreached in proctype {process}\n((?:\t.*\n)+)", report, re.MULTILINE)
    return [line.strip() for line in re.findall(r"^\t.*, state .*$", steps, re.MULTILINE) if "-end-" not in line]


@pytest.mark.parametrize("bounds", [*SMALL, *WIDE] if TORTURE else SMALL)
def test_every_claim_holds_in_every_order_of_steps(tmp_path: Path, bounds: str) -> None:
    report = searched(tmp_path, bounds)

    print(bounds, *re.findall(r".*(?:states, stored|total actual memory|elapsed time).*", report), sep="\n")  # noqa: T201
    assert "errors: 0" in report, report
    assert "Full statespace search" in report
    assert "invalid end states\t+" in report
    assert "assertion violations\t+" in report
    for cut_short in ("search depth too small", "not completed", "out of memory", "MEMLIM", "aborting"):
        assert cut_short not in report
    assert [step for process in SMALL.get(bounds, ()) for step in not_reached(report, process)] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_by_the_claim_that_it_breaks(tmp_path: Path, mistake: str) -> None:
    bounds, claim = MISTAKES[mistake]

    report = searched(tmp_path, f"MISTAKE_{mistake} {bounds}", optimized="-O0")  # it is found sooner than compiled well

    assert "errors: 1" in report, report
    (broken,) = re.findall(r"^pan:1: (.*)$", report, re.MULTILINE)
    assert claim in broken


def test_every_mistake_of_the_model_is_tried_and_on_the_page() -> None:
    assert set(re.findall(r"MISTAKE_(\w+)", MODEL.read_text(encoding="utf-8"))) == set(MISTAKES)
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == list(MISTAKES)
