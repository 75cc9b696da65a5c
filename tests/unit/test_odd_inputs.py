"""Input that is legal but odd, compared with NumPy or exact arithmetic, and arguments that are none."""

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import metrics, nn, optim
from tilewright.tensor import ArgumentError, DTypeError, ShapeError

INF, NAN = float("inf"), float("nan")


def same(ours: object, theirs: object) -> None:
    """Equal elements and shapes, NaN beside NaN, up to the rounding of float32."""
    found = np.asarray(ours.numpy() if isinstance(ours, tw.Tensor) else ours)
    expected = np.asarray(theirs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---- counting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [[0, 1, 2], np.array([0, 2, 5], np.uint8), [-1.5, 0, 2], np.arange(-2, 3)])
def test_edges_of_integers_do_not_round_what_is_counted(edges):
    x = np.random.default_rng(0).normal(size=60).astype(np.float32) * 2
    same(tw.histogram(x, edges)[0], np.histogram(x, edges)[0])
    same(tw.jit(lambda x: tw.histogram(x, edges)[0])(x), np.histogram(x, edges)[0])
    same(tw.histogram2d(x, x, [edges, edges])[0], np.histogram2d(x, x, [edges, edges])[0])


def test_edges_that_are_not_in_order_are_refused():
    for edges in ([2.0, 1.0], [0.0, NAN, 1.0]):
        with pytest.raises(ArgumentError, match="ascending"):
            tw.histogram(tw.ones(3), edges)


def test_points_without_coordinates_have_no_histogram():
    with pytest.raises(ShapeError, match="histogramdd"):
        tw.histogramdd(tw.zeros((3, 0)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8])
def test_bincount_of_every_integer_type(kind):
    x = np.array([1, 3, 1], kind)
    same(tw.bincount(x), np.bincount(x.astype(np.int64)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8])
def test_one_hot_of_every_integer_type(kind):
    assert tw.one_hot(np.array([1, 0, 2], kind)).tolist() == np.eye(3)[[1, 0, 2]].tolist()


# ---- order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([-INF, 1.0], -INF),
        ([1.0, INF], INF),
        ([-3e38, 3e38], 0.0),
        ([3e38, 3.2e38], 3.1e38),
        ([INF, INF], INF),
        ([-INF, INF], NAN),
        ([1.0, NAN], NAN),
    ],
)
def test_the_middle_of_infinite_and_of_large_numbers(line, expected):
    same(tw.median(tw.tensor(line)), np.float32(expected))
    same(tw.quantile(tw.tensor(line), [0.0, 1.0]), np.float32([NAN, NAN] if NAN in line else line))


def test_quantiles_between_an_infinite_and_a_finite_number():
    same(tw.quantile(tw.tensor([-INF, 1.0, INF]), [0.25, 0.5, 0.75]), [-INF, 1.0, INF])
    same(tw.nanmedian(tw.tensor([NAN, -INF, 1.0])), -INF)
    same(tw.grad(lambda x: tw.median(x))(tw.tensor([4.0, 1.0, 2.0, 8.0])), [0.5, 0.0, 0.5, 0.0])


# ---- spread --------------------------------------------------------------------------------------------------------


def test_the_spread_of_complex_numbers_is_real():
    x = np.array([1 + 2j, 0, 3 - 1j], np.complex64)
    for ours, theirs in ((tw.var, np.var), (tw.std, np.std), (tw.nanvar, np.nanvar), (tw.nanstd, np.nanstd)):
        assert ours(x).dtype is tw.float32
        same(ours(x), theirs(x))
        same(tw.jit(ours)(tw.tensor(x)), theirs(x))
    assert [t.dtype for t in tw.std_mean(x)] == [tw.float32, tw.complex64]


def test_means_and_spreads_of_half_types_do_not_overflow_inside():
    large = np.array([60000, 60000, NAN], np.float16)
    same(tw.nanmean(large), 60000)
    same(tw.average(large[:2], weights=np.float16([1, 1])), 60000)
    wide = np.array([30000, -30000], np.float16)
    for found in (tw.nanstd(wide), tw.std_mean(wide)[0]):
        same(found, 30000)
    rows = np.array([[300, -300, 100], [1, 2, 3]], np.float16)
    found = tw.corrcoef(rows)
    assert found.dtype is tw.float16
    np.testing.assert_allclose(found.numpy(), np.corrcoef(rows.astype(np.float64)), atol=1e-3)


def test_a_single_observation_of_several_variables():
    one = np.array([[3.0, 0.0, 1.0]])
    same(tw.cov(one, rowvar=False, ddof=0), np.zeros((3, 3)))


# ---- sets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, NAN], [2.0, NAN]), ([NAN], [1.0]), ([1.0], []), ([1, 1, 2], [2, 3, 3]), ([-INF, -0.0], [0.0])],
)
def test_elements_of_exactly_one_set(a, b):
    same(tw.setxor1d(a, b), np.setxor1d(a, b))


def test_elements_of_exactly_one_set_of_a_given_size():
    found = tw.jit(lambda a, b: tw.setxor1d(a, b, size=4, fill_value=-1))(
        tw.tensor([1, 1, 2]), tw.tensor([2, 3, 3])
    )
    assert found.tolist() == [1, 3, -1, -1]


# ---- rounding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "int16", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("decimals", [-1, -2, -3, -18, -19])
def test_integers_are_rounded_to_tens(kind, decimals):
    info = np.iinfo(kind)
    x = np.random.default_rng(0).integers(info.min, info.max, 200, kind, endpoint=True)
    unit = 10**-decimals
    for number, found in zip(x.tolist(), tw.round(x, decimals).tolist(), strict=True):
        count, rest = divmod(number, unit)
        exact = (count + (2 * rest > unit or (2 * rest == unit and count % 2 == 1))) * unit
        if info.min <= exact <= info.max:
            assert found == exact


def test_ties_go_to_even_tens():
    assert tw.round(tw.tensor([5, 15, 25, -5, -15]), -1).tolist() == [0, 20, 20, 0, -20]
    assert tw.round(tw.tensor([250.0, 350.0, 1234.0]), -2).tolist() == [200.0, 400.0, 1200.0]


def test_rounding_at_places_beyond_the_type():
    same(tw.round(tw.tensor([3e38, 1.25, 0.0, INF, NAN]), 2), np.float32([3e38, 1.25, 0.0, INF, NAN]))
    same(tw.round(tw.tensor([1.5, 1e38]), 400), np.float32([1.5, 1e38]))
    same(tw.round(tw.tensor([1.5, -INF, NAN]), -60), np.float32([0.0, -INF, NAN]))
    assert tw.round(tw.tensor([65504.0], dtype=tw.float16), 1).item() == 65504.0


# ---- numbers that a type cannot hold -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tw.tensor(300, dtype=tw.uint8),
        lambda: tw.tensor([1, 300], dtype=tw.uint8),
        lambda: tw.asarray([[-1]], dtype=tw.uint64),
        lambda: tw.tensor([2**63], dtype=tw.int64),
        lambda: tw.tensor([2**70]),
        lambda: tw.tensor(2**2000, dtype=tw.float32),
        lambda: tw.ones(1) * 2**2000,
        lambda: tw.fmax(np.uint8([1]), -1),
        lambda: tw.arange(300, dtype=tw.uint8),
        lambda: tw.arange(-1, 5, dtype=tw.uint64),
        lambda: tw.isclose(np.uint8([1]), -1),
        lambda: tw.zeros(2, dtype=tw.uint8).at[0].set(300),
    ],
)
def test_a_number_outside_of_the_type_is_refused(wrong):
    with pytest.raises(ArgumentError, match="outside the range of"):
        wrong()


def test_the_message_names_the_function_that_was_called():
    with pytest.raises(ArgumentError, match=r"^fmax: `x`: -1 is outside the range of uint8"):
        tw.fmax(np.uint8([1]), -1)


def test_large_integers_become_floats_where_floats_are_asked_for():
    assert tw.tensor([2**64, 1], dtype=tw.float32).tolist() == [2.0**64, 1.0]
    assert tw.equal(np.uint8([1, 255]), -1).tolist() == [False, False]


# ---- running products ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [[0.0, 1e30, 1e30], [1e38, 1e-30, 1e-30, 1e20], [2.0, INF, 0.5], [3.0], []])
def test_running_products_multiply_from_the_front(line):
    with np.errstate(over="ignore"):
        same(tw.cumprod(tw.tensor(line)), np.cumprod(np.float32(line)))


def test_running_products_along_every_axis_and_with_derivatives():
    x = np.random.default_rng(0).random((3, 4, 5)) + 0.5
    for axis in range(3):
        same(tw.cumprod(x, axis), np.cumprod(x, axis))
    same(tw.grad(lambda x: tw.cumprod(x).sum())(tw.tensor([2.0, 0.0, 3.0])), [1.0, 8.0, 0.0])


def test_the_sum_of_a_repeated_number_does_not_saturate():
    assert tw.ones((1_000_000, 1_000_000)).sum().item() == np.float32(1e12)
    same(tw.broadcast_to(tw.tensor([0.1]), (100_000, 100_000)).sum(), np.float32(1e9))


# ---- padding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [[-3, 4], [-7, -1, 5], [9], [True, False]])
def test_ramps_of_integers_are_rounded_down(line):
    for widths in ((4, 3), (1, 6), (0, 5)):
        same(tw.pad(tw.tensor(line), widths, "linear_ramp"), np.pad(np.array(line), widths, "linear_ramp"))


# ---- polynomials, matrices -----------------------------------------------------------------------------------------


def test_derivatives_of_integer_polynomials_do_not_wrap():
    assert tw.polyder(np.array([255, 1, 0], np.uint8)).tolist() == [510, 1]
    assert tw.polyder([True, True, False]).tolist() == [2, 1]


def test_powers_of_nothing():
    assert tw.vander([]).shape == np.vander([]).shape == (0, 0)


def test_complex_numbers_have_no_phase_to_unwrap():
    with pytest.raises(DTypeError, match="unwrap"):
        tw.unwrap(tw.tensor([1j, 2]))


# ---- integers that are none ----------------------------------------------------------------------------------------

WHOLE = {
    "topk": lambda x, n: tw.topk(x, n),
    "kthvalue": lambda x, n: tw.kthvalue(x, n),
    "partition": lambda x, n: tw.partition(x, n),
    "tril": lambda x, n: tw.tril(x, n),
    "triu": lambda x, n: tw.triu(x, k=n),
    "eye": lambda x, n: tw.eye(3, k=n),
    "tri": lambda x, n: tw.tri(3, k=n),
    "chunk": lambda x, n: x.chunk(n),
    "rot90": lambda x, n: tw.rot90(x, n),
    "array_split": lambda x, n: tw.array_split(x, n),
    "narrow": lambda x, n: tw.narrow(x, 0, n, 1),
    "bincount": lambda x, n: tw.bincount(tw.tensor([1]), minlength=n),
    "histogram": lambda x, n: tw.histogram(x, True if n is True else [n]),
    "diag": lambda x, n: tw.diag(x, n),
    "diagonal": lambda x, n: tw.linalg.diagonal(x, offset=n),
    "diag_embed": lambda x, n: tw.diag_embed(x, n),
    "vander": lambda x, n: tw.vander(x[0], n),
    "tril_indices": lambda x, n: tw.tril_indices(3, n),
    "triu_indices": lambda x, n: tw.triu_indices(n),
    "fft": lambda x, n: tw.fft.fft(x, n),
    "nonzero": lambda x, n: tw.nonzero(x, size=n),
    "round": lambda x, n: tw.round(x, n),
    "tensordot": lambda x, n: tw.tensordot(x, x, n),
    "polyfit": lambda x, n: tw.polyfit(x[0], x[0], n),
    "polyder": lambda x, n: tw.polyder(x[0], n),
    "polyint": lambda x, n: tw.polyint(x[0], n),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [True, 0.5])
def test_truth_values_and_fractions_are_no_integers(name, value):
    with pytest.raises((DTypeError, ArgumentError)):
        WHOLE[name](tw.ones((3, 3)), value)


# ---- layers and optimizers -----------------------------------------------------------------------------------------


def test_layers_without_features_compute():
    assert nn.Linear(0, 3)(tw.zeros((2, 0))).shape == (2, 3)
    for fill in (nn.init.xavier_uniform_, nn.init.xavier_normal_, nn.init.kaiming_normal_):
        assert fill(tw.zeros((0, 0))).shape == (0, 0)


def test_softmax_over_nothing_is_empty():
    for function in (F.softmax, F.log_softmax):
        assert function(tw.zeros((2, 0)), dim=1).shape == (2, 0)
    nothing = tw.zeros((1, 0, 4))
    assert F.scaled_dot_product_attention(tw.zeros((1, 2, 4)), nothing, nothing).tolist() == [[[0.0] * 4] * 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size: at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), "stride: at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=0), "dilation: at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding: at least 0"),
        (lambda: nn.Conv2d(True, 4, 3), "channels"),
        (lambda: nn.MaxPool2d(0), "kernel_size: at least 1"),
        (lambda: optim.SGD(nn.Linear(1, 1).parameters(), lr="high"), "lr is a number"),
        (lambda: optim.Adam(nn.Linear(1, 1).parameters(), betas=0.9), "betas are two numbers"),
        (lambda: optim.lr_scheduler.StepLR(1, 2), "StepLR sets the rates of an optimizer, got int"),
        (lambda: nn.Linear(1, 1).load_state_dict(None), "load_state_dict takes a table"),
        (lambda: tw.random.choice(3, (2,), p=[-1.0, 1.0, 1.0]), "none of them negative"),
        (lambda: tw.random.choice(2, (2,), p=[0.0, 0.0]), "not all of them 0"),
        (lambda: tw.arange(INF), "arange: .* no finite number of steps"),
        (lambda: tw.arange(0.0, NAN), "arange: .* no finite number of steps"),
        (lambda: tw.fft.fftn(tw.zeros((2, 2)), s=(3, 3, 3)), "fftn: `s` .* names more axes than"),
        (lambda: tw.random.dirichlet(tw.zeros(0)), "dirichlet: the vectors have at least 1 element"),
    ],
)
def test_arguments_that_are_none_are_told_where_they_are_given(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        wrong()


# ---- files, metrics, names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [tw.load, tw.io.load_npy, tw.io.load_npz, tw.loadtxt])
def test_a_missing_file_is_a_missing_file_whoever_reads_it(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read .*No such file"):
        load(tmp_path / "none.npy")


def test_advice_on_tables_names_no_argument_that_there_is_not(tmp_path):
    (tmp_path / "t.csv").write_text("1,2\n3\n")
    with pytest.raises(tw.io.FileFormatError, match=r"line 2: the number of columns changed from 2 to 1$"):
        tw.loadtxt(tmp_path / "t.csv")


def test_a_metric_of_nothing_is_an_error():
    with pytest.raises(TypeError, match="got NoneType"):
        metrics.mse(None, [1.0])


def test_misspelt_functions_of_the_extensions_are_guessed():
    with pytest.raises(AttributeError, match="did you mean 'inv'"):
        tw.linalg.invv  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'rfft'"):
        tw.fft.rffft  # noqa: B018
