"""What the repository may hold."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = {".o", ".a", ".so", ".elf", ".pyd", ".dylib", ".whl", ".zip", ".gz", ".xz", ".bin", ".pt", ".onnx"}
LARGEST_BINARY_BYTES = 300_000
LARGEST_TEXT_BYTES = 1_000_000


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("what is tracked is known in a git checkout alone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_object_archive_or_other_built_file_is_tracked() -> None:
    assert [str(path.relative_to(ROOT)) for path in tracked() if path.suffix in BUILT] == []


def test_no_large_file_is_tracked() -> None:
    def limit(path: Path) -> int:
        return LARGEST_BINARY_BYTES if b"\0" in path.read_bytes()[:8000] else LARGEST_TEXT_BYTES

    assert [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > limit(path)] == []
