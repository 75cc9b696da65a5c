"""SciPy's and scikit-learn's functions for any array of the standard: tensors in, tensors out, NumPy's numbers.

SciPy reads its setting when it is imported, so everything runs in one process of its own, which prints what went wrong.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import warnings
warnings.simplefilter("ignore")
import numpy as np
import sklearn, scipy.cluster.vq, scipy.fft, scipy.integrate, scipy.ndimage, scipy.signal, scipy.spatial.distance, scipy.special
import scipy.stats, scipy.differentiate
import sklearn.decomposition as decomposition, sklearn.discriminant_analysis as discriminant, sklearn.linear_model as linear
import sklearn.metrics as metrics, sklearn.mixture as mixture
import sklearn.naive_bayes as bayes, sklearn.preprocessing as preprocessing
import tilewright as tw

rng = np.random.default_rng(0)
X = np.abs(rng.standard_normal((20, 3))) + 0.1
V, W = X[:, 0].copy(), X[:, 1].copy()
Y, Z = (V > 0.7).astype(np.int64), (W > 0.7).astype(np.int64)
tried = 0

def leaves(found):
    if isinstance(found, (tuple, list)):
        return [leaf for f in found for leaf in leaves(f)]
    return [found]

def check(name, function, *inputs, tensors=True):
    global tried
    tried += 1
    try:
        ours, theirs = leaves(function(*map(tw.tensor, inputs))), leaves(function(*inputs))
        assert len(ours) == len(theirs)
        for got, want in zip(ours, theirs):
            assert isinstance(got, tw.Tensor) or not tensors, type(got)
            np.testing.assert_allclose(np.asarray(got), want, rtol=1e-6, atol=1e-7)  # made without a type, numbers are float32
    except Exception as error:
        print(name, type(error).__name__, str(error)[:300])

for name in ("logsumexp", "softmax", "log_softmax", "gammaln", "expit", "erf", "entr", "ndtr"):
    check(name, getattr(scipy.special, name), X)
check("xlogy", scipy.special.xlogy, X, X)
for name in ("skew", "kurtosis", "zscore", "gmean", "hmean", "variation", "sem", "entropy", "gzscore", "circmean", "iqr", "tmean",
             "tvar", "kstat", "differential_entropy"):
    check(name, getattr(scipy.stats, name), X)
check("moment", lambda x: scipy.stats.moment(x, 3), X)
check("trim_mean", lambda x: scipy.stats.trim_mean(x, 0.1), X)
check("rankdata", scipy.stats.rankdata, V)
check("ttest_ind", lambda x: list(scipy.stats.ttest_ind(x, x * 2)), X)
check("pearsonr", lambda a, b: scipy.stats.pearsonr(a, b).statistic, V, W)
for name in ("fft", "rfft", "fftn", "dct", "fftshift"):
    check(name, getattr(scipy.fft, name), X)
check("trapezoid", lambda x: scipy.integrate.trapezoid(x, axis=0), X)
check("cumulative_trapezoid", lambda x: scipy.integrate.cumulative_trapezoid(x, axis=0), X)
check("tanhsinh", lambda a, b: scipy.integrate.tanhsinh(lambda x: x**2, a, b).integral, np.array(0.0), np.array(1.0))
check("derivative", lambda x: scipy.differentiate.derivative(lambda x: x**3, x).df, np.array(0.5))
check("vq", lambda x: list(scipy.cluster.vq.vq(x, x[:3, :])), X)
check("pdist", scipy.spatial.distance.pdist, X)
for name in ("convolve", "fftconvolve"):
    check(name, getattr(scipy.signal, name), V, W)
check("detrend", scipy.signal.detrend, V)
check("gaussian_filter", lambda x: scipy.ndimage.gaussian_filter(x, 1.0), X)

with sklearn.config_context(array_api_dispatch=True):
    for name in ("accuracy_score", "zero_one_loss", "f1_score", "precision_score", "balanced_accuracy_score", "confusion_matrix"):
        check(name, getattr(metrics, name), Y, Z, tensors=name == "confusion_matrix")
    for name in ("mean_squared_error", "mean_absolute_error", "r2_score", "explained_variance_score", "max_error"):
        check(name, getattr(metrics, name), V, W, tensors=False)
    for name in ("cosine_similarity", "euclidean_distances", "rbf_kernel", "polynomial_kernel"):
        check(name, getattr(metrics.pairwise, name), X, X)
    for name in ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "Normalizer", "Binarizer", "PolynomialFeatures"):
        check(name, lambda x: getattr(preprocessing, name)().fit_transform(x), X)
    check("LabelEncoder", lambda y: preprocessing.LabelEncoder().fit_transform(y), Y)
    for solver in ("full", "covariance_eigh"):
        check(f"PCA {solver}", lambda x: abs(decomposition.PCA(2, svd_solver=solver).fit_transform(x)), X)
    check("Ridge", lambda x, y: linear.Ridge(solver="svd").fit(x, y).coef_, X, V)
    check("LDA", lambda x, y: discriminant.LinearDiscriminantAnalysis().fit(x, y).predict(x), X, Y)
    check("GaussianNB", lambda x, y: bayes.GaussianNB().fit(x, y).predict(x), X, Y)
    check("GaussianMixture", lambda x, w: mixture.GaussianMixture(
        2, init_params="random", random_state=0, means_init=x[:2], weights_init=w).fit(x).means_, X, np.array([0.5, 0.5]))
print("tried", tried)
"""


def test_functions_of_scipy_and_scikit_learn_work_on_tensors() -> None:
    pytest.importorskip("sklearn")
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *failures, last = done.stdout.splitlines()
    assert not failures, "\n".join(failures)
    assert int(last.split()[1]) > 60
