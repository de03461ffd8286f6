"""Weights & Biases as its server sees it, healthy and not, and what of the account's key is left behind."""

from helpers.uploads import lines_about_wandb, once_rows_come, outcome


def test_a_healthy_server_gets_every_row(tmp_path, surroundings):
    done, _ = outcome(tmp_path, surroundings, lambda path: None)
    assert done.stdout.splitlines()[-1] == "  W&B          online"
    assert not lines_about_wandb(done)


def test_a_server_that_refuses_rows_in_the_middle(tmp_path, surroundings):
    done, _ = outcome(tmp_path, surroundings, once_rows_come(403))
    assert "W&B          incomplete (upload: " in done.stdout
    assert "W&B stopped (ConnectionError: the server refused rows); output/dvae" in done.stderr
