"""The names that documents give stay where they are, whatever room their code moves to."""

import importlib

import pytest

import reverie.data


@pytest.mark.parametrize("name", reverie.data.__all__)
def test_reverie_data_offers_its_names(name: str) -> None:
    assert getattr(reverie.data, name).__name__ == name


@pytest.mark.parametrize(
    ("module", "name"), [("index", "ShardIndex"), ("loader", "Loader"), ("loader", "LoaderConfig")]
)
def test_documented_modules_hold_the_same_classes(module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"reverie.data.{module}"), name) is getattr(reverie.data, name)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        reverie.data.Missing  # noqa: B018
