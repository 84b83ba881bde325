"""The source `installed`, on the packages that are really installed here."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.seeds.sources import installed


@pytest.fixture
def source(run_config):
    def make(*overrides: str):
        return run_config("source=installed", *overrides).source

    return make


def test_files_have_their_packages_origin(source):
    files = list(installed.files(source("source.packages=[hydra-core]")))
    assert len(files) > 20
    for file in files:
        assert file.repository == "hydra-core"
        assert file.revision == metadata.version("hydra-core")
        assert file.offer == (("MIT",),)
        assert Path(file.location.decode()).as_posix().endswith("/" + file.path)
    assert any(file.path == "hydra/compose.py" for file in files)


def test_most_packages_have_a_known_licence(source):
    files = list(installed.files(source()))
    assert len({file.repository for file in files}) > 40
    assert sum(1 for file in files if file.offer) > 0.9 * len(files)


def test_the_project_itself_is_no_source(source):
    assert "selfalign-ray" not in {file.repository for file in installed.files(source())}
    with pytest.raises(UserError, match="not installed here: selfalign_ray"):
        list(installed.files(source("source.packages=[selfalign_ray]")))


def test_names_are_compared_as_the_index_does(source):
    files = list(installed.files(source("source.packages=[Hydra_Core,hydra.core]")))
    assert len(files) == len(set(files)) > 0


def test_excluded_packages_and_files_are_not_listed(source):
    of_two = "source.packages=[hydra-core,omegaconf]"
    without = list(installed.files(source(of_two, "source.exclude_packages=[OmegaConf]")))
    assert {file.repository for file in without} == {"hydra-core"}
    globs = list(installed.files(source(of_two, "source.exclude=['*/hydra/*']")))
    assert {file.repository for file in globs} == {"omegaconf"}


def test_a_package_that_is_not_installed(source):
    with pytest.raises(UserError, match=r"source\.packages: not installed here: nonesuch"):
        list(installed.files(source("source.packages=[pytest,nonesuch]")))


def test_a_package_cut_in_half_is_passed_over(source, tmp_path, monkeypatch):
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(installed.files(source("source.packages=[omegaconf]")))


def test_code_of_other_projects_is_not_listed(source):
    files = list(installed.files(source("source.packages=[scikit-learn,ray]")))
    folders = {part for file in files for part in file.path.split("/")[:-1]}
    assert folders.isdisjoint({"externals", "thirdparty", "thirdparty_files", "third_party"})
