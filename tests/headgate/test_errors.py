"""What a configuration problem looks like to the person who has to mend it."""

from __future__ import annotations

from headgate.errors import HeadgateError, PolicyError, Problem


def test_a_problem_names_file_line_and_key_path() -> None:
    problem = Problem("policy.yaml", 14, "tenants.acme.tier", "no tier named 'glod'")

    assert str(problem) == "policy.yaml:14 tenants.acme.tier: no tier named 'glod'"


def test_a_problem_of_a_whole_file_names_no_line_and_no_path() -> None:
    assert str(Problem("policy.yaml", 0, "", "is empty")) == "policy.yaml: is empty"
    assert str(Problem("policy.yaml", 3, "", "is not YAML")) == "policy.yaml:3: is not YAML"


def test_an_error_lists_all_its_problems_in_the_order_of_the_lines() -> None:
    late, early = Problem("p.yaml", 20, "a", "late"), Problem("p.yaml", 3, "z", "early")

    error = PolicyError([late, early])

    assert error.problems == (early, late)
    assert str(error) == "p.yaml:3 z: early\np.yaml:20 a: late"
    assert isinstance(error, HeadgateError)
