"""compare.py: `selfalign-compare` as a person runs it."""

from __future__ import annotations

from selfalign_ray.compare import main
from selfalign_ray.places import make, place_of
from selfalign_ray.report.comparison import MARKDOWN, TABLE


def run_dir(path, overrides):
    make(path / ".hydra")
    (path / ".hydra" / "overrides.yaml").write_text(overrides)
    return path


def test_a_folder_s_comparison_is_printed_and_left_there(tmp_path, capsys):
    run_dir(tmp_path / "0", "[run_seed=1]")
    run_dir(tmp_path / "1", "[run_seed=2]")
    assert main([str(tmp_path)]) == 0
    assert "| 1   | 2        |" in capsys.readouterr().out
    assert (tmp_path / MARKDOWN).exists()
    assert (tmp_path / TABLE).exists()


def test_runs_of_several_places_are_printed_and_nothing_is_written(tmp_path, capsys):
    one = run_dir(tmp_path / "one", "[run_seed=1]")
    two = run_dir(tmp_path / "deep" / "two", "[run_seed=2]")
    assert main([str(one), str(two)]) == 0
    assert "| two | 2        |" in capsys.readouterr().out
    assert not list(tmp_path.rglob(TABLE))


def test_a_wrong_folder_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("selfalign-compare: error: ")
    assert len(error.splitlines()) == 1


def test_runs_in_a_store_are_compared_there(store, capsys):
    for name in "01":
        run_dir(place_of(f"s3://runs/sweep/{name}"), f"[run_seed={name}]")
    assert main(["s3://runs/sweep"]) == 0
    assert "| 1   | 1        |" in capsys.readouterr().out
    assert {"sweep/comparison.md", "sweep/comparison.csv"} <= set(store.names())
    assert main(["s3://runs/nowhere"]) == 2
    store.refuse = lambda method, path: (403, "ExpiredToken")
    assert main(["s3://runs/sweep"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "selfalign-compare: error: s3://runs/nowhere: there is no such folder"
    assert "s3://runs/sweep: access is refused (ExpiredToken.)" in error[1]
