"""`headgate check --ratelimit DIR`."""

from pathlib import Path

from typer.testing import CliRunner

from headgate_cli.__main__ import app

WRONG = """domain: a
descriptors:
  - key: x
    rate_limit: {unit: decade}
  - key: x
  - {key: y, foo: 1}
"""


def check(*arguments: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.output.splitlines()


def test_every_mistake_of_every_file_is_listed_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    (tmp_path / "b.yaml").write_text("domain: a\n")

    code, lines = check("--ratelimit", str(tmp_path))

    assert code == 64
    assert lines == [
        "a.yaml:4 descriptors[0].rate_limit.unit: invalid rate limit unit 'decade'",
        "a.yaml:5 descriptors[1]: duplicate descriptor composite key 'a.x'",
        "a.yaml:6: config error, unknown key 'foo'",
        "b.yaml:1 domain: duplicate domain 'a' in config file",
    ]


def test_a_good_directory_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\ndescriptors: [{key: x, rate_limit: {unlimited: true}}]\n")
    (tmp_path / "b.yaml").write_text("domain: a\n")

    assert check("--ratelimit", str(tmp_path), "--merge-domains") == (0, [f"{tmp_path}: good (1 domains, 1 limits)"])


def test_a_directory_that_is_not_there_and_nothing_to_check_are_mistakes(tmp_path: Path) -> None:
    assert check("--ratelimit", str(tmp_path / "no")) == (64, [f"{tmp_path / 'no'}: no such directory"])
    assert check()[0] == 2
