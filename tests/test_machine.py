"""If these fail, runs of two machines are taken for one, or a machine's speed is not known to its readers."""

import msgspec

from infscale import machine


def test_a_machine_is_described_by_more_than_its_processors_name() -> None:
    """Two hosts of one cloud image share name, kernel and system; their caches and memory may differ."""
    here = machine.describe()
    assert here == machine.describe()
    for name, other in (("caches", "L1d 1K"), ("kernel", "0"), ("memory_gib", here.memory_gib + 1)):
        assert msgspec.structs.replace(here, **{name: other}).digest() != here.digest()


def test_the_calibration_times_work_of_every_kind() -> None:
    measured = msgspec.structs.asdict(machine.calibrate())
    assert set(measured) == {"python", "numpy", "calls", "loopback"}
    assert all(value > 0 for value in measured.values())
    assert measured["calls"] > measured["loopback"], "a round trip is made of several system calls"
