import numpy as np
import pytest

from ctr.errors import CtrError
from ctr.metrics import prediction_difference


def test_a_model_does_not_differ_from_itself():
    prob = np.array([0.0, 0.1, 0.9])
    assert prediction_difference(prob, prob) == 0.0


def test_a_constant_factor_gives_the_closed_form():
    prob = np.linspace(0.001, 0.3, 50)
    assert prediction_difference(prob, 3 * prob) == pytest.approx(2 * 2 / 4)


def test_weights_and_the_upper_bound():
    assert prediction_difference([0.0, 0.2], [0.5, 0.2], weight=[1, 3]) == pytest.approx(0.5)


def test_no_weight_is_undefined():
    assert prediction_difference([], []) is None


def test_other_lengths_are_refused():
    with pytest.raises(CtrError, match="2 and 1 predictions"):
        prediction_difference([0.1, 0.2], [0.1])
