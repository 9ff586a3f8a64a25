"""The policy in force while its file changes, in every way a file can."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headgate.errors import PolicyError
from headgate.logs import FIELDS
from headgate.policy import watch
from headgate.policy.model import Policy
from headgate.policy.watch import PolicyFile

PATIENCE_SECONDS = 20.0
BROKEN = "apiVersion: headgate/v1\n"


@dataclass
class Listener:
    """Remembers what it is told, and lets tests wait for it."""

    weights: list[float] = field(default_factory=list)
    refused: list[PolicyError] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, file: PolicyFile) -> Listener:
        file.on_change(self._changed)
        file.on_refused(self._refused)
        return self

    async def until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_enough():
                self.told.clear()
                await self.told.wait()

    def _changed(self, policy: Policy) -> None:
        self.weights.append(policy.tenants["acme"].weight)
        self.told.set()

    def _refused(self, error: PolicyError) -> None:
        self.refused.append(error)
        self.told.set()


@pytest.fixture
def weighing(good: str) -> Callable[[int], str]:
    """A policy that differs by one number."""
    return lambda weight: good.replace("acme: {tier: gold}", f"acme: {{tier: gold, weight: {weight}}}")


@pytest.fixture
def path(tmp_path: Path, weighing: Callable[[int], str]) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(weighing(1))
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    """As editors do."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noticed is noticed by events alone."""
    monkeypatch.setattr(watch, "LOOK_MILLISECONDS", 3_600_000)


@asynccontextmanager
async def watching(file: PolicyFile) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(file.watch(stop))
    # One turn of the loop, in which the watch begins.
    await asyncio.sleep(0)
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


def test_a_listener_hears_of_the_policy_in_force_at_once(path: Path) -> None:
    listener = Listener().listen(PolicyFile(path))

    assert listener.weights == [1.0]


def test_a_wrong_file_at_start_raises_with_the_path_as_the_operator_wrote_it(path: Path) -> None:
    path.write_text(BROKEN)

    with pytest.raises(PolicyError) as caught:
        PolicyFile(path)

    assert {problem.file for problem in caught.value.problems} == {str(path)}


def test_a_missing_file_at_start_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PolicyFile(tmp_path / "policy.yaml")


async def test_a_new_policy_replaces_the_old_one_as_a_whole(path: Path, weighing: Callable[[int], str]) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)
    old = file.current()

    write(path, weighing(2))
    await file.reload()

    assert listener.weights == [1.0, 2.0]
    assert file.current().tenants["acme"].weight == 2.0
    assert old.tenants["acme"].weight == 1.0


async def test_a_file_with_the_same_content_is_not_read_again(path: Path, weighing: Callable[[int], str]) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)
    policy = file.current()

    write(path, weighing(1))
    await file.reload()

    assert listener.weights == [1.0]
    assert file.current() is policy


async def test_a_wrong_policy_is_reported_once_and_the_old_one_stays(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)

    write(path, "apiVersion: headgate/v2\nidentity: []\ntenants: {}\ntiers: {}\nmodels: {}\nclusters: {}\n")
    await file.reload()
    await file.reload()

    assert file.current().tenants["acme"].weight == 1.0
    assert listener.weights == [1.0]
    [error] = listener.refused
    assert len(error.problems) == 5
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "the new policy is refused; the old one stays"
    assert record.__dict__[FIELDS] == {"problems": [str(problem) for problem in error.problems]}


async def test_going_back_to_the_policy_in_force_is_a_change_after_a_wrong_one(
    path: Path, weighing: Callable[[int], str]
) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)

    write(path, BROKEN)
    await file.reload()
    write(path, weighing(1))
    await file.reload()

    assert (listener.weights, len(listener.refused)) == ([1.0, 1.0], 1)


async def test_a_file_that_is_gone_is_reported_once_and_welcome_back(
    path: Path, weighing: Callable[[int], str]
) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)

    remove(path)
    await file.reload()
    await file.reload()
    [error] = listener.refused
    write(path, weighing(1))
    await file.reload()

    assert str(error) == f"{path}: cannot be read: No such file or directory"
    assert (listener.weights, len(listener.refused)) == ([1.0, 1.0], 1)


async def test_the_loop_goes_on_while_a_policy_loads(
    path: Path, weighing: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PolicyFile(path)
    loop_went_on = threading.Event()

    def slow_load(text: bytes, name: str) -> Policy:
        assert loop_went_on.wait(PATIENCE_SECONDS)
        return load(text, name)

    load = watch.load_policy
    monkeypatch.setattr(watch, "load_policy", slow_load)
    write(path, weighing(2))
    reloading = asyncio.create_task(file.reload())
    asyncio.get_running_loop().call_later(0.001, loop_went_on.set)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await reloading

    assert file.current().tenants["acme"].weight == 2.0


@pytest.mark.usefixtures("without_looking")
@pytest.mark.parametrize("change", [write, replace])
async def test_a_changed_file_is_noticed(
    change: Callable[[Path, str], None], path: Path, weighing: Callable[[int], str]
) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)

    async with watching(file):
        for weight in (2, 3):
            change(path, weighing(weight))
            await listener.until(lambda weight=weight: weight in listener.weights)

    assert file.current().tenants["acme"].weight == 3.0


@pytest.mark.usefixtures("without_looking")
async def test_a_link_swapped_beside_the_file_is_noticed_each_time(
    tmp_path: Path, weighing: Callable[[int], str]
) -> None:
    """The way of Kubernetes: policy.yaml -> ..data/policy.yaml, ..data -> ..version, and the old version is removed."""
    mount = _mounted(tmp_path, weighing(1))
    file = PolicyFile(mount / "policy.yaml")
    listener = Listener().listen(file)

    async with watching(file):
        for weight in (2, 3, 4):
            _publish(mount, weighing(weight), f"..{weight}")
            await listener.until(lambda weight=weight: weight in listener.weights)

    assert listener.weights == [1.0, 2.0, 3.0, 4.0]
    assert listener.refused == []


def _mounted(root: Path, text: str) -> Path:
    mount = root / "etc"
    mount.mkdir()
    _publish(mount, text, "..1")
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")
    return mount


def _publish(mount: Path, text: str, version: str) -> None:
    (mount / version).mkdir()
    (mount / version / "policy.yaml").write_text(text)
    old = (mount / "..data").resolve() if (mount / "..data").is_symlink() else None
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").rename(mount / "..data")
    if old:
        (old / "policy.yaml").unlink()
        old.rmdir()


async def test_a_swapped_folder_which_sends_no_events_is_noticed_by_looking(
    tmp_path: Path, weighing: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of git-sync: the link is the folder, and what is watched stays behind unchanged."""
    monkeypatch.setattr(watch, "LOOK_MILLISECONDS", 20)
    for weight in (1, 2):
        _commit(tmp_path, f"commit-{weight}", weighing(weight))
    _check_out(tmp_path, "commit-1")
    file = PolicyFile(tmp_path / "repo" / "policy.yaml")
    listener = Listener().listen(file)

    async with watching(file):
        _check_out(tmp_path, "commit-2")
        await listener.until(lambda: 2.0 in listener.weights)

    assert file.current().tenants["acme"].weight == 2.0


def _commit(root: Path, name: str, text: str) -> None:
    (root / name).mkdir()
    (root / name / "policy.yaml").write_text(text)


def _check_out(root: Path, commit: str) -> None:
    (root / "next").symlink_to(commit)
    (root / "next").rename(root / "repo")


@pytest.mark.usefixtures("without_looking")
async def test_a_broken_change_is_noticed_and_so_is_its_mending(path: Path, weighing: Callable[[int], str]) -> None:
    file = PolicyFile(path)
    listener = Listener().listen(file)

    async with watching(file):
        replace(path, BROKEN)
        await listener.until(lambda: bool(listener.refused))
        assert file.current().tenants["acme"].weight == 1.0
        replace(path, weighing(2))
        await listener.until(lambda: 2.0 in listener.weights)


async def test_a_folder_that_cannot_be_watched_is_logged_and_stops_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_watches(*folders: Path, **options: object) -> AsyncIterator[object]:
        raise OSError("OS file watch limit reached.")

    file = PolicyFile(path)
    monkeypatch.setattr(watch, "awatch", no_more_watches)

    async with watching(file):
        pass

    [record] = caplog.records
    assert record.message == "the policy file cannot be watched: no reload"
    assert record.__dict__[FIELDS] == {"error": "OS file watch limit reached."}
    assert file.current().tenants["acme"].weight == 1.0
