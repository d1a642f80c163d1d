"""The agent from the command line.

python -m agent ask KEY "Rome, Oslo"
python -m agent allow KEY
python -m agent refuse KEY
python -m agent show KEY
"""

from __future__ import annotations

import sys

from dispatchers import DispatchResponse

from .flows import Decision, answer, decision


def main() -> int:
    """Ask, decide, or show."""
    match sys.argv[1:]:
        case ["ask", key, question]:
            return told(answer.options(idempotency_key=key).dispatch(question))
        case ["allow" | "refuse" as word, key]:
            return told(decision.send(answer, key, Decision(ok=word == "allow")))
        case ["show", key]:
            return show(key)
        case _:
            print(__doc__)
            return 2


def told(response: DispatchResponse) -> int:
    """Print what became of a dispatch."""
    print(response.status.value, response.error.message if response.error else "")
    return 0 if response.ok else 1


def show(key: str) -> int:
    """Print the answer, or how far the agent is."""
    execution = answer.execution(key)
    status = execution.status()
    print(status, execution.result() if status == "completed" else execution.state())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
