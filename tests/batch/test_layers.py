import numpy as np

from derain_cli.batch import rain_layer


def test_rain_layer_of_16_bits_does_not_wrap_around() -> None:
    layer = rain_layer(np.uint16([60000, 5]), np.uint16([1, 6]))
    assert layer.dtype == np.uint16
    assert layer.tolist() == [59999, 0]
