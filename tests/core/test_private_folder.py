"""Folders of code that will be run: whose they are, what lies in them, and that nothing else is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from wm_core.inference import engine_cache
from wm_core.private_folder import MANIFEST, UntrustedFolderError, clear, faults, private_folder, write_manifest

STRANGER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that is this user's alone, whatever the umask."""
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_folder_is_made_for_its_owner_alone(place: Path) -> None:
    folder = private_folder(place / "a" / "b")
    assert folder.is_dir() and folder.stat().st_mode & 0o777 == 0o700 and folder.parent.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o703])
def test_a_folder_that_others_may_write_is_refused(place: Path, mode: int) -> None:
    folder = place / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UntrustedFolderError, match=rf"open: mode {mode:04o} lets others write.*run: chmod go-w"):
        private_folder(folder)
    with pytest.raises(UntrustedFolderError) if not mode & 0o1000 else _nothing():
        private_folder(folder / "inner" / "most")
    assert (folder / "inner").exists() == bool(mode & 0o1000), "nothing is made where others may write"


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> None:
        pass


@needs_root
def test_a_group_may_write_only_where_it_is_the_users_own(place: Path) -> None:
    folder = place / "shared"
    folder.mkdir()
    folder.chmod(0o770)
    assert private_folder(folder) == folder  # root's group is root's own
    os.chown(folder, -1, STRANGER)
    with pytest.raises(UntrustedFolderError, match="mode 0770"):
        private_folder(folder)


@needs_root
def test_a_folder_of_somebody_else_is_refused_and_so_is_what_lies_in_it(place: Path) -> None:
    folder = place / "theirs"
    (folder / "mine").mkdir(parents=True)
    os.chown(folder, STRANGER, -1)
    for inner in (folder, folder / "mine", folder / "new"):
        with pytest.raises(UntrustedFolderError, match=f"theirs: belongs to uid {STRANGER}, expected"):
            private_folder(inner)


def test_a_link_is_looked_at_where_it_leads(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "link").symlink_to(place / "open")
    with pytest.raises(UntrustedFolderError, match="open: mode 0777"):
        private_folder(place / "link")


def test_a_file_is_no_folder(place: Path) -> None:
    (place / "file").touch()
    for path in (place / "file", place / "file" / "below"):
        with pytest.raises(UntrustedFolderError, match="file: is no folder"):
            private_folder(path)


def test_the_manifest_tells_whole_from_broken(place: Path) -> None:
    folder = private_folder(place / "cache")
    (folder / "lock").touch()
    assert faults(folder, ("lock",)) == []
    (folder / "sub").mkdir()
    (folder / "sub" / "one").write_bytes(b"1")
    assert faults(folder, ("lock",)) == [f"{MANIFEST} is missing or broken"]
    write_manifest(folder, ("lock",))
    (folder / "lock").write_bytes(b"anything")
    assert faults(folder, ("lock",)) == []
    (folder / "two").write_bytes(b"2")
    (folder / "sub" / "one").write_bytes(b"")
    assert faults(folder, ("lock",)) == ["two is not in manifest.json", "sub/one was changed"]
    (folder / "sub" / "one").unlink()
    (folder / "two").unlink()
    assert faults(folder, ("lock",)) == ["sub/one is missing"]
    (folder / MANIFEST).write_text('["not", "a", "manifest"]')
    (folder / "two").symlink_to("/etc/passwd")
    assert faults(folder, ("lock",)) == ["two is neither file nor folder"]
    clear(folder, ("lock",))
    assert [p.name for p in folder.iterdir()] == ["lock"] and Path("/etc/passwd").exists()


@needs_root
def test_what_somebody_else_left_is_not_believed(place: Path) -> None:
    folder = private_folder(place / "cache")
    (folder / "one").write_bytes(b"1")
    write_manifest(folder)
    assert faults(folder) == []
    os.chown(folder / "one", STRANGER, -1)
    assert faults(folder) == [f"one belongs to uid {STRANGER}"]


def test_what_others_may_write_is_not_believed_and_a_manifest_closes_it(place: Path) -> None:
    folder = private_folder(place / "cache")
    (folder / "one").write_bytes(b"1")
    write_manifest(folder)
    (folder / "one").chmod(0o666)
    assert faults(folder) == ["one can be written by others"]
    write_manifest(folder)
    assert faults(folder) == [] and (folder / "one").stat().st_mode & 0o777 == 0o644


def test_compiled_kernels_are_read_as_they_were_written(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = place / "m.kernels"
    assert engine_cache.read_kernels(file) is None
    engine_cache.write_kernels(file, b"k\n\n" * 50)
    assert engine_cache.read_kernels(file) == b"k\n\n" * 50
    file.write_bytes(file.read_bytes()[:-1])
    assert engine_cache.read_kernels(file) is None and "broken" in caplog.text
    file.write_bytes(b"")
    assert engine_cache.read_kernels(file) is None
    engine_cache.write_kernels(file, b"k")
    file.chmod(0o666)
    assert engine_cache.read_kernels(file) is None and "can be written by others" in caplog.text


def test_without_a_home_the_cache_is_where_the_user_says_or_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wm_dynamics.contact_step import compile_cache

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(place))
    assert compile_cache.trusted_folder() == compile_cache.cache_folder() and not caplog.text
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert compile_cache.trusted_folder() is None and "set NUMBA_CACHE_DIR or HOME" in caplog.text


def test_an_engine_cache_that_others_may_write_is_not_used(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / "engines").mkdir()
    (place / "engines").chmod(0o777)
    assert engine_cache.trusted_cache(place / "engines") is None
    assert "chmod go-w" in caplog.text
    (place / "engines").chmod(0o755)
    assert engine_cache.trusted_cache(place / "engines") == place / "engines"


# What Numba keeps.

MODULE = """
import numba
from wm_dynamics.contact_step.compile_cache import is_kept

@numba.njit("f8(f8)", cache=is_kept())
def double(x):
    return 2.0 * x
"""
USE = """
import sys, logging
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from wm_dynamics.contact_step import compile_cache
with compile_cache.opened():
    import tiny
assert not compile_cache.is_kept()
print("double", tiny.double(21.0), "hits", sum(tiny.double.stats.cache_hits.values()))
"""


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_nothing_of_a_stranger_is_run_and_what_is_broken_is_compiled_again(place: Path) -> None:
    """The cache of compiled functions holds pickles: whoever can write one could run a program."""
    (place / "tiny.py").write_text(MODULE)
    base, bang = place / "cache", place / "bang"

    def use() -> str:
        env = {**os.environ, "NUMBA_CACHE_DIR": str(base)}
        env["PYTHONPATH"] = os.pathsep.join([str(place), env.get("PYTHONPATH", "")])
        done = subprocess.run([sys.executable, "-c", USE], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "double 42.0" in done.stdout and not bang.exists()
        return done.stdout + done.stderr

    assert "hits 0" in use()
    (folder,) = base.iterdir()
    (index,) = folder.rglob("*.nbi")
    assert "hits 1" in use()
    # A file of the cache is another's: it is not read.
    index.write_bytes(pickle.dumps(Bomb(bang)))
    said = use()
    assert "was changed; compiled again" in said and "hits 0" in said
    assert "hits 1" in use(), "repaired"
    # The whole folder, manifest and all, is open to others.
    (index,) = folder.rglob("*.nbi")
    index.write_bytes(pickle.dumps(Bomb(bang)))
    write_manifest(folder)
    base.chmod(0o777)
    said = use()
    assert "cannot be trusted" in said and f"chmod go-w {base}" in said and "hits 0" in said


@pytest.mark.parametrize("chosen", ["", "inner/numba"], ids=["the folder itself", "a folder in it"])
def test_doctor_knows_the_caches_that_are_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, chosen: str
) -> None:
    """Caches are made where there are none, but not where somebody else may write; doctor makes nothing at all."""
    from wm_bringup.doctor import models
    from wm_dynamics.contact_step import compile_cache

    folder = place / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder / chosen))
    monkeypatch.setenv("WM_ENGINE_CACHE", str(folder / chosen))
    for found, cost in zip(models.check_caches(), ("waits for the compiler", "built at every start"), strict=True):
        assert found.level == "warning" and f"{folder}: mode 0777 lets others write it" in found.found
        assert cost in found.found and f"chmod go-w {folder}" in found.advice
    assert not list(folder.iterdir())
    assert compile_cache.trusted_folder() is None and engine_cache.trusted_cache() is None
    assert caplog.text.count(f"{folder}: mode 0777 lets others write it") == 2
