"""The chain of credentials, its first two steps: environment before profile, and a profile that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.storage.credentials import profile_credentials

PROFILES = """
[default]
aws_access_key_id = A
aws_secret_access_key = hush%
[work]
aws_access_key_id = B
aws_secret_access_key = quiet
aws_session_token = T
[by-role]
role_arn = arn:aws:iam::1:role/x
"""


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials"
    path.write_text(PROFILES)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return path


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from the environment")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert profile_credentials() == {}


def test_then_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile_credentials() == {"access_key_id": "A", "secret_access_key": "hush%"}
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert profile_credentials() == {"access_key_id": "B", "secret_access_key": "quiet", "session_token": "T"}


def test_without_either_the_role_is_left_to_answer(profiles: Path) -> None:
    profiles.unlink()
    assert profile_credentials() == {}


@pytest.mark.parametrize("name", ["gone", "by-role"])
def test_a_named_profile_without_keys_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", name)
    with pytest.raises(InputError, match=f"AWS_PROFILE '{name}': no profile with aws_access_key_id"):
        profile_credentials()


def test_a_damaged_file_is_said_without_its_content(profiles: Path) -> None:
    profiles.write_text("hush = 3\n")
    with pytest.raises(InputError, match="credentials .*: not readable") as error:
        profile_credentials()
    assert "hush" not in str(error.value)
