"""Facts about a saved set as it is judged, drawn and exported."""

import argparse
import dataclasses

import pytest
import torch
from saved_sets import to_pixels

from bacon.score import finding, sets


def test_a_whitened_set_is_exported_as_plain_pixels(canvases, facts, digits_folder):
    for space in ("normalised", "pixels"):
        test = finding.RealImages(
            "Digits", argparse.Namespace(data_path=digits_folder, im_size=None, validate=0)
        )
        whitening = test.whitening(space)
        plain = canvases[0] if space == "normalised" else to_pixels(canvases[0], facts)
        saved = sets.SavedSet(
            "x", 0, "MTT", whitening.apply(plain), canvases[1], whitened_from=space, facts=facts
        )
        exact = to_pixels(canvases[0], facts)
        torch.testing.assert_close(
            saved.pixels(saved.canvases, whitening), exact, rtol=0, atol=1e-4
        )
        assert (
            test.test(space, "cpu").whitening is not None
            and test.test(None, "cpu").whitening is None
        )


@pytest.mark.parametrize(
    ("canvases", "per_image", "stored"), [(20, 1, 2), (29, 1, 2), (20, 2, 1), (40, 2, 2), (5, 1, 1)]
)
def test_storage_is_counted_in_images_of_a_class(canvases, per_image, stored):
    one = sets.SavedSet(
        "x", 0, "DC", torch.zeros(canvases, 1, 2, 2), None, canvases_per_image=per_image
    )
    assert one.stored_per_class(10) == stored


def test_hard_labels_and_names_of_a_set(facts):
    labels = torch.tensor([1, 0, 2])
    hard = sets.SavedSet("x", 0, "DC", torch.zeros(3, 1, 2, 2), labels, facts=facts)
    soft = dataclasses.replace(hard, labels=torch.eye(3)[labels] - 0.5)
    assert hard.hard() is hard and torch.equal(soft.hard().labels, labels)
    assert hard.class_names() == list(facts.names())
    assert dataclasses.replace(hard, meta={"classes": [7, "b"]}).class_names() == ["7", "b"]
    assert (hard.title, dataclasses.replace(hard, baseline="random").title) == ("x", "random")
