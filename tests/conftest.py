"""Fixtures shared by the tests; real pictures and weights come from ../shared where it is there."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and weights beside the project, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real pictures and weights of ../shared, which are not here")
    return SHARED
