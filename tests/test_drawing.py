"""Facts about the pictures of a set: its images, and a map of them among real ones."""

import numpy as np
import torch

from bacon import canvases, compute, figures, judge
from bacon.data import spaces
from bacon.score import command, drawing


def test_decode_draws_what_the_canvases_hold(digit_runs, tmp_path, digits_folder):
    (result,) = (digit_runs / "no_tv").glob("res_*.pt")
    images, labels, meta = canvases.load_distilled(result)
    stored = canvases.read_result(result)["data"][0]
    for flags, (shown, of_class) in (([], stored), (["--decode"], (images, labels))):
        drawn, expected = tmp_path / "drawn.png", tmp_path / "expected.png"
        line = [str(result), f"--data_path={digits_folder}", *flags]
        assert command.main(None, [*line, "--grid", str(drawn)]) == 0
        pixels = spaces.denormalise(shown, meta["mean"], meta["std"])
        figures.grid(pixels, of_class, meta["classes"], expected)
        assert drawn.read_bytes() == expected.read_bytes()
        drawn.unlink()


def test_a_map_shows_test_images_and_images_of_the_set_each_with_its_own_class(
    digit_runs, tmp_path, monkeypatch, digits_folder, digits
):
    monkeypatch.setattr(drawing, "TSNE_REAL", 5)
    nets = []

    def embed(self, net, images, last):
        nets.append(net)
        assert not net.training  # or batch norm would mix the images
        return images

    monkeypatch.setattr(compute.Arithmetic, "embed", embed)
    (result,) = (digit_runs / "no_tv").glob("res_*.pt")
    mapped = []
    monkeypatch.setattr(figures, "tsne", lambda *arguments: mapped.append(arguments))
    for seed in ([], ["--seed=0"], ["--seed=1"]):
        line = [str(result), f"--data_path={digits_folder}", *seed]
        assert command.main(None, [*line, "--tsne", str(tmp_path / "map.png")]) == 0
    real, of_real, synthetic, of_synthetic, classes, *_ = mapped[0]
    assert classes == dict(enumerate(digits.classes))
    assert of_real.tolist() == [c for c in range(10) for _ in range(5)]
    test = digits.real("test")
    assert judge.accuracy(nets[0], test, compute.Arithmetic("cpu")) > 0.5  # it knows the classes
    for image, c in zip(real, of_real, strict=True):
        those = test.take(np.flatnonzero(test.labels == c))
        assert (those - image).abs().amax((1, 2, 3)).min() < 1e-6
    images, labels, _ = canvases.load_distilled(result)
    assert torch.equal(synthetic, images) and torch.equal(of_synthetic, labels)
    assert torch.equal(mapped[1][0], real) and not torch.equal(mapped[2][0], real)
