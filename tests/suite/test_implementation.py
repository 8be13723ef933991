"""The resolution of paths in command lines and implementation files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.play.implementation import find_implementation


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, which contains a program and a script."""
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / "my.py").touch()
    (directory / "x").touch(mode=0o755)
    monkeypatch.chdir(directory)
    return directory


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("./x -v", ("{here}/x", "-v")),
        ("sh ./x", ("{sh}", "{here}/x")),
        ("sh my.py ./nothere .", ("{sh}", "{here}/my.py", "./nothere", ".")),
        ("sh A=b ./x /dev/null", ("{sh}", "A=b", "{here}/x", "/dev/null")),
    ],
)
def test_file_arguments_are_relative_to_current_directory(
    here: Path, line: str, words: tuple[str, ...]
) -> None:
    (sh, *_) = find_implementation("sh").argv
    assert sh.startswith("/")
    expected = tuple(word.format(here=here, sh=sh) for word in words)
    assert find_implementation(line).argv == expected


def test_program_in_current_directory_requires_slash(here: Path) -> None:
    assert (here / "x").exists()
    assert find_implementation("x").argv == ("x",)


def test_relative_directory_in_path_gives_absolute_program_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ".")
    assert find_implementation("x").argv == (f"{here}/x",)


@pytest.mark.parametrize("name", ["{there}/x.toml", "../there/x.toml"])
def test_paths_in_file_are_relative_to_its_directory(here: Path, tmp_path: Path, name: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "other.py").touch()
    (there / "x.toml").write_text('name = "x"\nargv = ["./x", "other.py", "my.py"]\n')
    (program, other, mine) = find_implementation(name.format(there=there)).argv
    assert (Path(program).resolve(), Path(other).resolve()) == (there / "x", there / "other.py")
    assert mine == "my.py", f"{here} must not be searched"


@pytest.mark.parametrize("name", ["unasked/stop", "invariant/stop"])
def test_known_divergence_accepts_old_invariant_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\nargv = ["true"]\n'
        f'[[divergence]]\ntranscripts = ["{name}"]\nkind = "bug"\nreason = "why"\n'
    )
    assert find_implementation(str(path)).divergence("invariant/stop", "listen")
