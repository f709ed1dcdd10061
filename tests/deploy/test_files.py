"""The files to deploy with are what the pages show and what Camber takes: the unit, the image, the composition."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest

from camber.backend import Backend
from camber.functions import load_application
from camber.server.workers import _LAST_SECONDS
from camber.settings import Settings
from tests.docs.blocks import blocks_of
from tests.postgres.cluster import Cluster
from tests.wire.running_server import CAMBER, REPOSITORY, clean_environment, free_ports

PAGES = REPOSITORY / "docs/how-to"
UNIT = (REPOSITORY / "deploy/camber.service").read_text()
IMAGE = (REPOSITORY / "Dockerfile").read_text()
LET_THROUGH = (REPOSITORY / ".dockerignore").read_text().splitlines()
COMPOSITION = (REPOSITORY / "compose.yaml").read_text()
ROLE = REPOSITORY / "deploy/compose/create-role.sh"
CROWDFUNDING = REPOSITORY / "apps/crowdfunding"
PROGRAM = "/srv/camber/.venv/bin/camber"
PATIENCE = 60.0

OF_THE_COMMAND_LINE = {"CAMBER_URL", "CAMBER_ADMIN_KEY", "CAMBER_DATA", "CAMBER_TEST_DATABASE_URL"}
DEPLOYED = [
    *(REPOSITORY / name for name in ("Dockerfile", "compose.yaml")),
    *(path for path in sorted((REPOSITORY / "deploy").rglob("*")) if path.is_file()),
    *sorted(PAGES.glob("deploy-*.md")),
    *(PAGES / name for name in ("monitor.md", "roll-out-a-new-version.md")),
]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def lines_of_unit(name: str) -> list[str]:
    """What the unit says under this name, one entry for each time."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def instructions(stage: int) -> list[tuple[str, str]]:
    """The instructions of one stage of the image, each with what stands behind its word; continued lines are one."""
    text = re.split(r"^FROM ", IMAGE.replace("\\\n", ""), flags=re.MULTILINE)[stage + 1]
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip() and not line.startswith("#")]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def copied(stage: int) -> list[list[str]]:
    """What is copied out of the repository: sources, and last the target."""
    return [words.split() for word, words in instructions(stage) if word == "COPY" and not words.startswith("--from")]


def environment_of_image() -> dict[str, str]:
    (words,) = [words for word, words in instructions(1) if word == "ENV"]
    return dict(pair.split("=", 1) for pair in shlex.split(words))


def copy_into(folder: Path, stage: int) -> None:
    """The files of the repository that this stage gets, where it gets them."""
    for *sources, target in copied(stage):
        for source in sources:
            path = REPOSITORY / source
            if path.is_dir():
                shutil.copytree(path, folder / target, ignore=shutil.ignore_patterns("__pycache__", ".camber"))
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / target)


@contextmanager
def started(command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is ready on the port that its environment names; it is ended when the block is left."""
    with (folder.parent / "log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=dict(env), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_ready(int(env["CAMBER_PORT"])):
            printed = (folder.parent / "log").read_text()
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def on_free_ports() -> dict[str, str]:
    port, site_port = free_ports(2)
    return clean_environment() | {"CAMBER_PORT": str(port), "CAMBER_SITE_PORT": str(site_port)}


# What pages show of them


@pytest.mark.parametrize(
    ("page", "language", "file"),
    [
        ("deploy-on-one-machine.md", "ini", "deploy/camber.service"),
        ("deploy-several-servers.md", "haproxy", "deploy/haproxy.cfg"),
        ("deploy-several-servers.md", "nginx", "deploy/nginx.conf"),
        ("deploy-with-containers.md", "dockerfile", "Dockerfile"),
        ("deploy-with-containers.md", "yaml", "compose.yaml"),
    ],
)
def test_a_page_shows_a_file_word_for_word(page: str, language: str, file: str) -> None:
    shown = [block.text for block in blocks_of(PAGES / page) if block.language == language]

    assert shown
    assert all(text in (REPOSITORY / file).read_text() for text in shown)


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_what_is_set_is_a_setting(path: Path) -> None:
    settings = {f"CAMBER_{name.upper()}" for name in Settings.__dataclass_fields__}
    named = set(re.findall(r"\bCAMBER_[A-Z_]+\b", path.read_text()))

    assert named <= settings | OF_THE_COMMAND_LINE


# The unit


@needs("systemd-analyze")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "camber.service"
    unit.write_text(UNIT.replace(PROGRAM, str(CAMBER)))
    command = ["systemd-analyze", "verify", "--man=no", unit]

    verified = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    said = [line for line in (verified.stdout + verified.stderr).splitlines() if "camber.service" in line]
    assert (verified.returncode, said) == (0, [])


def test_the_commands_of_the_unit_serve_load_anew_and_stop(tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    shutil.copytree(CROWDFUNDING, folder / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    serve, reload = (
        [word.replace(PROGRAM, str(CAMBER)) for word in shlex.split(lines_of_unit(name)[0])]
        for name in ("ExecStart", "ExecReload")
    )
    said = dict(line.split("=", 1) for line in lines_of_unit("Environment"))
    assert said == {"CAMBER_DATA": "/var/lib/camber"}
    env = on_free_ports() | {"CAMBER_DATA": str(tmp_path / "data")}

    with started(serve, folder, env) as process:
        reloaded = subprocess.run(reload, cwd=folder, env=env, check=False, capture_output=True, timeout=PATIENCE)
        process.terminate()
        code = process.wait(PATIENCE)

    assert (reloaded.returncode, code) == (0, 0), reloaded.stderr


def test_systemd_and_docker_wait_for_a_server_that_ends() -> None:
    needed = Settings().shutdown_seconds + _LAST_SECONDS
    graces = re.findall(r"^x-camber.*?stop_grace_period: (\d+)s$", COMPOSITION, re.MULTILINE | re.DOTALL)

    assert [float(seconds) > needed for seconds in [*lines_of_unit("TimeoutStopSec"), *graces]] == [True, True]


def test_the_unit_leaves_room_for_all_connections() -> None:
    (files,) = lines_of_unit("LimitNOFILE")

    assert int(files) > 2 * Settings().connections + 512


# The image


@pytest.mark.parametrize("stage", [0, 1])
def test_what_is_copied_into_the_image_is_there_and_let_through(stage: int) -> None:
    sources = [source for *sources, _ in copied(stage) for source in sources]

    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in LET_THROUGH
    assert LET_THROUGH[1] == "*"


def test_nothing_is_let_into_the_image_that_is_not_copied() -> None:
    sources = {source for stage in (0, 1) for *sources, _ in copied(stage) for source in sources}

    assert {line[1:] for line in LET_THROUGH if line.startswith("!")} == sources


def test_the_image_names_no_host() -> None:
    for name in re.findall(r"^FROM (\S+)", IMAGE, re.MULTILINE):
        assert re.fullmatch(r"[a-z]+:[\w.-]+", name), name
    assert "://" not in IMAGE.replace("http://127.0.0.1", "")


def test_the_package_is_built_of_what_the_image_has_and_what_its_lock_names(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    copy_into(folder, 0)
    needed = tomllib.loads((folder / "pyproject.toml").read_text())["build-system"]["requires"]
    command = [CAMBER.with_name("python"), "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]

    built = subprocess.run([*command, *offline], cwd=folder, check=False, capture_output=True, text=True, timeout=120)

    assert built.returncode == 0, built.stderr
    assert len(list((folder / "dist").glob("camber-*.whl"))) == 1
    assert (folder / "requirements/build.txt").exists()
    assert needed == [
        line for line in (REPOSITORY / "requirements/build.in").read_text().splitlines() if line[0] != "#"
    ]


def test_what_builds_the_image_is_locked_as_for_development() -> None:
    build, development = (
        set(re.findall(r"^[\w.-]+==\S+", (REPOSITORY / f"requirements/{name}.txt").read_text(), re.MULTILINE))
        for name in ("build", "dev")
    )

    assert build
    assert build <= development


def test_what_the_image_starts_serves_its_application_and_is_healthy(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    copy_into(folder, 1)
    commands = dict(instructions(1))
    start = re.findall(r'"([^"]+)"', commands["CMD"])
    _, _, check = commands["HEALTHCHECK"].partition("CMD ")
    said = {name: value for name, value in environment_of_image().items() if name.startswith("CAMBER_")}
    assert said == {"CAMBER_HOST": "0.0.0.0", "CAMBER_DATA": "/data"}
    env = on_free_ports() | {"CAMBER_DATA": str(tmp_path / "data")}
    env["PATH"] = f"{CAMBER.parent}{os.pathsep}{env['PATH']}"
    healthy = [word.replace(":3210/", f":{env['CAMBER_PORT']}/") for word in re.findall(r'"((?:[^"])+)"', check)]

    assert subprocess.run(healthy, env=env, check=False, capture_output=True, timeout=PATIENCE).returncode != 0
    with started(start, folder, env):
        deadline = time.monotonic() + PATIENCE
        while True:
            asked = subprocess.run(healthy, env=env, check=False, capture_output=True, timeout=PATIENCE)
            if asked.returncode == 0 or time.monotonic() > deadline:
                break
        ran = subprocess.run(
            ["camber", "run", "appState:get"], cwd=folder, env=env, check=False, capture_output=True, timeout=PATIENCE
        )

    assert (asked.returncode, ran.returncode) == (0, 0), asked.stderr + ran.stderr
    assert b"crowdfundingActive" in ran.stdout


# The composition


def test_the_composition_takes_files_and_services_that_are_there() -> None:
    files = re.findall(r"\./([^:\"]+):", COMPOSITION)
    services = set(re.findall(r"^  ([\w-]+):", COMPOSITION.partition("\nservices:\n")[2], re.MULTILINE))
    after = re.findall(r"depends_on: \[([^\]]+)\]", COMPOSITION)

    assert len(files) == 2
    assert all((REPOSITORY / file).is_file() for file in files)
    assert {name.strip() for names in after for name in names.split(",")} <= services
    assert {"camber-1", "camber-2", "haproxy", "postgres"} <= services


def test_the_servers_of_the_composition_trust_its_network_and_nobody_else() -> None:
    (trusted,) = re.findall(r"CAMBER_TRUSTED_PROXIES: (\S+)", COMPOSITION)

    assert f"config: [{{subnet: {trusted}}}]" in COMPOSITION


@needs("haproxy")
def test_haproxy_has_nothing_to_say_against_the_file_of_the_composition(tmp_path: Path) -> None:
    text = (REPOSITORY / "deploy/compose/haproxy.cfg").read_text()
    servers = re.findall(r"server \w+ ([\w-]+):3210", text)
    assert [f"\n  {name}: *camber" in COMPOSITION for name in servers] == [True, True]
    file = tmp_path / "haproxy.cfg"
    file.write_text(re.sub(r"camber-\d:", "127.0.0.1:", text))  # those names are known to Docker alone

    checked = subprocess.run(["haproxy", "-c", "-f", file], check=False, capture_output=True, text=True, timeout=60)

    assert checked.returncode == 0, checked.stderr
    assert "warn" not in (checked.stdout + checked.stderr).lower()


def test_haproxy_waits_and_checks_in_the_composition_as_it_does_on_machines() -> None:
    on_machines, composed = (
        {line.split("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines()}
        for name in ("deploy/haproxy.cfg", "deploy/compose/haproxy.cfg")
    )
    differs = ("log ", "user ", "group ", "stats ", "bind ", "server ", "default-server ")

    assert {line for line in on_machines - composed if not line.startswith(differs)} == set()


@pytest.fixture
def new_here(postgres: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL without a role or database called camber, to which somebody else may connect."""
    postgres.sql("CREATE ROLE stranger LOGIN")
    yield postgres
    postgres.drop_database(postgres.url("camber"))
    postgres.sql("DROP ROLE IF EXISTS camber, stranger")


@needs("psql")
@pytest.mark.parametrize("way", ["script", "page"])
def test_the_role_has_its_database_and_nothing_else(way: str, new_here: Cluster, tmp_path: Path) -> None:
    if way == "script":
        env = {"PGHOST": "127.0.0.1", "PGPORT": str(new_here.port), "POSTGRES_PASSWORD": "it's \\secret"}
        subprocess.run(["sh", ROLE], env=clean_environment() | env, check=True, timeout=60)
    else:
        made = next(block for block in blocks_of(PAGES / "deploy-on-postgresql.md") if block.language == "sql")
        for statement in made.text.split(";\n")[:-1]:
            new_here.sql(statement)
    url = f"postgresql://camber@127.0.0.1:{new_here.port}/camber"
    Backend.open(
        load_application(CROWDFUNDING), tmp_path / "data", settings=Settings(database_url=url), create=True
    ).close()
    rights = new_here.sql(
        "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = 'camber'"
    )

    assert rights == [(False,)]
    assert new_here.sql("SELECT 1", url=new_here.url().replace("postgres@", "stranger@")) == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        new_here.sql("SELECT 1", url=url.replace("camber@", "stranger@"))
