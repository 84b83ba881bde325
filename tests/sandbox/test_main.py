import json
import os

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.sandbox.__main__ import finished, main, rows, settings

COLUMNS = {
    "id", "verdict", "detail", "cpu_seconds", "wall_seconds", "peak_memory_bytes", "asserts_run",
    "asserts_failed", "level", "policy", "assurance",
}  # fmt: skip


def written(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.mark.sandbox
def test_rows_are_judged_and_a_partial_output_is_gone_on_with(tmp_path, capsys):
    listed = [
        {"id": "a", "code": "def f(): return 1", "tests": "assert f() == 1"},
        {"id": 2, "code": "print('hi')"},
        {"id": [3], "code": None, "tests": ""},
    ]
    source = written(tmp_path / "in.jsonl", *listed)
    target = tmp_path / "out.jsonl"
    assert main(["run", str(source), str(target), "--slots", "1"]) == 0
    out = [json.loads(line) for line in target.read_text().splitlines()]
    assert {json.dumps(row["id"]): row["verdict"] for row in out} == {
        '"a"': "passed", "2": "passed", "[3]": "syntax_error",
    }  # fmt: skip
    assert all(set(row) >= COLUMNS for row in out)
    assert "3/3 judged" in capsys.readouterr().err

    lines = target.read_text().splitlines(keepends=True)
    target.write_text(lines[0] + lines[1][:20])
    assert main(["run", str(source), str(target), "--slots", "1"]) == 0
    ids = [json.loads(line)["id"] for line in target.read_text().splitlines()]
    assert len(ids) == 3
    assert all(row["id"] in ids for row in listed)


@pytest.mark.sandbox
def test_paths_with_spaces_are_no_matter(tmp_path, monkeypatch):
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    source = written(folder / "in put.jsonl", {"id": 1, "code": "x = 1", "tests": "assert x == 1"})
    assert main(["run", str(source), str(folder / "out put.jsonl"), "--slots", "1"]) == 0
    assert json.loads((folder / "out put.jsonl").read_text())["verdict"] == "passed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "in.jsonl:1: no JSON"),
        ('{"id": 1}', "in.jsonl:1: a row is"),
        ("[]", "in.jsonl:1: a row is"),
        (b'{"id": "\xff"}', "in.jsonl:1: no JSON"),
        ('{"id": 1, "code": 5}', "in.jsonl:1: code is no text"),
        ('{"id": 1, "code": ""}\n{"id": 1, "code": ""}', "in.jsonl:2: the id 1 is there twice"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, text, message):
    source = tmp_path / "in.jsonl"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        list(rows(source))


def test_a_missing_file_is_a_message(tmp_path, capsys):
    assert main(["run", str(tmp_path / "no"), str(tmp_path / "out")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_rows_that_can_be_read_but_once_are_refused(tmp_path, capsys):
    end, start = os.pipe()
    os.write(start, b'{"id": 1, "code": ""}\n')
    os.close(start)
    assert main(["run", f"/dev/fd/{end}", str(tmp_path / "out")]) == 2
    os.close(end)
    assert "must be a regular file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_of_something_else_is_not_added_to(tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text("hello\n")
    with pytest.raises(UserError, match="no output of this command"):
        finished(target)
    assert target.read_text() == "hello\n"


@pytest.mark.parametrize(
    "text", ["hello", "hello\n", '{"id": 1, "code": ""}\n', '{"id": 1}\n', "[]\n"]
)
def test_a_file_that_is_no_output_stays_as_it_is(tmp_path, text):
    target = tmp_path / "out.jsonl"
    target.write_text(text)
    with pytest.raises(UserError, match="no output of this command"):
        finished(target)
    assert target.read_text() == text


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text('{"id": 1, "verdict": "passed"}\n{"id"')
    assert finished(target) == {"1"}
    assert target.read_text() == '{"id": 1, "verdict": "passed"}\n'


def test_a_program_of_which_nothing_could_be_said_is_judged_again(tmp_path):
    lines = [
        f'{{"id": {n}, "verdict": "{v}"}}\n' for n, v in enumerate(["passed", "infra", "timeout"])
    ]
    target, link = tmp_path / "out.jsonl", tmp_path / "link"
    link.symlink_to(target)
    for place in (target, link):
        target.write_text("".join(lines) + '{"id"')
        assert finished(place) == {"0", "2"}
        assert target.read_text() == lines[0] + lines[2]
    assert {*tmp_path.iterdir()} == {target, link}
    assert link.is_symlink()


def test_an_output_that_cannot_be_written_is_a_message(tmp_path, capsys):
    source = written(tmp_path / "in.jsonl", {"id": 1, "code": "x"})
    for target in (tmp_path / "no" / "out.jsonl", tmp_path):
        assert main(["run", str(source), str(target)]) == 2
        assert str(target) in capsys.readouterr().err
    assert main(["run", str(source), str(source)]) == 2
    assert "no output" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "probe"])
def test_help_tells_what_each_setting_usually_is(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "--memory-mb MEMORY_MB usually 256" in out


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"cpu_seconds": "fast"}, "cpu_seconds"),
        ({"cpu_seconds": 0}, "cpu_seconds"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"cpu_seconds": 20}, "wall_seconds"),
        ({"profile": "loose"}, "profile"),
    ],
)
def test_a_wrong_setting_is_named(given, key):
    with pytest.raises(UserError, match=key):
        settings(given)
