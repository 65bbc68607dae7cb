"""The cores that can be emulated, by the name that a profile's `[device] core` gives."""

from hwsearch.emulation.cores.cortex_a53 import CORTEX_A53
from hwsearch.emulation.cores.cortex_a72 import CORTEX_A72
from hwsearch.emulation.cores.cortex_m0plus import CORTEX_M0PLUS
from hwsearch.emulation.cores.cortex_m0plus_small import CORTEX_M0PLUS_SMALL
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.cores.cortex_m7 import CORTEX_M7
from hwsearch.emulation.cores.cortex_m33 import CORTEX_M33
from hwsearch.emulation.cores.esp32_c3 import ESP32_C3
from hwsearch.emulation.processor_core import Core
from hwsearch.errors import ProfileError

CORES: dict[str, Core] = {
    "Cortex-M4": CORTEX_M4,
    "Cortex-M4F": CORTEX_M4,
    "Cortex-M33": CORTEX_M33,
    "Cortex-M7": CORTEX_M7,
    "Cortex-M0+": CORTEX_M0PLUS,
    "Cortex-M0+ with 32-cycle multiplier": CORTEX_M0PLUS_SMALL,
    "ESP32-C3": ESP32_C3,
    "Cortex-A53": CORTEX_A53,
    "Cortex-A72": CORTEX_A72,
}


def find_core(name: str) -> Core:
    """The core of a profile's `[device] core`.

    Raises:
        ProfileError: it cannot be emulated.

    >>> find_core("Cortex-M0+ with 32-cycle multiplier").description
    'Cortex-M0+, DDI 0484 costs as recalled, multiplier of 32 cycles'
    """
    if name not in CORES:
        raise ProfileError(
            f"To be emulated, a profile's [device] core must be one of {', '.join(CORES)}, but found {name!r}; "
            "correct it, or measure on the device itself with --target ssh:USER@HOST."
        )
    return CORES[name]
