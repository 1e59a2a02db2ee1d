"""Facts about the methods: what each minimises, and which settings are the method."""

import pytest
import torch

import utils
from bacon import flags, methods
from bacon.distill import distiller
from bacon.methods import METHODS, TERMS, is_zero


def settings(*words):
    return flags.parse_args(("CIFAR10",), "", ["--ipc=10", *words]).args


def test_bacon_weighs_likelihood_1_total_variation_08_and_clip_02_and_the_others_match_means():
    terms = distiller.active_terms(settings())
    assert {name: term.weight for name, term in terms.items()} == {
        "lh": 1.0,
        "tv": 0.8,
        "clip": 0.2,
    }
    for method in ("IDM", "DM"):
        terms = distiller.active_terms(settings("--method", method))
        assert {name: term.weight for name, term in terms.items()} == {"match": 1.0}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_a_function_of_what_it_says_it_sees(name):
    generator = torch.Generator().manual_seed(0)
    synthetic = torch.randn(3, 4, 5, generator=generator)
    real = utils.summaries(torch.randn(21, 5, generator=generator), [7] * 3, utils.REAL_SUMMARIES)
    seen = {"synthetic": synthetic, "z_syn": synthetic.mean(1), **real}
    term = TERMS[name]
    given = {"clip_prior": "residual"}
    chosen = {setting: given[setting] for setting in term.settings}
    values = distiller.ActiveTerm(name, 1.0, chosen).of(seen)
    assert values.shape == (3,) and values.isfinite().all()
    # A value for each class, of that class alone.
    alone = distiller.ActiveTerm(name, 1.0, chosen).of(
        {key: of_all[1:2] for key, of_all in seen.items()}
    )
    torch.testing.assert_close(values[1:2], alone)


def test_weights_of_terms_that_a_method_does_not_have_have_no_effect():
    for name, method in METHODS.items():
        for term, row in TERMS.items():
            if row.about and term not in method.terms and not row.of_every_method:
                assert flags.fixed_by(name)[f"{term}_weight"] == row.weight


def test_only_the_clip_prior_as_released_is_identically_zero():
    args = settings()
    assert [name for name in METHODS["BACON"].terms if is_zero(name, args)] == ["clip"]
    assert not is_zero("clip", settings("--clip_prior=residual"))
    assert is_zero("clip", settings("--clip_prior=residual", "--clip_weight=0"))
    assert is_zero("tv", settings("--tv_weight=0")) and not is_zero("match", args)


def test_a_term_of_every_method_is_in_use_where_it_has_a_weight():
    for method, row in METHODS.items():
        own = list(row.terms)
        assert methods.terms_of(method) == [*own, "spread"]
        assert methods.terms_in_use(settings("--method", method)) == own
        given = settings("--method", method, "--spread_weight=0.5")
        assert methods.terms_in_use(given) == [*own, "spread"]
        assert methods.weight_of("spread", given) == 0.5 and not is_zero("spread", given)
    # A term of its own stays one of the method, whatever its weight.
    assert methods.terms_in_use(settings("--tv_weight=0")) == ["lh", "tv", "clip"]


def test_who_takes_one_step_for_all_classes_and_who_has_our_recipe():
    assert methods.joint_methods() == ["DM"] and methods.methods_with_ours() == ["BACON"]
    assert methods.weight_flags(["match", "tv", "spread"]) == ["tv_weight", "spread_weight"]
