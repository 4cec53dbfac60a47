"""Installs what package registries have: moleport from its wheel, peers by their ordinary clients.

Everything that is not a system package goes into one cache directory of this user, and stays there for
the next run. What cannot be installed is told with the command that would; the run goes on without it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from moleport_bench.errors import NotInstalled
from moleport_bench.peers.base import Peer, find_program

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "wire", "server", "agent")
"""What a wheel is made from."""
BUILD_SECONDS = 1800
DISTRIBUTION = "/usr/bin/python3"

DEBIAN = {
    "nginx": "nginx-light",
    "wrk": "wrk",
    "curl": "curl",
    "haproxy": "haproxy",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Programs and the packages of Debian and Ubuntu that have them."""
CRATES: dict[str, Sequence[Sequence[str]]] = {
    "bore": (("bore-cli", "--locked"),),
    "rathole": (
        ("rathole", "--locked"),
        # Its lock file names a dependency that new compilers refuse.
        ("rathole", "--no-default-features", "--features", "server,client,noise"),
    ),
}
"""Programs and the ways to install them with cargo; the first one that works counts."""

OWN_CRATES: dict[str, Path] = {"rustunnel-client-double": ROOT / "bench" / "rustunnel_client"}
"""Programs of this repository that cargo builds."""


def cache_directory() -> Path:
    """Return where everything is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "moleport" / "bench"


def install_programs(names: Iterable[str], cache: Path, tell: Callable[[str], None]) -> None:
    """Install what is missing of these programs, as far as it can be.

    Args:
        names: programs.
        cache: where what is built goes.
        tell: called with what is about to take long.
    """
    names = dict.fromkeys(names)
    for name in names:
        if name in OWN_CRATES and shutil.which("cargo") is not None:
            _build_own_crate(name, cache, tell)
    missing = [name for name in names if find_program(name, cache) is None]
    packages = sorted({DEBIAN[name] for name in missing if name in DEBIAN})
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        tell(f"installing {', '.join(packages)} with apt-get")
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        _succeeds(command, {"DEBIAN_FRONTEND": "noninteractive"})
    for name in missing:
        for words in CRATES.get(name, ()):
            if shutil.which("cargo") is None:
                break
            tell(f"building {name} with cargo (minutes, once)")
            if _succeeds(["nice", "-n", "10", "cargo", "install", "--root", str(cache), *words]):
                break


def _build_own_crate(name: str, cache: Path, tell: Callable[[str], None]) -> None:
    """Build a program of this repository; does nothing when its sources are those of the last time."""
    if is_built(name, cache):
        return
    source = OWN_CRATES[name]
    tell(f"building {name} with cargo (minutes, once)")
    command = ["nice", "-n", "10", "cargo", "install", "--locked", "--force"]
    where = ["--root", str(cache), "--path", str(source)]
    if _succeeds([*command, *where], {"CARGO_TARGET_DIR": str(cache / "target")}):
        _mark(name, cache).write_text(_crate_digest(name), encoding="ascii")


def is_built(name: str, cache: Path) -> bool:
    """Tell whether a program of this repository was built from the sources that are here now."""
    mark = _mark(name, cache)
    if not (cache / "bin" / name).exists() or not mark.exists():
        return False
    return mark.read_text(encoding="ascii") == _crate_digest(name)


def _mark(name: str, cache: Path) -> Path:
    return cache / f"{name}.sources"


def _crate_digest(name: str) -> str:
    return source_digest(OWN_CRATES[name], ("Cargo.toml", "Cargo.lock", "src"))


def missing_for(peer: Peer, cache: Path) -> str | None:
    """Say why a peer cannot take part, None when it can."""
    names = [
        name
        for name in peer.needs
        if not name.startswith("moleport") and find_program(name, cache) is None
    ]
    return "; ".join(how_to_install(name) for name in names) or None


def how_to_install(name: str) -> str:
    """Say what would install a program."""
    if name in DEBIAN:
        return f"{name} is missing: apt-get install {DEBIAN[name]}"
    if name in OWN_CRATES:
        return f"{name} is missing: it takes cargo to build {OWN_CRATES[name].relative_to(ROOT)}"
    if name in CRATES:
        return f"{name} is missing: cargo install {' '.join(CRATES[name][-1])}"
    return f"{name} is not on PATH"


def install_moleport(cache: Path, tell: Callable[[str], None]) -> str:
    """Build a wheel of this checkout and install it as users do, into a venv of its own.

    Does nothing when the sources are those of the last time.

    Returns:
        The version, with the commit where git tells it.

    Raises:
        NotInstalled: pip failed; carries the end of what it said.
    """
    venv = cache / "moleport"
    mark = venv / ".sources"
    digest = source_digest(ROOT)
    if not mark.exists() or mark.read_text(encoding="ascii") != digest:
        tell("building moleport's wheel and installing it")
        if not (venv / "bin" / "python").exists():
            _run([interpreter(), "-m", "venv", str(venv)])
        wheels = cache / "wheel"
        shutil.rmtree(wheels, ignore_errors=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        # As the image and the published wheels are built: with the data path compiled.
        _run(
            [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)],
            {"MOLEPORT_COMPILE": "1"},
        )
        wheel = next(wheels.glob("moleport-*.whl"))
        _run([*pip, "install", f"{wheel}[server]"])
        _run([*pip, "install", "--force-reinstall", "--no-deps", str(wheel)])
        mark.write_text(digest, encoding="ascii")
    version = _output([str(venv / "bin" / "moleport"), "--version"]).split()[-1]
    commit = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    return f"{version} ({commit})" if commit else version


def source_digest(root: Path, names: Sequence[str] = SOURCES) -> str:
    """Return a digest of everything that a wheel, or another program, is made from."""
    digest = hashlib.sha256()
    for name in names:
        top = root / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def interpreter() -> str:
    """Return the Python that moleport is installed for: the distribution's, if it is new enough.

    Distributions and official images build theirs with profile-guided optimization. One that somebody
    built at home often lacks it, which costs a fifth of all requests.
    """
    check = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    return DISTRIBUTION if _succeeds([DISTRIBUTION, "-c", check]) else sys.executable


def _run(command: Sequence[str], environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-800:]
        raise NotInstalled(f"{' '.join(command[:4])} … failed: {words}")


def _succeeds(command: Sequence[str], environ: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environ or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
