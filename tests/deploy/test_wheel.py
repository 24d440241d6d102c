"""What the image installs: a wheel with every file of the packages, and not only their Python."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "stream", "offline", "deploy")


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if name.startswith(PACKAGES) and ".dist-info/" not in name}
    files = (file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    clients = Path("deploy/clients")  # distributions of their own
    expected = {str(file) for file in files if "__pycache__" not in file.parts and clients not in file.parents}
    assert packed == expected
    assert wheel.stat().st_size < 40_000_000
    assert {Path(name).suffix for name in packed} >= {".py", ".onnx", ".npz", ".jinja", ".json", ".conf"}
