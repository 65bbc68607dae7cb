"""Write `hwsearch/graph/reference_networks.jsonl`: the reference networks as captured, so that pricing them needs no torch.

Run it after changing `hwsearch/tasks/networks.py`: `python tools/reference_networks.py`.
"""

import json

from hwsearch.graph.capture import capture_reference
from hwsearch.graph.space import NETWORKS_FILE
from hwsearch.tasks.networks import REFERENCE_NETWORKS


def lines() -> str:
    """The file's content: one network per line."""
    records = [
        {"reference": name, "network": capture_reference(reference).to_json()} for name, reference in REFERENCE_NETWORKS.items()
    ]
    return "".join(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    content = lines()
    NETWORKS_FILE.write_text(content, encoding="utf-8")
    print(f"{NETWORKS_FILE.name}: {content.count(chr(10))} networks, {len(content)} characters")
