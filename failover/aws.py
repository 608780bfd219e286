"""Signing in to AWS and what its errors mean, for every provider that talks to it.

Only those providers import this. Credentials come by boto3's own chain: the environment, a profile, an assumed role,
single sign-on, the container or the machine. Whatever that chain has to ask on its way is bounded like any call.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.parsers import ResponseParserError
from pydantic import Field

from failover.errors import Failed
from failover.schema import Model
from failover.units import Duration

ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""What a call may raise."""
THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
_ANSWER_LOST = (HTTPClientError, SSLError, ResponseParserError)
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_NAME_IT = "check 'profile' and 'credentials_file'"
_WORDS = {
    "AccessDenied": ("access denied: {said}", "give this identity the permission that is named"),
    "AccessDeniedException": ("access denied: {said}", "give this identity the permission that is named"),
    "InvalidClientTokenId": ("the AWS access key is not valid", _NAME_IT),
    "UnrecognizedClientException": ("the AWS access key is not valid", _NAME_IT),
    "SignatureDoesNotMatch": ("the AWS secret key is wrong, or this clock is", "check the credentials and the time"),
    "InvalidSignatureException": (
        "the AWS secret key is wrong, or this clock is",
        "check the credentials and the time",
    ),
    "ExpiredToken": ("the AWS session has expired", "sign in to AWS again"),
    "ExpiredTokenException": ("the AWS session has expired", "sign in to AWS again"),
}


class Identity(Model):
    """Who asks AWS, and in which region; by boto3's own chain where nothing is said."""

    region: str | None = None
    profile: str | None = None
    credentials_file: str | None = None


class Access(Identity):
    """Who asks AWS and how long it may take. `connect_timeout` and `read_timeout` bound each single call."""

    connect_timeout: Annotated[Duration, Field(gt=0)] = 3.0
    read_timeout: Annotated[Duration, Field(gt=0)] = 10.0

    @property
    def longest(self) -> float:
        """Seconds that one call may take, with signing in before it, such as assuming a role."""
        return 2 * (self.connect_timeout + self.read_timeout)


class Account:
    """Makes clients that are signed in as `identity` says, and that wait as long as the two timeouts say."""

    def __init__(self, identity: Identity, connect_timeout: float, read_timeout: float) -> None:
        self.identity = identity
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._session: Any = None
        self._clients: dict[tuple[str, str | None, str | None], Any] = {}
        self._guard = threading.Lock()

    def client(self, service: str, region: str | None = None, endpoint: str | None = None) -> Any:
        """A client of `service`, with credentials that are good now. Raises Failed, or one of `ERRORS`.

        `region` is what its requests are signed for; without it that is the identity's, or the chain's.
        """
        key = (service, region, endpoint)
        with self._guard:
            if key not in self._clients:
                session = self._session = self._session or self._open()
                self._clients[key] = session.client(service, region_name=region, endpoint_url=endpoint)
            credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        # Roles are assumed here, before the call, so that what goes wrong then is never taken for a lost write.
        credentials.get_frozen_credentials()
        return self._clients[key]

    def _open(self) -> Any:
        session = botocore.session.Session()
        if path := self.identity.credentials_file:
            if not Path(path).is_file():
                raise Failed(f"the credentials file {path} is not there", next="check 'credentials_file'")
            session.set_config_variable("credentials_file", path)
        # A write must never be repeated by a library that does not know whether it was taken.
        retries: Any = {"total_max_attempts": 1, "mode": "standard"}
        settings = Config(connect_timeout=self._connect_timeout, read_timeout=self._read_timeout, retries=retries)
        session.set_default_client_config(settings)
        return boto3.Session(
            botocore_session=session, profile_name=self.identity.profile, region_name=self.identity.region
        )


@cache
def shared(identity: Identity, timeout: float) -> Account:
    """The account of everybody in this process who asks as `identity` with that timeout: one set of connections."""
    return Account(identity, timeout, timeout)


def code(error: Exception) -> str:
    """The API's own name for what went wrong; empty where the API did not say it."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def said(error: Exception) -> str:
    """The message of `error` on one line, without its final dot."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
    return " ".join(str(error).split()).rstrip(".")


def status(error: Exception) -> int:
    """The HTTP status that `error` came with; 0 where there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def lost(error: Exception) -> bool:
    """Whether what was asked for in the call that ended with `error` may have been done."""
    if isinstance(error, ClientError):
        return status(error) >= 500 and code(error) not in THROTTLED
    return isinstance(error, _ANSWER_LOST)


def words(error: Exception, what: str) -> tuple[str, str]:
    """What happened when `what` was asked, as a name and an address, and what to do next."""
    if code(error) in _WORDS:
        happened, then = _WORDS[code(error)]
        return happened.format(said=said(error)), then
    if isinstance(error, _NO_CREDENTIALS):
        return f"there are no usable AWS credentials: {said(error)}", "set 'profile', or export AWS_PROFILE"
    if isinstance(error, NotConnectedError | HTTPClientError):
        return f"{what} does not answer: {said(error)}", "check the network from here to it"
    who = f"{what} says {code(error)}" if code(error) else f"boto3 could not ask {what} ({type(error).__name__})"
    return f"{who}: {said(error)}", "correct what it names, then try again"
