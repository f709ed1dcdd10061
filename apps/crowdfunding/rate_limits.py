"""The application's rate limits: how often something may be tried, and by whom it is counted."""

from __future__ import annotations

import math

from camber import fixed_window, minutes

backer_verify = fixed_window("backerVerify", 5, per=minutes(1))  # per lower-cased username
backer_verify_address = fixed_window("backerVerifyAddress", 60, per=minutes(1))  # per client address
session_create = fixed_window("sessionCreate", 10, per=minutes(1))  # per auth user
app_state_change = fixed_window("appStateChange", 10, per=minutes(1))  # per admin; the operator is not limited


def whole_seconds(milliseconds: float) -> int:
    """A waiting time as people are told it: rounded up, so that a retry then is not refused again."""
    return max(1, math.ceil(milliseconds / 1000))
