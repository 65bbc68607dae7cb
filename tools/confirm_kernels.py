"""Record that a table still holds after kernel sources changed, where the code that is built from them did not.

`hwsearch measure` does this by itself on the computer that measured. A table of another computer cannot be timed here, but
whether its kernels are the same can be told: `python tools/confirm_kernels.py PROFILE` builds each of them with the compiler and
flags of the table's last run, compares the bytes with those recorded, and adds a run that measured nothing and kept every row.
"""

import argparse
import time
from datetime import UTC, datetime

from hwsearch.errors import ProfileError
from hwsearch.hardware.header import RunRecord
from hwsearch.hardware.profile import find_profile, load_profile, write_measurements
from hwsearch.kernels.catalogue import all_kernels
from hwsearch.measuring.freshness import source_sha256
from hwsearch.measuring.targets.known_targets import open_target
from hwsearch.measuring.targets.target import Target


def changed_kernels(target: Target, run: RunRecord) -> list[str]:
    """Kernels of a run whose code, built today, is not the recorded one."""
    now = {function.symbol: function for function in all_kernels()}
    return [symbol for symbol, digest in run.kernels.items() if symbol not in now or target.digest(now[symbol]).hex() != digest]


def confirm(name: str) -> RunRecord:
    """Append the run; raises ProfileError naming a kernel that is built otherwise, or the compiler that is missing."""
    begun, profile = time.monotonic(), load_profile(name)
    timed = next(run for run in reversed(profile.runs) if run.kernels)
    sources = source_sha256(profile.header.device.isa)
    with open_target("host" if profile.header.counter.unit == "ns" else "emulator", profile.header) as target:
        built = (target.compiler.description, target.compiler.recorded_flags)
        if built != (timed.compiler, timed.flags):
            raise ProfileError(
                f"The compiler must be that of {name}'s last run, {timed.compiler}, but is {built[0]}; install it."
            )
        if changed := changed_kernels(target, timed):
            raise ProfileError(f"The kernels must be built as they were timed, but {changed[0]} is not; measure {name} again.")
    now = datetime.now(UTC)
    run = timed.model_copy(
        update={
            "run_id": f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{sources[:8]}",
            "utc_date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "command": f"python tools/confirm_kernels.py {name}",
            "source_sha256": sources,
            "machine": f"nothing timed; {len(timed.kernels)} kernels built and found equal to those of {timed.run_id}",
            "rows": 0,
            "kept": len(profile.measurements),
            "seconds": round(time.monotonic() - begun, 1),
        }
    )
    return write_measurements(find_profile(name), profile.measurements, run)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="+")
    for given in parser.parse_args().profile:
        done = confirm(given)
        print(f"{given}: {done.kept} rows, {done.machine}")
