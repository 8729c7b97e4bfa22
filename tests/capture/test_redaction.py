"""Secrets are cut, and nothing else is."""

from __future__ import annotations

import random
import string

import pytest

from tracer.capture.redaction import Redactor

# Put together here, so that no scanner takes this file for a leak.
RANDOM = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=40))  # noqa: S311 -- the same each time
SECRETS = {
    "AWS": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + RANDOM[:36],
    "GitHub, fine-grained": "github_pat_" + RANDOM,
    "GitLab": "glpat-" + RANDOM[:20],
    "Hugging Face": "hf_" + RANDOM[:34],
    "OpenAI": "sk-" + RANDOM,
    "Slack": "xoxb-" + "123456789012-" + RANDOM[:24],
    "JWT": "eyJ" + RANDOM[:20] + "." + "eyJ" + RANDOM[:20] + "." + RANDOM[:20],
    "bearer": "Bearer " + RANDOM[:12],
    "random": RANDOM,
    "key block": "-----BEGIN RSA PRIVATE KEY-----\n" + RANDOM + "\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_known_by_its_form_wherever_it_stands(secret: str) -> None:
    redactor = Redactor()

    text = redactor.text(f"before {secret} after", "place")

    assert secret.removeprefix("Bearer ") not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert redactor.found == ["place"]


@pytest.mark.parametrize(
    "name",
    ["api_key", "API_KEY", "apiKey", "WANDB_API_KEY", "HF_TOKEN", "password", "db-password", "AWS_SECRET_ACCESS_KEY",
     "client_secret", "Authorization", "auth", "private_key", "session_cookie", "credentials", "COMET_KEY"],
)  # fmt: skip
def test_a_name_gives_a_secret_away(name: str) -> None:
    redactor = Redactor()

    assert redactor.value({name: "hunter22"}, "config") == {name: "[redacted, 1 to 8 characters]"}
    assert redactor.found == [f"config.{name}"]


@pytest.mark.parametrize(
    "name",
    ["tokenizer", "max_tokens", "key_dim", "num_key_value_heads", "pad_token", "eos_token", "sort_key", "author",
     "token_type_ids", "monitor_metric", "keyboard", "key_padding_mask", "monkey", "special_tokens", "label_key"],
)  # fmt: skip
def test_the_words_of_models_are_no_secrets(name: str) -> None:
    redactor = Redactor()

    assert redactor.value({name: "<something>"}, "config") == {name: "<something>"}
    assert redactor.found == []


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef0123456789abcdef01234567",
        "/usr/lib/python3.11/site-packages/some-long-Package2Name/module.py",
        "gpt-neo-Large-experiment-number-12-with-a-long-name",
        "2026-01-01T12:30:00+00:00",
        "e3b0c442-98fc-4c14-9afb-f4c8996fb924",
        "https://example.org/a@b/c",
    ],
)
def test_hashes_paths_names_and_dates_are_no_secrets(text: str) -> None:
    assert Redactor().text(text, "place") == text


def test_numbers_and_flags_keep_their_values_whatever_they_are_called() -> None:
    values = {"secret": 3, "password": None, "token": True, "auth": 0.5}

    assert Redactor().value(values, "config") == values


def test_nested_values_keep_their_shape() -> None:
    values = {"model": {"layers": [1, {"api_key": "abcdefgh12345"}]}, "lr": 0.1}

    assert Redactor().value(values, "c") == {
        "model": {"layers": [1, {"api_key": "[redacted, 9 to 16 characters]"}]},
        "lr": 0.1,
    }


def test_the_user_of_an_address_is_cut() -> None:
    assert (
        Redactor().text("https://me:pass@example.org/x.git", "r")
        == "https://[redacted, 1 to 8 characters]@example.org/x.git"
    )


def test_a_command_line_is_cut_in_all_its_forms() -> None:
    redactor = Redactor()
    line = [
        "train.py",
        "--api-key",
        "abc",
        "--lr",
        "0.1",
        "--auth-token=xyz",
        "db.password=pq",
        "--verbose",
        "--token",
        "--max-tokens",
        "5",
    ]

    clean = redactor.arguments(line, "argv")

    cut = "[redacted, 1 to 8 characters]"
    assert clean == [
        "train.py", "--api-key", cut, "--lr", "0.1", f"--auth-token={cut}", f"db.password={cut}", "--verbose",
        "--token", "--max-tokens", "5",
    ]  # fmt: skip
    assert redactor.found == ["argv.2", "argv.5", "argv.6"]


def test_in_code_only_literals_are_cut() -> None:
    code = (
        '+password = "hunter2hunter2"\n+token = os.environ["TOKEN"]\n+key = make_key(model2)\n+index abc0123..012abc\n'
    )

    assert Redactor().code(code, "diff") == code.replace("hunter2hunter2", "[redacted, 9 to 16 characters]")


def test_own_names_are_added_and_excepted() -> None:
    redactor = Redactor(names=["^internal_"], harmless=["auth_kind"])

    assert redactor.value({"internal_url": "x", "auth_kind": "basic", "api_key": "y"}, "c") == {
        "internal_url": "[redacted, 1 to 8 characters]",
        "auth_kind": "basic",
        "api_key": "[redacted, 1 to 8 characters]",
    }


def test_a_key_over_several_lines_is_cut_line_by_line() -> None:
    redactor = Redactor()
    key = ["+-----BEGIN RSA PRIVATE KEY-----\n", "+MIIEabc\n", "+-----END RSA PRIVATE KEY-----\n"]

    lines = list(redactor.lines(["+x = 1\n", *key, "+y = 2\n"], "diff"))

    assert (lines[0], lines[-1], len(lines)) == ("+x = 1\n", "+y = 2\n", 5)
    assert all(line.startswith("+") and line.endswith("]\n") for line in lines[1:-1])
    assert "MIIE" not in "".join(lines)


def test_where_values_stand_without_quotes_they_are_literals() -> None:
    redactor = Redactor()

    assert list(redactor.lines(["password: correct-horse", "max_tokens: 12345678"], "yaml", bare=True)) == [
        "password: [redacted, 9 to 16 characters]", "max_tokens: 12345678",
    ]  # fmt: skip
    assert list(redactor.lines(["password = read_password(file1)"], "py")) == ["password = read_password(file1)"]


@pytest.mark.parametrize("secret", [secret for name, secret in SECRETS.items() if name not in ("random", "key block")])
def test_a_line_of_output_is_searched_by_form(secret: str) -> None:
    assert secret.removeprefix("Bearer ") not in Redactor().line(f"loss 0.5 {secret} end", "output")


def test_a_line_of_output_without_a_secret_stays_the_same_object() -> None:
    line = "epoch 3 loss 0.123 tokens/s 4567 https://example.org/a"

    assert Redactor().line(line, "output") == line


def test_below_a_name_that_can_be_nothing_else_everything_is_secret() -> None:
    values = {"credentials": {"user": "me", "other": ["pq", 3]}, "keys": ["a", "b"]}

    assert Redactor().value(values, "c") == {
        "credentials": {"user": "[redacted, 1 to 8 characters]", "other": ["[redacted, 1 to 8 characters]", 3]},
        "keys": ["a", "b"],
    }


def test_a_password_that_sticks_to_its_option_is_cut() -> None:
    cut = "-p[redacted, 9 to 16 characters]"

    assert Redactor().arguments(["mysql", "-phunter2hunter2", "-p", "16", "-precision", "-p0.5"], "argv") == [
        "mysql", cut, "-p", "16", "-precision", "-p0.5",
    ]  # fmt: skip


def test_off_must_be_written_out() -> None:
    assert Redactor(["off"]).value({"api_key": "abc"}, "c") == {"api_key": "abc"}
    assert Redactor(["off", "more"]).value({"api_key": "abc"}, "c") != {"api_key": "abc"}
    assert Redactor([]).value({"api_key": "abc"}, "c") != {"api_key": "abc"}


def test_a_name_that_is_no_regular_expression_is_taken_as_it_stands() -> None:
    assert Redactor(["a(b"]).value({"a(b": "x"}, "c") == {"a(b": "[redacted, 1 to 8 characters]"}
