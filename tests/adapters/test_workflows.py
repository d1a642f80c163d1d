"""D17: one workflow with all of the language, on every backend, with a worker killed in its midst.

Steps and turns go through the backend, one step goes through another; the journal is a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from .workflow_backends import HERE, WORKERS, site_on
from .workflow_site import EFFECTS, RESULT, Site


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A configured backend without a worker."""

    def url(kind: str) -> str:
        found: str = request.getfixturevalue(f"shared_{kind}")
        return found

    with site_on(request.param, tmp_path, url, Site) as found:
        yield found


def whole(site: Site, *, killed: bool) -> None:
    """Run an execution to its end, and cancel another."""
    # Others use the same servers, which remember keys.
    one, two = uuid4().hex, uuid4().hex
    site.start_worker()
    site.start_worker("side")
    site.send("anywhere.flow", one, number=1, held=killed)
    site.send("anywhere.waits", two)
    if killed:
        site.until(lambda: site.effects()["hold"])
        site.kill_worker()
        (site.folder / "released").touch()
        site.start_worker()
    site.until(lambda: site.look(f"anywhere.waits/{two}"))
    site.tell(f"anywhere.waits/{two}", "cancel", "enough")
    site.tell(f"anywhere.flow/{one}", "signal", "go", "9")

    flow, waits = site.ended(f"anywhere.flow/{one}"), site.ended(f"anywhere.waits/{two}")

    assert (flow.status.name, flow.output) == ("COMPLETED", _plain(RESULT)), flow
    assert waits.status.name == "CANCELLED"
    assert {"add 0 0", *EFFECTS} <= set(site.effects())


def _plain(value: list[int]) -> bytes:
    return str(value).replace(" ", "").encode()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("site", [*HERE, *WORKERS], indirect=True)
def test_a_workflow_on_every_backend(site: Site) -> None:
    """D17: gather, timer, local step, signal, child, another backend, failures, cancellation."""
    whole(site, killed=False)
    repeated = {name: count for name, count in site.effects().items() if count > 1}
    assert repeated == {}


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("site", [*HERE, *WORKERS], indirect=True)
def test_a_workflow_whose_worker_is_killed(site: Site) -> None:
    """D2, D17: `kill -9` in a step; another process goes on with what is recorded."""
    whole(site, killed=True)
    repeated = {name: count for name, count in site.effects().items() if count > 1}
    assert set(repeated) <= {"hold"}
