import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ratelimit.directory import ConfigurationDirectory, Selection, read_files
from ratelimit.matching import Configuration


def text(domain: str) -> str:
    return f"domain: {domain}\n"


@dataclass
class Loaded:
    """What came into force, in order, and how every load went."""

    domains: list[list[str]] = field(default_factory=list)
    worked: list[bool] = field(default_factory=list)

    def adopt(self, configuration: Configuration) -> None:
        self.domains.append(sorted(configuration.domains))


def watching(directory: Path, loaded: Loaded, **selection: object) -> ConfigurationDirectory:
    return ConfigurationDirectory(directory, Selection(**selection), loaded.adopt, loaded.worked.append)  # type: ignore[arg-type]


def names(directory: Path, **selection: object) -> list[str]:
    return [name for name, _ in read_files(directory, Selection(**selection))]  # type: ignore[arg-type]


def test_files_of_all_folders_count_under_dotted_names_if_they_begin_as_asked(tmp_path: Path) -> None:
    (tmp_path / "config" / "deep").mkdir(parents=True)
    for name in ("config/b.yaml", "config/deep/a.yml", "config.c.yaml", "other.yaml"):
        (tmp_path / name).write_text(text("d"))

    assert names(tmp_path, prefix="config.") == ["config.b.yaml", "config.c.yaml", "config.deep.a.yml"]


def test_files_that_are_no_yaml_are_passed_over_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README").write_text("no limits")
    (tmp_path / "a.yaml").write_text(text("d"))

    assert names(tmp_path) == ["a.yaml"]
    assert caplog.records[0].__dict__["fields"] == {"files": ["README"]}


def mount(directory: Path, version: str, contents: str) -> None:
    """Write what Kubernetes makes of a ConfigMap: links through `..data` to a folder per version."""
    (directory / version).mkdir(parents=True)
    (directory / version / "a.yaml").write_text(contents)
    (directory / "..new").symlink_to(version)
    os.replace(directory / "..new", directory / "..data")
    if not (directory / "a.yaml").is_symlink():
        (directory / "a.yaml").symlink_to("..data/a.yaml")


def test_a_mounted_config_map_is_read_once_and_again_after_its_swap(tmp_path: Path) -> None:
    loaded = Loaded()
    mount(tmp_path, "..1", text("old"))
    directory = watching(tmp_path, loaded)
    directory.reload()

    mount(tmp_path, "..2", text("new"))
    directory.reload()

    assert loaded.domains == [["old"], ["new"]]


def test_a_link_that_leads_back_up_is_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("d"))
    (tmp_path / "loop").symlink_to(tmp_path)

    assert names(tmp_path) == ["a.yaml"]


def test_the_same_content_is_loaded_once(tmp_path: Path) -> None:
    loaded = Loaded()
    (tmp_path / "a.yaml").write_text(text("d"))
    directory = watching(tmp_path, loaded)

    directory.reload()
    (tmp_path / "a.yaml").touch()
    directory.reload()

    assert loaded.worked == [True]


def test_one_wrong_file_changes_nothing_until_it_is_right(tmp_path: Path) -> None:
    loaded = Loaded()
    directory = watching(tmp_path, loaded)
    (tmp_path / "a.yaml").write_text(text("good"))
    directory.reload()
    (tmp_path / "b.yaml").write_text("domain: [")
    directory.reload()
    (tmp_path / "b.yaml").write_text(text("better"))
    directory.reload()

    assert loaded.worked == [True, False, True]
    assert loaded.domains == [["good"], ["better", "good"]]


def test_a_directory_that_is_not_there_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = Loaded()
    directory = watching(tmp_path / "later", loaded)

    directory.reload()
    directory.reload()

    assert loaded.worked == [False]
    assert len(caplog.records) == 1


def test_domains_may_be_spread_over_files_when_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text("d"))
    together, apart = Loaded(), Loaded()

    watching(tmp_path, together, merge_domains=True).reload()
    watching(tmp_path, apart).reload()

    assert (together.worked, apart.worked) == ([True], [False])
