"""Facts about a saved set as it is judged, drawn and exported."""

import argparse

import torch
from saved_sets import to_pixels

from bacon.score import finding, sets


def test_a_whitened_set_is_exported_as_plain_pixels(canvases, facts, digits_folder):
    for space in ("normalised", "pixels"):
        test = finding.RealImages(
            "Digits", argparse.Namespace(data_path=digits_folder, im_size=None)
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
