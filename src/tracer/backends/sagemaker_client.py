"""boto3's clients for SageMaker, and its errors made ours; credentials come from boto3's own chain and go nowhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from tracer.backends.base import BackendError, Refused, Rejected, Throttled, Unreachable

_CONNECT_S, _READ_S = 5, 20
_WAIT_S = 2.0
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
     "RequestThrottled", "RequestThrottledException", "SlowDown", "PriorRequestNotComplete"}
)  # fmt: skip
_REFUSED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId",
     "InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException",
     "AuthFailure", "OptInRequired", "InvalidAccessKeyId", "MissingAuthenticationToken",
     "MissingAuthenticationTokenException", "ResourceLimitExceeded"}
)  # fmt: skip
_SERVER_ERROR = 500


class Clients:
    """SageMaker, its metrics and, where a bucket is named, S3.

    Args:
        options: `region`, `endpoint`, `bucket`; what is not told, boto3 finds as it always does.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        config = Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries={"total_max_attempts": 1})
        region = options.get("region") or os.environ.get("AWS_REGION") or None
        endpoint = options.get("endpoint") or None
        metrics = options.get("metrics_endpoint") or endpoint
        session = boto3.session.Session(region_name=None if region is None else str(region))
        self.api: Any = session.client("sagemaker", endpoint_url=endpoint, config=config)
        self.metrics: Any = session.client("sagemaker-metrics", endpoint_url=metrics, config=config)
        self.files: Any = session.client("s3", endpoint_url=endpoint, config=config) if options.get("bucket") else None
        self.region = str(self.api.meta.region_name)

    def close(self) -> None:
        """Close the connections."""
        for one in (self.api, self.metrics, self.files):
            if one is not None:
                one.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Make botocore's errors ours; what a service says is told, a key never."""
    from botocore import exceptions as theirs  # type: ignore[import-untyped]

    try:
        yield
    except theirs.ClientError as error:
        raise _answered(error.response) from error
    except (theirs.NoCredentialsError, theirs.PartialCredentialsError, theirs.CredentialRetrievalError) as error:
        message = "boto3 finds no AWS credentials. Configure them as for any AWS program, e.g. `aws configure`."
        raise Refused(message) from error
    except (theirs.NoRegionError, theirs.ProfileNotFound, theirs.TokenRetrievalError) as error:
        message = "boto3 cannot tell the AWS region or profile. Set the option `region`, or AWS_REGION and AWS_PROFILE."
        raise Refused(message) from error
    except (theirs.HTTPClientError, theirs.ConnectionError) as error:
        message = "SageMaker did not answer. Check the network, the region and the option `endpoint`."
        raise Unreachable(message) from error
    except theirs.BotoCoreError as error:
        message = f"boto3 refuses the request: {type(error).__name__}."
        raise Rejected(message) from error


def code_of(error: BaseException) -> str:
    """Return AWS's code of an error that `translated` made."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _answered(response: Mapping[str, Any]) -> BackendError:
    """Return our error for an answer of AWS."""
    told = response.get("Error", {})
    code, status = str(told.get("Code", "")), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status == 429:  # noqa: PLR2004 -- Too Many Requests
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        after = str(headers.get("retry-after", ""))
        return Throttled(f"SageMaker asks to wait ({code}).", float(after) if after.isdigit() else _WAIT_S)
    if code in _REFUSED or status in {401, 403}:
        return Refused(f"AWS does not allow this ({code}). Check the credentials and their permissions for SageMaker.")
    if status >= _SERVER_ERROR:
        return Unreachable(f"SageMaker answered {status} ({code}).")
    return Rejected(f"SageMaker refuses this ({code}): {str(told.get('Message', ''))[:300]}")
