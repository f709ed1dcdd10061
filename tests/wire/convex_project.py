"""A folder in which the unmodified `npx convex` works on a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.wire.running_server import REPOSITORY, RunningServer, clean_environment

PATIENCE = 60.0
# What `npx convex` starts, without the second that npx itself takes.
CONVEX = [shutil.which("node") or "node", str(REPOSITORY / "node_modules/convex/bin/main.js")]
HELLO = """
import { query } from "./_generated/server";
export default query({ args: {}, handler: async () => 1 });
"""


class ConvexProject:
    """A project that depends on `convex` and has one function in TypeScript."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": {"convex": "*"}}))
        (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
        (folder / "convex").mkdir()
        (folder / "convex/hello.ts").write_text(HELLO)
        # With CI set the command line reports nothing to anybody.
        environment = clean_environment() | {"CI": "1", "npm_config_offline": "true"}
        deployment = {"CONVEX_SELF_HOSTED_URL": server.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key}
        self.folder, self.environment = folder, environment | deployment

    def convex(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`npx convex` with these words, to its end."""
        return subprocess.run(
            [*CONVEX, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`npx convex` with these words, ended when the block is left."""
        with subprocess.Popen(
            [*CONVEX, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
