"""Comparison of a dispatcher with the endpoint that the same configuration describes."""

from __future__ import annotations

from collections.abc import Iterator

from dispatchers import ConfigurationError
from dispatchers.http import EndpointSettings, configured_endpoint

from ._options import CloudTasksOptions


def check_against_endpoint(options: CloudTasksOptions, alias: str) -> None:
    """Refuse a queue whose every delivery the configured endpoint would refuse.

    Raises:
        ConfigurationError: They differ; the message has expected and sent values.
    """
    try:
        endpoint = configured_endpoint()
    except ConfigurationError:
        return  # the endpoint's own check says what is wrong with it
    found = [] if endpoint is None else [*_differences(options, endpoint)]
    if found:
        raise ConfigurationError(
            f"the queue of {alias!r} sends what the endpoint of the same configuration refuses: "
            + "; ".join(found)
        )


def _differences(options: CloudTasksOptions, endpoint: EndpointSettings) -> Iterator[str]:
    if options.path != endpoint.path:
        yield f"endpoint.path is {endpoint.path!r}, the dispatcher's path {options.path!r}"
    oidc, account = endpoint.oidc, options.service_account
    if oidc is not None and account:
        if (audience := options.token_audience) not in oidc.audience:
            yield (
                f"endpoint.oidc.audience expects {_one_of(oidc.audience)}, and the token is for "
                f"{audience!r} (`audience`, by default `worker_url`; a slash at the end counts)"
            )
        # As the endpoint compares them: the case of an address does not matter.
        if account.lower() not in {email.lower() for email in oidc.emails}:
            yield (
                f"endpoint.oidc.emails expects {_one_of(oidc.emails)}, and service_account is "
                f"{account!r}"
            )
    if options.secret is not None and not account and endpoint.secrets:
        known = {each.get_secret_value() for each in endpoint.secrets}
        if options.secret.get_secret_value() not in known:
            yield "secret is none of endpoint.secrets"


def _one_of(values: tuple[str, ...]) -> str:
    return " or ".join(map(repr, values))
