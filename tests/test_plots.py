"""Pictures: complete, of equal axes, and the same bytes from the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from tfvae.experiments.definitions import load_table
from tfvae.experiments.figure_plots import speed_and_quality
from tfvae.experiments.plots import latent_planes, learning_curves, learning_shapes
from tfvae.experiments.styles import COLOURS, OF_MODELS, styles_of


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved, real = [], Figure.savefig

    def savefig(figure, *arguments, **keywords):
        saved.append(figure)
        return real(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def styles(*names):
    """Styles of rows that have a model each."""
    return styles_of({name: name for name in names})


def panels(n_panels, n=60):
    random = np.random.default_rng(0)
    return {f"Row {k}": tuple(random.normal(size=(2, n, 2)) * [3 + k, 1.0]) for k in range(n_panels)}


@pytest.mark.slow
@pytest.mark.parametrize(("n_panels", "grid"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3))])
def test_each_row_has_a_panel_of_its_points_with_equal_axes(figures, tmp_path, n_panels, grid):
    given = panels(n_panels)
    latent_planes(given, tmp_path / "latents.png", styles=styles(*given), title="Title")
    (figure,) = figures
    drawn = [axes for axes in figure.axes if axes.axison]
    assert len(figure.axes) == grid[0] * grid[1] and [axes.get_title() for axes in drawn] == list(given)
    for axes, (posterior, prior) in zip(drawn, given.values(), strict=True):
        (dots,), (density,) = axes.collections, axes.images
        np.testing.assert_allclose(dots.get_offsets(), posterior)
        assert axes.get_aspect() == 1
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert right - left == pytest.approx(top - bottom)
        for points in (posterior, prior):
            assert left < points[:, 0].min() and points[:, 0].max() < right
            assert bottom < points[:, 1].min() and points[:, 1].max() < top
        assert density.get_extent() == pytest.approx([left, right, bottom, top])
        shade = np.asarray(density.get_array())
        assert np.sum(shade**2) == pytest.approx(len(prior), rel=0.02)  # what is shaded is the prior's density
    assert imread(tmp_path / "latents.png").ndim == 3


def test_the_shade_lies_where_the_prior_does(figures, tmp_path):
    posterior = np.random.default_rng(0).uniform(-1, 1, size=(50, 2))
    planes = {"Row": (posterior, np.tile([0.8, -0.8], (50, 1)))}
    latent_planes(planes, tmp_path / "latents.png", styles=styles("Row"), title="Title")
    shade = np.asarray(figures[0].axes[0].images[0].get_array())  # rows from below
    top, right = np.unravel_index(shade.argmax(), shade.shape)
    assert right > 0.8 * shade.shape[1] and top < 0.2 * shade.shape[0]


def test_neighbouring_panels_differ_in_colour_and_all_are_of_the_palette(figures, tmp_path):
    given = panels(9)
    latent_planes(given, tmp_path / "latents.png", styles=styles(*given), title="Title")
    colours = [axes.collections[0].get_facecolor()[0][:3] for axes in figures[0].axes]
    assert len({tuple(colour) for colour in colours}) == len(COLOURS) and len(colours) == 9


def test_points_that_all_coincide_can_be_drawn(tmp_path):
    planes = {"Row": (np.zeros((1, 2)), np.zeros((1, 2)))}
    latent_planes(planes, tmp_path / "latents.png", styles=styles("Row"), title="Title")
    assert (tmp_path / "latents.png").is_file()


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes(tmp_path):
    def drawn():
        given = panels(3)
        latent_planes(given, tmp_path / "latents.png", styles=styles(*given), title="Title")
        of_rows = {"styles": styles("A", "B"), "title": "Title", "metric": "NDCG"}
        learning_curves({"A": [{0: 0.1, 1: 0.2}]}, {"B": 0.15}, tmp_path / "curves.png", **of_rows)
        learning_shapes({"A": {1: 0.8, 5: 1.0}}, tmp_path / "shapes.png", title="Title", metric="NDCG@10")
        return [(tmp_path / name).read_bytes() for name in ("latents.png", "curves.png", "shapes.png")]

    assert drawn() == drawn()


def test_curves_stand_at_their_epochs_and_end_with_the_shortest_seed(figures, tmp_path):
    seeds = [{3: 0.2, 7: 0.3, 9: 0.4}, {3: 0.4, 7: 0.5}]
    of_rows = {"styles": styles("Rounds"), "title": "Title", "metric": "NDCG@10"}
    learning_curves({"Rounds": seeds}, {}, tmp_path / "curves.png", **of_rows)
    mean, *_ = figures[0].axes[0].lines
    np.testing.assert_array_equal(mean.get_xdata(), [3, 7])
    np.testing.assert_allclose(mean.get_ydata(), [0.3, 0.4])


def test_shapes_are_drawn_at_their_rounds_in_full(figures, tmp_path):
    given = {"Ours": {1: 0.7, 2: 0.9, 3: 1.0}, "Theirs": {1: 0.6, 5: 0.8, 50: 1.0}}
    learning_shapes(given, tmp_path / "shapes.png", title="Title", metric="NDCG@10")
    (axes,) = figures[0].axes
    for line, shares in zip(axes.lines, given.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), list(shares))
        np.testing.assert_array_equal(line.get_ydata(), list(shares.values()))
    assert axes.get_ylim()[0] < 0.6


def test_a_model_has_one_style_in_all_pictures_and_no_two_rows_look_the_same():
    few = styles_of({"Ours": "mult-vae", "Theirs": "mult-dae"})
    many = styles_of({"Another": "mult-dae", "Logistic": "mult-vae", "First": "recvae", "Gaussian": "mult-vae"})
    assert few["Ours"] == many["Logistic"] == OF_MODELS["mult-vae"] and few["Theirs"] == many["Another"]
    assert many["Gaussian"].colour == few["Ours"].colour and many["Gaussian"] != few["Ours"]
    rows = {row.name: row.model for row in load_table("leaderboard").rows}
    assert len(set(styles_of(rows).values())) == len(rows) > 20
    ablation = styles_of({str(number): "recvae" for number in range(9)} | {"Other": "mult-vae"})
    assert len(set(ablation.values())) == 10 and len({style.colour for style in ablation.values()}) == len(COLOURS)


def test_names_stand_beside_their_points_and_cover_nothing(figures, tmp_path):
    random = np.random.default_rng(0)
    points = {f"Model {k}": (10 ** random.uniform(0, 3), random.uniform(0.3, 0.4)) for k in range(24)}
    front = sorted(points, key=points.get)[:2]
    words = {"title": "Title", "xlabel": "seconds", "ylabel": "NDCG"}
    speed_and_quality(points, tmp_path / "speed.png", front=front, styles=styles(*points), **words)
    (figure,) = figures
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    boxes = {label.get_text(): Text.get_window_extent(label, renderer) for label in axes.texts}
    assert boxes.keys() == points.keys()
    for name, box in boxes.items():
        assert not any(box.overlaps(other) for other_name, other in boxes.items() if other_name != name)
        assert not any(box.contains(*axes.transData.transform(point)) for point in points.values())
