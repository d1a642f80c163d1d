"""Categories of the client's exceptions."""

from __future__ import annotations

import ssl

from botocore import exceptions as boto

from dispatchers import ErrorCategory, RejectedError

CODES: dict[str, ErrorCategory] = {
    code: category
    for category, codes in {
        ErrorCategory.NOT_FOUND: "NonExistentQueue QueueDoesNotExist QueueDeletedRecently",
        ErrorCategory.AUTHENTICATION: (
            "InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch "
            "InvalidSignatureException IncompleteSignature MissingAuthenticationToken "
            "MissingAuthenticationTokenException ExpiredToken ExpiredTokenException "
            "RequestExpired InvalidSecurity AuthFailure"
        ),
        ErrorCategory.THROTTLED: (
            "RequestThrottled Throttling ThrottlingException KmsThrottled OverLimit"
        ),
        ErrorCategory.PERMISSION: (
            "KmsAccessDenied KmsDisabled KmsInvalidState KmsNotFound KmsOptInRequired"
        ),
        ErrorCategory.TOO_LARGE: "BatchRequestTooLong",
        ErrorCategory.UNSUPPORTED: "UnsupportedOperation",
    }.items()
    for code in codes.split()
}
"""By the last part of the service's code (`AWS.SimpleQueueService.NonExistentQueue`).

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html and
CommonErrors.html beside it, November 2026.
"""
STATUSES: dict[int, ErrorCategory] = {
    401: ErrorCategory.AUTHENTICATION,
    403: ErrorCategory.PERMISSION,
    404: ErrorCategory.NOT_FOUND,
    413: ErrorCategory.TOO_LARGE,
    429: ErrorCategory.THROTTLED,
}
"""By the HTTP status of an answer whose code says nothing."""
CATEGORIES: tuple[tuple[type[Exception], ErrorCategory], ...] = (
    (boto.NoCredentialsError, ErrorCategory.AUTHENTICATION),
    (boto.PartialCredentialsError, ErrorCategory.AUTHENTICATION),
    (boto.CredentialRetrievalError, ErrorCategory.AUTHENTICATION),
    (boto.TokenRetrievalError, ErrorCategory.AUTHENTICATION),
    (boto.UnauthorizedSSOTokenError, ErrorCategory.AUTHENTICATION),
    (boto.SSLError, ErrorCategory.AUTHENTICATION),
    (boto.ConnectTimeoutError, ErrorCategory.TIMEOUT),
    (boto.ReadTimeoutError, ErrorCategory.TIMEOUT),
    (boto.HTTPClientError, ErrorCategory.UNAVAILABLE),
    (boto.ConnectionError, ErrorCategory.UNAVAILABLE),
    (boto.IncompleteReadError, ErrorCategory.UNAVAILABLE),
    (boto.ParamValidationError, ErrorCategory.INVALID),
    # The rest of the client's own: no region, an unknown profile, an endpoint that is no URL.
    (boto.BotoCoreError, ErrorCategory.CONFIGURATION),
)
"""By the client's classes, a subclass before its base."""
CONNECTED = (boto.HTTPClientError, boto.IncompleteReadError, boto.SSLError)
"""Errors that may come once a connection stands; every other of the client's comes before."""
UNCONNECTED = (boto.ConnectTimeoutError, boto.ProxyConnectionError)
"""Those among them that do not."""
SERVER_FAULT = 500


def category_of(exc: Exception) -> ErrorCategory | None:
    """Return the category of the client's exception; None for Python's own."""
    if isinstance(exc, boto.ClientError):
        return _of_answer(exc)
    return next((category for kind, category in CATEGORIES if isinstance(exc, kind)), None)


def _of_answer(exc: boto.ClientError) -> ErrorCategory:
    known, status = CODES.get(code_of(exc)), _status(exc)
    rest = ErrorCategory.UNAVAILABLE if status >= SERVER_FAULT else ErrorCategory.INVALID
    return known or STATUSES.get(status, rest)


def code_of(exc: boto.ClientError) -> str:
    """Return the last part of the service's own code."""
    return str(exc.response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def _status(exc: boto.ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", SERVER_FAULT))


def is_certainly_unsent(exc: Exception) -> bool:
    """Return whether the service has certainly not taken the message."""
    if isinstance(exc, boto.ClientError):
        return _of_answer(exc) is not ErrorCategory.UNAVAILABLE
    if isinstance(exc, boto.BotoCoreError):
        early = isinstance(exc, UNCONNECTED) or _is_untrusted(exc)
        return early or not isinstance(exc, CONNECTED)
    return False


def _is_untrusted(exc: BaseException | None) -> bool:
    """Tell whether the server's certificate was refused, before anything was sent."""
    while exc is not None and not isinstance(exc, ssl.SSLCertVerificationError):
        exc = exc.__cause__ or exc.__context__
    return exc is not None


def before_contact(exc: Exception) -> RejectedError:
    """Return the error for what failed before a message was sent."""
    category = category_of(exc) or ErrorCategory.CONFIGURATION
    return RejectedError(category, f"{type(exc).__name__}: {exc}{_cure(exc)}")


def _cure(exc: Exception) -> str:
    if isinstance(exc, boto.NoRegionError):
        return " Set the option `region`, or AWS_DEFAULT_REGION."
    if isinstance(exc, boto.NoCredentialsError):
        return ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
    if isinstance(exc, boto.ClientError) and _of_answer(exc) is ErrorCategory.NOT_FOUND:
        return " Make it first, in this region and account: `aws sqs create-queue`."
    return ""
