"""Connections to object stores: `s3://bucket/…`, `gs://bucket/…` and `az://container/…`.  Importing this loads no client.

Options come from the variables that Lance reads for the tables of a lake: AWS_…, GOOGLE_… and AZURE_….  S3 credentials are
found in the places where Lance finds them: the variables, a profile of ~/.aws, a role of the machine.  If no region is set, the
region of an Amazon bucket is requested.

The first request to a bucket is retried for seconds only, so that a wrong endpoint is reported at once; once the store has
answered, requests are retried for a minute.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from tonelake.store.errors import LakeError

Answer = TypeVar("Answer")
Options = Mapping[str, str]              # variables of the environment that decide a connection

PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")             # of these variables
CLASSES = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}        # scheme: class of obstore
CREDENTIALS = {                          # scheme: how to give credentials
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
NO_CREDENTIALS = (                       # errors of the last place where credentials are looked for: the machine's own service
    "169.254.", "/latest/api/token", "/computeMetadata/", "/metadata/identity/", "Account must be specified",
    "Missing AccessKeyId", "Missing SecretAccessKey",
)
ENDPOINTS = {"s3": "AWS_ENDPOINT", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
TIMEOUTS = {"connect_timeout": "3s", "timeout": "1h"}            # the second one is for a whole large file
FIRST_RETRIES, FIRST_RETRY_S, FIRST_READ_S = 4, 10, 15           # 1.5 s of waiting between attempts
LATER_RETRIES, LATER_RETRY_S, LATER_READ_S = 10, 60, 60
PROFILE_MINUTES = 5                      # after which a profile is read again: its keys may be temporary
NEEDS_CLIENT = ("role_arn", "sso_session", "sso_start_url", "credential_process")      # of a profile without keys
REGION_HOST = "https://s3.amazonaws.com"
REGION_HEADER = "x-amz-bucket-region"
REGION_TIMEOUT_S = 5.0


class Bucket:
    """One bucket or container; every request goes through `run`, which turns errors into sentences."""

    def __init__(self, scheme: str, name: str, options: Options) -> None:
        self.scheme, self.name = scheme, name
        self.is_conditional = True       # until the store refuses or ignores the condition of a write
        self._answered = False
        try:
            self._first = connected(scheme, name, options, FIRST_RETRIES, FIRST_RETRY_S, FIRST_READ_S)
            self._later = connected(scheme, name, options, LATER_RETRIES, LATER_RETRY_S, LATER_READ_S)
        except LakeError:
            raise
        except Exception as error:       # of the client: a missing account, an option without sense
            raise explained(error, scheme, name, "") from error

    def run(self, key: str, action: Callable[[Any], Answer], *, patient: bool = True) -> Answer:
        """Call `action` with the store.  Conditions that were not met and missing files are raised as obstore raises them,
        every other error as a LakeError that names the file.  Unless `patient`, retries always take seconds only."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            found = action(self._later if self._answered and patient else self._first)
        except (AlreadyExistsError, PreconditionError):
            self._answered = True
            raise
        except FileNotFoundError as error:
            self._answered = True
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise explained(error, self.scheme, self.name, key) from error
            raise
        except (BaseError, ValueError) as error:
            raise explained(error, self.scheme, self.name, key) from error
        self._answered = True
        return found


def split_uri(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a URI.  Raises LakeError for a scheme that no lake can be at.

    >>> split_uri("s3://bucket/my%20lake/runs")
    ('s3', 'bucket', 'my lake/runs')
    """
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    bucket, _, path = rest.partition("/")
    if scheme not in CLASSES or not bucket:
        raise LakeError(f"{uri}: no lake can be there. Name a folder, or a URI such as s3://bucket/lake, gs://… or az://…")
    return scheme, bucket, unquote(path).strip("/")


def bucket_of(scheme: str, name: str) -> Bucket:
    """The bucket, connected once for each set of options in the environment."""
    options = sorted((key, value) for key, value in os.environ.items() if key.startswith(PREFIXES))
    return _bucket(scheme, name, tuple(options), home_folder())


@functools.lru_cache(maxsize=64)
def _bucket(scheme: str, name: str, options: tuple[tuple[str, str], ...], home: str) -> Bucket:
    return Bucket(scheme, name, dict(options))


def connected(scheme: str, name: str, options: Options, retries: int, retry_s: float, read_s: float) -> Any:
    """The client of a bucket.  Connecting makes no request, except for the region of an Amazon bucket."""
    from obstore import store

    config: dict[str, Any] = TIMEOUTS | {"read_timeout": f"{read_s}s"}
    provider: Callable[[], Any] | None = None
    if scheme == "s3":
        config |= s3_config(name, options)
        provider = profile_credentials(options)
    if scheme == "gs" and "GOOGLE_STORAGE_TOKEN" in options:
        provider = functools.partial(dict, token=options["GOOGLE_STORAGE_TOKEN"], expires_at=None)
    return getattr(store, CLASSES[scheme])(
        name, config=config, credential_provider=provider,
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=retry_s)},
    )


def s3_config(bucket: str, options: Options) -> dict[str, Any]:
    """Settings of a bucket that the variables do not give: its region, and whether it is an express one."""
    config: dict[str, Any] = {"s3_express": True} if bucket.endswith("--x-s3") else {}
    if "AWS_REGION" in options or "AWS_DEFAULT_REGION" in options:
        return config
    at_amazon = not any(name in options for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    region = (bucket_region(bucket) if at_amazon else None) or read_profile(options).get("region")
    return config | ({"region": region} if region else {})


@functools.lru_cache(maxsize=64)
def bucket_region(bucket: str) -> str | None:
    """The region of an Amazon bucket; None where it is not known.  Every answer names it, a refusal too."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"{REGION_HOST}/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REGION_TIMEOUT_S) as answer:
            return answer.headers.get(REGION_HEADER)
    except urllib.error.HTTPError as refusal:
        return refusal.headers.get(REGION_HEADER)
    except OSError:
        return None


def home_folder() -> str:
    """The user's home folder; `~` for a user without one, as in some containers."""
    return os.path.expanduser("~")  # noqa: PTH111


def read_profile(options: Options) -> dict[str, str]:
    """The settings of the profile AWS_PROFILE in ~/.aws/config and ~/.aws/credentials; empty without one."""
    import configparser

    name = options.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read(options.get(variable) or Path(home_folder(), ".aws", file), encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        if parser.has_section(section):
            found |= dict(parser[section])
    return found


def profile_credentials(options: Options) -> Callable[[], Any] | None:
    """A provider of the credentials in the user's profile; None where obstore finds credentials itself.

    Raises LakeError for a profile whose credentials only Amazon's own client can fetch, unless boto3 is installed.
    """
    if "AWS_ACCESS_KEY_ID" in options or options.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on"):
        return None
    profile = read_profile(options)
    if "aws_access_key_id" in profile:
        return functools.partial(keys_of_profile, options)
    if not any(name in profile for name in NEEDS_CLIENT):
        return None
    if find_spec("boto3") is None:
        name = options.get("AWS_PROFILE") or "default"
        raise LakeError(
            f"profile {name!r} of ~/.aws: has no keys of its own. Install boto3, which fetches them, or set the variables that "
            "`aws configure export-credentials --format env` prints"
        )
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()


def keys_of_profile(options: Options) -> dict[str, Any]:
    """The keys in the user's profile, to be asked for again after some minutes."""
    profile = read_profile(options)
    return {
        "access_key_id": profile.get("aws_access_key_id", ""), "secret_access_key": profile.get("aws_secret_access_key", ""),
        "token": profile.get("aws_session_token"), "expires_at": datetime.now(UTC) + timedelta(minutes=PROFILE_MINUTES),
    }


def explained(error: Exception, scheme: str, bucket: str, key: str) -> LakeError:
    """The LakeError for an error of the client: the file, what is wrong and the remedy."""
    place = f"{scheme}://{bucket}" + (f"/{key}" if key else "")
    text = " ".join(str(error).partition("Debug source:")[0].split())
    code = found[1] if (found := re.search(r"<Code>(\w+)</Code>", text)) else ""
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return LakeError(f"{place}: the bucket {bucket!r} does not exist. Create it, or choose another with --lake")
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return LakeError(f"{place}: access is denied ({code or 'no reason is given'}). {CREDENTIALS[scheme]} of a user who may "
                         "read and write the bucket")
    if any(sign in text for sign in NO_CREDENTIALS):
        return LakeError(f"{place}: there are no credentials. {CREDENTIALS[scheme]}")
    if "builder error" in text:
        prefix = ENDPOINTS[scheme].partition("_")[0]
        return LakeError(f"{place}: the endpoint is not an https address. Set {prefix}_ALLOW_HTTP=true for a store without TLS")
    if "LOCATION" in text:
        return LakeError(f"{place}: the bucket is in another region. Set AWS_REGION to that of the bucket")
    if "error sending request" in text or "timed out" in text:
        address = found[1] if (found := re.search(r"(https?://[^/\s]+)", text)) else "the store"
        return LakeError(f"{place}: {address} cannot be reached. Check the network and {ENDPOINTS[scheme]}")
    return LakeError(f"{place}: the object store gives an error ({code or text[:300]}). Check the URI, and run it again later")
