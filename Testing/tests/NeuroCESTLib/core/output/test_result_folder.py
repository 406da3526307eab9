"""The folder of results: the old or the new one at every moment, and nothing of the user's is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command_runs import environment
from paths import ROOT

from NeuroCESTLib.batch.frame import run
from NeuroCESTLib.core.output import exchange, result_folder
from NeuroCESTLib.core.output.result_folder import OutputFolder
from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.report.record import Report


def write(folder: Path, **files: str) -> Path:
    """Write text files, whose names have ``_`` for a dot, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    """Texts of all files below a folder, hidden ones included, by their relative path."""
    return {str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_an_output_folder_appears_only_when_all_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "map.txt").write_text("new")
        assert not out.exists()
    assert (out / "sub" / "map.txt").read_text() == "new"
    assert os.listdir(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_result_does_not_replace_an_input_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write(tmp_path / "out", map_txt="input", other_txt="earlier", shard_txt="input, too")

    def command(name: str, replaced: str = "") -> int:
        def main(arguments: Sequence[str]) -> None:
            Report("command").add_input("image", out / name)
            with OutputFolder(out, replaced=lambda path: path == replaced) as folder:
                write(folder, map_txt="new", other_txt="new")

        return run(main, [])

    assert command("map.txt") == 2
    words = f"'{out / 'map.txt'}' is an input of this run and would be replaced: choose another --output"
    assert words in capsys.readouterr().err
    assert command("shard.txt", replaced="shard.txt") == 2
    assert texts(out) == {"map.txt": "input", "other.txt": "earlier", "shard.txt": "input, too"}
    assert os.listdir(tmp_path) == ["out"]
    assert command("shard.txt") == 0
    assert texts(out) == {"map.txt": "new", "other.txt": "new", "shard.txt": "input, too"}


def test_a_failed_run_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), OutputFolder(tmp_path / "deep" / "out") as folder:
        (folder / "map.txt").write_text("half")
        raise Cancelled
    assert os.listdir(tmp_path) == []


def test_a_failed_run_keeps_earlier_results_and_a_good_one_replaces_them(tmp_path: Path) -> None:
    out = write(tmp_path / "out", map_txt="earlier", notes_txt="the user's")
    with pytest.raises(RuntimeError), OutputFolder(out) as folder:
        (folder / "map.txt").write_text("half")
        raise RuntimeError
    assert (out / "map.txt").read_text() == "earlier"
    with OutputFolder(out) as folder:
        (folder / "map.txt").write_text("new")
    assert texts(tmp_path) == {"out/map.txt": "new", "out/notes.txt": "the user's"}


def test_files_of_the_user_stay_with_their_links_folders_and_permissions(tmp_path: Path) -> None:
    out = write(tmp_path / "out", map_txt="earlier")
    write(out / "notes" / "deep", a_txt="a")
    write(out / "pictures", mine_txt="mine")
    (out / "link").symlink_to("nowhere")
    (out / "notes" / "empty").mkdir()
    out.chmod(0o750)
    inode = (out / "notes" / "deep" / "a.txt").stat().st_ino
    with (out / "notes" / "deep" / "a.txt").open("a") as log, OutputFolder(out) as folder:
        write(folder / "pictures", new_txt="new")
        write(folder, map_txt="new")
        log.write(", written meanwhile")
    assert texts(out) == {
        "map.txt": "new",
        "notes/deep/a.txt": "a, written meanwhile",
        "pictures/mine.txt": "mine",
        "pictures/new.txt": "new",
    }
    assert os.readlink(out / "link") == "nowhere"
    assert (out / "notes" / "empty").is_dir()
    assert (out / "notes" / "deep" / "a.txt").stat().st_ino == inode
    assert out.stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["out"]


def test_files_that_the_user_saves_in_the_moment_of_the_exchange_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "out", map_txt="earlier", notes_txt="first", old_txt="first")

    def late(one: Path, other: Path) -> bool:
        write(out, late_txt="late")
        write(tmp_path, saved_txt="second")
        os.replace(tmp_path / "saved.txt", out / "notes.txt")  # as editors save
        return exchange.exchange(one, other)

    monkeypatch.setattr(result_folder, "exchange", late)
    with OutputFolder(out) as folder:
        write(folder, map_txt="new")
    assert texts(tmp_path) == {
        "out/late.txt": "late",
        "out/map.txt": "new",
        "out/notes.txt": "second",
        "out/old.txt": "first",
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exchanges folders by renameat2")
def test_the_folder_is_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", a_txt="a"), write(tmp_path / "other", b_txt="b")
    if not exchange.exchange(one, other):
        pytest.skip("the file system of the temporary folder exchanges nothing")
    assert (texts(one), texts(other)) == ({"b.txt": "b"}, {"a.txt": "a"})
    with pytest.raises(FileNotFoundError):
        exchange.exchange(one, tmp_path / "missing")


def test_without_an_exchange_the_folders_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_folder, "exchange", lambda one, other: False)
    out = write(tmp_path / "out", map_txt="earlier", notes_txt="mine")
    with OutputFolder(out) as folder:
        write(folder, map_txt="new")
    assert texts(tmp_path) == {"out/map.txt": "new", "out/notes.txt": "mine"}


def test_files_without_hard_links_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: object, **options: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(os, "link", no_links)
    out = write(tmp_path / "out", map_txt="earlier", notes_txt="mine")
    with OutputFolder(out) as folder:
        write(folder, map_txt="new")
    assert texts(tmp_path) == {"out/map.txt": "new", "out/notes.txt": "mine"}


def test_the_working_folder_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that stands in it would otherwise see the old files."""
    out = write(tmp_path / "out", map_txt="earlier")
    monkeypatch.chdir(out)
    with OutputFolder(".") as folder:
        write(folder, map_txt="new")
    assert texts(Path.cwd()) == {"map.txt": "new"}
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_with_very_many_files_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_CARRIED", 3)
    out = write(tmp_path / "out", **{f"n{i}_txt": str(i) for i in range(5)})
    inode = out.stat().st_ino
    with OutputFolder(out) as folder:
        write(folder, map_txt="new")
    assert texts(out) == {"map.txt": "new"} | {f"n{i}.txt": str(i) for i in range(5)}
    assert out.stat().st_ino == inode
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_where_the_result_has_a_file_is_refused(tmp_path: Path) -> None:
    out = write(tmp_path / "out", a_txt="earlier")
    write(out / "map.txt", mine_txt="mine")
    with pytest.raises(ValueError, match="cannot write"), OutputFolder(out) as folder:
        write(folder, a_txt="new", map_txt="new")
    assert texts(tmp_path) == {"out/a.txt": "earlier", "out/map.txt/mine.txt": "mine"}


def test_earlier_files_of_the_same_kind_can_be_left_behind(tmp_path: Path) -> None:
    out = write(tmp_path / "out", shard0_npy="old", shard1_npy="old", notes_txt="mine")
    with OutputFolder(out, replaced=lambda name: name.startswith("shard")) as folder:
        write(folder, shard0_npy="new")
    assert texts(out) == {"shard0.npy": "new", "notes.txt": "mine"}


@pytest.mark.parametrize("alone", [True, False])
def test_a_shared_folder_is_exchanged_only_where_all_belongs_to_the_result(alone: bool, tmp_path: Path) -> None:
    out = write(tmp_path / "out", net_pt="old", net_png="old")
    if not alone:
        write(out, other_pt="other")
    inode = out.stat().st_ino
    with OutputFolder(out, name="net.pt", belongs=lambda name: name.startswith("net.")) as folder:
        write(folder, net_pt="new", net_png="new")
    assert (out / "net.pt").read_text() == "new"
    assert (out.stat().st_ino == inode) != alone
    assert os.listdir(tmp_path) == ["out"]


_RUN = """
import os, signal, sys
from NeuroCESTLib.batch.frame import run
from NeuroCESTLib.core.output import exchange, result_folder
moment, out = sys.argv[1:3]

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "before the exchange":
    result_folder.exchange = kill
elif moment == "after the exchange":
    result_folder.bring_latecomers = kill
elif moment == "between two renames":
    result_folder.exchange = lambda one, other: False
    rename, calls = os.rename, []
    def second(*arguments):
        calls.append(arguments)
        kill() if len(calls) == 2 else rename(*arguments)
    os.rename = second
elif moment == "between moves":
    os.chdir(out)
    replace, moved = os.replace, []
    def second(*arguments):
        moved.append(arguments)
        kill() if len(moved) == 2 else replace(*arguments)
    os.replace = second
with result_folder.OutputFolder(out) as folder:
    (folder / "map.txt").write_text("new")
    (folder / "report.txt").write_text("new")
    if moment == "while working":
        kill()
"""


def killed(moment: str, out: Path) -> None:
    """Run a process that writes ``map.txt`` and ``report.txt`` and is killed in a certain moment."""
    done = subprocess.run([sys.executable, "-c", _RUN, moment, str(out)], env=environment(), cwd=ROOT, check=False)
    assert done.returncode < 0


OLD = {"map.txt": "old", "report.txt": "old", "notes.txt": "mine"}
NEW = {"map.txt": "new", "report.txt": "new", "notes.txt": "mine"}


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process has ended")
@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("while working", OLD),
        ("before the exchange", OLD),
        ("after the exchange", NEW),
        ("between two renames", {}),
        ("between moves", {**OLD, "map.txt": "new"}),
    ],
)
def test_a_run_that_is_killed_at_any_moment_leaves_one_whole_result(
    moment: str, left: dict[str, str], tmp_path: Path
) -> None:
    """In the two moments where the system cannot exchange folders, the next run restores one before it starts."""
    out = write(tmp_path / "out", map_txt="old", report_txt="old", notes_txt="mine")
    killed(moment, out)
    assert (texts(out) if out.exists() else {}) == left
    with pytest.raises(Cancelled), OutputFolder(out):
        assert texts(out) == (NEW if moment in ("after the exchange", "between moves") else OLD)
        raise Cancelled
    assert os.listdir(tmp_path) == ["out"]
    with OutputFolder(out) as folder:
        write(folder, map_txt="new", report_txt="new")
    assert texts(tmp_path) == {f"out/{name}": text for name, text in NEW.items()}


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process has ended")
def test_folders_that_are_not_of_ended_runs_on_this_machine_stay(tmp_path: Path) -> None:
    killed("while working", tmp_path / "out")
    (left,) = tmp_path.glob(".out-*")
    others = [tmp_path / ".out-backup", tmp_path / f".other{left.name[4:]}", tmp_path / f"{left.name}.old"]
    others.append(tmp_path / left.name.replace(left.name.split("-")[2], "0123abcd"))  # of another machine
    others.append(tmp_path / left.name.replace(left.name.split("-")[1], str(os.getppid())))  # of a living process
    for kept in others:
        kept.mkdir()
    with OutputFolder(tmp_path / "out") as folder:
        write(folder, map_txt="new")
    assert sorted(os.listdir(tmp_path)) == sorted(["out", *(kept.name for kept in others)])


def test_errors_name_the_wanted_folder_and_not_the_hidden_one(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"out/map\.nii\.gz' is bad") as caught,
        OutputFolder(tmp_path / "out") as folder,
    ):
        raise ValueError(f"'{folder / 'map.nii.gz'}' is bad")
    assert str(tmp_path / "out" / "map.nii.gz") in str(caught.value)


def test_impossible_output_folders_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, words in (("file", "it is a file"), ("file/out", "cannot write")):
        with pytest.raises(ValueError, match=words), OutputFolder(tmp_path / place):
            pytest.fail("work began")


_MOUNTED = """
set -e
mount -t tmpfs -o size=200k none "$1"
echo old > "$1/map.txt"; echo mine > "$1/notes.txt"
"$2" -c "
import sys
from pathlib import Path
from NeuroCESTLib.core.output.result_folder import OutputFolder
from NeuroCESTLib.core.whole_files import write_text
for size in (400_000, 3):
    try:
        with OutputFolder(sys.argv[1]) as folder:
            write_text('x' * size, folder / 'map.txt')
    except ValueError as error:
        print(error)
    print({f.name: len(f.read_bytes()) for f in sorted(Path(sys.argv[1]).iterdir())})
" "$1"
"""


@pytest.fixture
def in_namespace() -> Callable[..., subprocess.CompletedProcess]:
    """Function that runs a shell script in which file systems may be mounted; skips the test where that is not so."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system lets no test mount a file system")

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
        words = [*command, script, "sh", *map(str, arguments)]
        return subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)

    return run


def test_an_output_folder_may_be_a_file_system_of_its_own_and_full(in_namespace: Callable, tmp_path: Path) -> None:
    """Then nothing can be renamed into it from beside it."""
    done = in_namespace(_MOUNTED, tmp_path, sys.executable)
    if "mount" in done.stderr:
        pytest.skip("this system lets no test mount a file system")
    assert done.returncode == 0, done.stderr
    said, after_full, after = done.stdout.splitlines()
    assert said.startswith(f"cannot write '{tmp_path}")
    assert said.endswith("the disk is full or its quota used up, free some space")
    assert (after_full, after) == ("{'map.txt': 4, 'notes.txt': 5}", "{'map.txt': 3, 'notes.txt': 5}")
