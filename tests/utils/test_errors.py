import math

import pytest

from utils.errors import InputError, check_finite


def test_a_loss_that_isnt_finite_ends_a_run_in_one_line():
    check_finite("the loss", -3.5, 7)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(InputError) as raised:
            check_finite("the loss", value, 7, " at a learning rate of 0.1", "--rate")
        said = f"the loss is {value} after epoch 7 at a learning rate of 0.1: not saved; "
        assert str(raised.value) == said + "try a smaller --rate"
