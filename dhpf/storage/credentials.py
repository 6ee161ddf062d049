"""The credentials for buckets, by one chain on every machine: environment, then profile, then role.

1. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) in the environment.
2. The profile that AWS_PROFILE names, or "default", in ~/.aws/credentials (AWS_SHARED_CREDENTIALS_FILE): keys only.
3. The machine's or the pod's role: a web identity token, a container's credentials, an instance's.

They are never taken from a URI, a config or a run's settings, which logs and plans would show.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from dhpf.errors import InputError

_OF_PROFILE = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}


def profile_credentials() -> Mapping[str, str]:
    """The keys of the profile, as obstore names them; empty where another step of the chain applies.

    Raises:
        InputError: AWS_PROFILE names a profile that is not there, or that holds no keys.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    wanted = os.environ.get("AWS_PROFILE")
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    profiles = configparser.ConfigParser(interpolation=None)
    try:
        profiles.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"credentials {path}: not readable ({type(error).__name__}); mend the file") from error
    name = wanted or "default"
    if name in profiles:
        found = {key: profiles[name][theirs] for key, theirs in _OF_PROFILE.items() if theirs in profiles[name]}
        if "access_key_id" in found:
            return found
    if wanted is None:
        return {}
    raise InputError(
        f"AWS_PROFILE {wanted!r}: no profile with aws_access_key_id in {path}; set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or unset AWS_PROFILE to use the machine's role"
    )
