"""What is learned about token counts from finished requests: how far estimates are off, how long answers are."""

from __future__ import annotations

from extproc.calibration import Calibration, Correction
from extproc.expectation import Expectation
from headgate.record import RequestRecord, UsageSource


class Estimates:
    """One per sidecar; nothing is known at first, nor where no records come in."""

    def __init__(self) -> None:
        self._calibration = Calibration()
        self._expectation = Expectation()

    def correction(self, model: str) -> Correction:
        """What the model's byte estimate is multiplied with, and how far off it may still be."""
        return self._calibration.correction(model)

    def output_tokens(self, tenant: str, model: str) -> int | None:
        """How long an answer of the model to the tenant is expected to be; None while too little is known."""
        return self._expectation.output_tokens(tenant, model)

    def learn(self, record: RequestRecord) -> None:
        """Take what a model server reported of one request."""
        if record.usage_source is not UsageSource.REPORTED:
            return
        if record.uncorrected_prompt_tokens and record.prompt_tokens:
            self._calibration.observe(
                model=record.model,
                tenant=record.tenant,
                estimated_tokens=record.uncorrected_prompt_tokens,
                reported_tokens=record.prompt_tokens,
            )
        if record.output_tokens:
            self._expectation.observe(tenant=record.tenant, model=record.model, output_tokens=record.output_tokens)
