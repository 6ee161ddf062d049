"""The short form of the storm: some processes that shard are killed, all rows are right, and the controls' are not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.chaos.kill_storm import require_shown

STORM = """
import json
from benchmarks.chaos.forked_storm import forked_rounds
print(json.dumps(list(forked_rounds(seed=1, kills=5))))
"""


@pytest.mark.chaos
def test_what_is_left_of_a_storm_is_exact_and_of_the_controls_is_not() -> None:
    storm = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, check=True, timeout=900)
    rounds = json.loads(storm.stdout.splitlines()[-1])
    require_shown(rounds)
    assert sum(each["strikes"]["worker"] + each["strikes"]["driver"] for each in rounds) >= 5
    with pytest.raises(AssertionError, match="the storm met no control"):
        require_shown([each | {"controls": dict.fromkeys(each["controls"], each["rows"])} for each in rounds])
