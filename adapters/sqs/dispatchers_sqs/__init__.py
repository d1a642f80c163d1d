"""Hands work over to a queue of Amazon SQS, and runs it by a worker or by AWS Lambda.

`pip install "dispatchers[sqs]"`; `adapters/sqs/README.md` says the rest.
"""

from ._dispatcher import SQSDispatcher
from ._lambda import lambda_handler
from ._options import SQSOptions

__all__ = ["SQSDispatcher", "SQSOptions", "lambda_handler"]
