"""What every code of the language means: the pages of `tw explain CODE`.

The page of a code says why the rule exists, and shows text that breaks it beside text that keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tilewright.core.diagnostics import Explanation

_PAGES: Final = (
    # --- KYN0xx: the text ------------------------------------------------------------------------------
    Explanation(
        "KYN001",
        "a source cannot be read",
        "The file does not exist, may not be read, is larger than 16 MiB, or is not UTF-8 text.",
    ),
    Explanation(
        "KYN002",
        "tab character",
        "Indentation has a meaning, and a tab has no agreed width. Only spaces are allowed outside "
        "strings and comments.",
        "model Net:\n\tinput 10",
        "model Net:\n    input 10",
    ),
    Explanation(
        "KYN003",
        "wrong indentation",
        "A block header stands in column 1, its lines are indented by exactly four spaces, and "
        "those under `repeat` by exactly eight.",
        "train:\n  epochs = 10",
        "train:\n    epochs = 10",
    ),
    Explanation(
        "KYN004",
        "unexpected character",
        "The character belongs to no word of the language. Strings are written in double quotes; a "
        "parameter reference is `$` and a name.",
        "target = 'price'",
        'target = "price"',
    ),
    Explanation(
        "KYN005",
        "string without a closing quote",
        "A string ends on the line on which it starts.",
        'target = "price',
        'target = "price"',
    ),
    Explanation(
        "KYN006",
        "unknown escape in a string",
        'A backslash starts an escape: `\\"`, `\\\\`, `\\n` or `\\t`. A backslash itself is written '
        "twice; for paths, `/` works everywhere.",
        'source = csv("data\\houses.csv")',
        'source = csv("data/houses.csv")',
    ),
    Explanation(
        "KYN007",
        "malformed or too large number",
        "A number is digits, perhaps a fraction and an exponent: 10, 0.5, 1e-3, 1_000. Integers "
        "have 64 bits, and floats must be finite.",
        "split = .8",
        "split = 0.8",
    ),
    Explanation(
        "KYN008",
        "expected a block header",
        'A line in column 1 is `import "file.kyn"` or the header of a block: params, sweep, '
        "dataset, model, train, evaluate, export.",
        "training:\n    epochs = 10",
        "train:\n    epochs = 10",
    ),
    Explanation(
        "KYN009",
        "missing colon",
        "A block header and a `repeat` line end with `:`.",
        "model Net\n    input 10",
        "model Net:\n    input 10",
    ),
    Explanation(
        "KYN010",
        "a block with a wrong name",
        "`dataset` and `model` have a name, so that `train` can refer to them; the other blocks have none.",
        "model:\n    input 10",
        "model Net:\n    input 10",
    ),
    Explanation(
        "KYN011",
        "expected `key = value`",
        "A line of every block but `model` gives one key its value. A line of `model` starts with a "
        "layer's name.",
        "train:\n    epochs 10",
        "train:\n    epochs = 10",
    ),
    Explanation(
        "KYN012",
        "unexpected text",
        "Something stands where the line should end, or where a comma or bracket should be.",
        "metrics = mae, rmse",
        "metrics = [mae, rmse]",
    ),
    Explanation(
        "KYN013",
        "bracket that is never closed",
        "A list or a call ends on the line on which it starts.",
        "metrics = [mae, rmse",
        "metrics = [mae, rmse]",
    ),
    Explanation(
        "KYN014",
        "expected a value",
        "A value is a number, `true` or `false`, a string, a name, a list `[a, b]`, a call "
        "`name(key=value)` or a parameter `$name`.",
        "epochs =",
        "epochs = 10",
    ),
    Explanation(
        "KYN015",
        "wrong order on a line",
        "A layer line is: the name, positional values, then `key=value` options, then the "
        "activation. In a call, values come before options.",
        "dense relu 64",
        "dense 64 relu",
    ),
    Explanation(
        "KYN016",
        "empty body",
        "A block header or `repeat` needs at least one line under it.",
        "evaluate:\n\nexport:",
        "evaluate:\n    metrics = [mae]",
    ),
    Explanation(
        "KYN017",
        "nested too deeply",
        "`repeat` stands in a model's body, not in another `repeat`; lists and calls nest up to 32 levels.",
        "repeat 2:\n    repeat 3:",
        "repeat 6:",
    ),
    # --- KYN1xx: names and values ----------------------------------------------------------------------
    Explanation(
        "KYN101",
        "duplicate",
        "A block, name, key, option, metric or import is given twice. Data sets and models share "
        "names with those of imported files.",
        "train:\n    epochs = 10\n    epochs = 20",
        "train:\n    epochs = 20",
    ),
    Explanation(
        "KYN102",
        "a block is missing",
        "A program has at least one `dataset`, at least one `model` and exactly one `train`.",
    ),
    Explanation(
        "KYN103",
        "a required value is missing",
        "A block lacks a key that has no default, or a layer or call lacks a value.",
        "model Net:\n    input 10\n    dense relu",
        "model Net:\n    input 10\n    dense 64 relu",
    ),
    Explanation(
        "KYN104",
        "undefined parameter",
        "`$name` refers to a default in `params` or to an axis of `sweep`.",
        "params:\n    hidden = 64\nmodel Net:\n    input 10\n    dense $hiden",
        "params:\n    hidden = 64\nmodel Net:\n    input 10\n    dense $hidden",
    ),
    Explanation(
        "KYN105",
        "unknown key",
        "The block has no such key.",
        "train:\n    batch_size = 32",
        "train:\n    batch = 32",
    ),
    Explanation(
        "KYN106",
        "unknown layer",
        "The word names no layer.",
        "conv 16 kernel=3",
        "conv2d 16 kernel=3",
    ),
    Explanation(
        "KYN107",
        "unknown activation",
        "The last word of a layer line names no activation.",
        "dense 64 rellu",
        "dense 64 relu",
    ),
    Explanation(
        "KYN108",
        "unknown name for a value",
        "The key takes one of a few names: a loss, an optimizer, a scheduler, a metric, a device, ...",
        "optimizer = adan(lr=1e-3)",
        "optimizer = adam(lr=1e-3)",
    ),
    Explanation(
        "KYN109",
        "unknown option",
        "The layer or call has no such option.",
        "optimizer = adam(rate=1e-3)",
        "optimizer = adam(lr=1e-3)",
    ),
    Explanation(
        "KYN110",
        "wrong type of value",
        "The key or option takes another kind of value. An integer stands for a float, nothing else "
        "is converted.",
        "epochs = 2.5",
        "epochs = 3",
    ),
    Explanation(
        "KYN111",
        "value out of range",
        "The value has the right type and is not allowed.",
        "split = 1.8",
        "split = 0.8",
    ),
    Explanation(
        "KYN112",
        "unknown model or data set",
        "`train` names a model or data set that neither this file nor its imports define.",
        "model Net:\n    input 10\n    dense 1\ntrain:\n    model = Nett",
        "model Net:\n    input 10\n    dense 1\ntrain:\n    model = Net",
    ),
    Explanation(
        "KYN113",
        "wrong number of positional values",
        "The layer or call takes fewer (or more) values without a name.",
        "conv2d 16 3",
        "conv2d 16 kernel=3",
    ),
    Explanation(
        "KYN114",
        "import that cannot be read",
        "The path is relative to the importing file.",
    ),
    Explanation(
        "KYN115",
        "import cycle",
        "A file imports itself, directly or through others. Move what both need to a third file.",
    ),
    Explanation(
        "KYN116",
        "wrong parameter on the command line",
        "`--param` takes `key=value`, the key must be a parameter of the program, and the program "
        "must use it: otherwise the run would silently be another one than asked for.",
        "tw train net.kyn --param hiden=128",
        "tw train net.kyn --param hidden=128",
    ),
    Explanation(
        "KYN117",
        "wrong sweep axis",
        "Every axis is a non-empty list, and the program refers to it as `$name`: otherwise all its "
        "runs would be the same.",
        "sweep:\n    lr = 1e-3",
        "sweep:\n    lr = [1e-3, 1e-2]",
    ),
    Explanation(
        "KYN118",
        "metric that does not suit the loss",
        "mae, mse and rmse compare numbers; accuracy, precision, recall, f1 and auc compare "
        "classes. `bce` allows both.",
        "loss = mse\nmetrics = [accuracy]",
        "loss = mse\nmetrics = [rmse]",
    ),
    Explanation(
        "KYN119",
        "output that does not suit the loss",
        "`nll` needs log-probabilities: the model ends with `log_softmax`. `bce` needs a "
        "probability or a logit: the model ends with `sigmoid`, or without an activation, and then "
        "the loss applies sigmoid itself.",
        "dense 1 relu\nloss = bce",
        "dense 1 sigmoid\nloss = bce",
    ),
    Explanation(
        "KYN120",
        "too large",
        "A sweep has at most 1,000 runs, a model at most 10,000 layers, a layer at most 2^40 values.",
    ),
    Explanation(
        "KYN121",
        "values that do not go together",
        "Each value is fine alone: `nesterov` without `momentum`, `opset` without `onnx`, "
        "`evaluate` without held-out rows, `padding=same` with a stride, `normalize` of indices, a "
        "model without weights.",
        "optimizer = sgd(nesterov=true)",
        "optimizer = sgd(momentum=0.9, nesterov=true)",
    ),
    Explanation(
        "KYN122",
        "data file that does not exist or cannot be read",
        "The path of a data set is relative to the `.kyn` file that declares it, then to the "
        "working directory.",
    ),
    Explanation(
        "KYN123",
        "not in this version",
        "The program is right, and this version cannot do it yet: a device or an export format.",
    ),
    # --- KYN2xx: shapes --------------------------------------------------------------------------------
    Explanation(
        "KYN201",
        "no input, or not at the top",
        "The first layer of a model is its only `input`; the sizes of all others follow from it.",
        "model Net:\n    dense 64\n    input 10",
        "model Net:\n    input 10\n    dense 64",
    ),
    Explanation(
        "KYN202",
        "explicit size that does not match",
        "The size of `batchnorm` and `layernorm` is inferred. One that is written is checked.",
        "dense 64\nbatchnorm 32",
        "dense 64\nbatchnorm",
    ),
    Explanation(
        "KYN203",
        "layer that cannot take this shape",
        "`dense` takes a vector (or a sequence of them), `conv2d` and the pools take channels, "
        "height and width.",
        "conv2d 8 kernel=3\ndense 10",
        "conv2d 8 kernel=3\nflatten\ndense 10",
    ),
    Explanation(
        "KYN204",
        "window larger than its input",
        "A convolution or pool slides a window, with its padding, over what the layer before gives; "
        "it must fit at least once. The padding of a pool is at most half its kernel.",
        "input 1 4 4\nconv2d 8 kernel=5",
        "input 1 4 4\nconv2d 8 kernel=5 padding=2",
    ),
    Explanation(
        "KYN205",
        "reshape to another number of values",
        "The sizes multiply to the number of values before. One of them may be `-1`.",
        "input 64\nreshape 1 8 9",
        "input 64\nreshape 1 8 8",
    ),
    Explanation(
        "KYN206",
        "`bce` without exactly one output",
        "Binary cross-entropy compares one probability with one 0/1 target. For two or more classes "
        "use `cross_entropy`.",
        "dense 2\nloss = bce",
        "dense 1 sigmoid\nloss = bce",
    ),
    Explanation(
        "KYN207",
        "too few outputs for classes",
        "`cross_entropy` and `nll` need one output per class, so at least two.",
        "dense 1\nloss = cross_entropy",
        "dense 1 sigmoid\nloss = bce",
    ),
    Explanation(
        "KYN208",
        "output that does not fit the target",
        "The data has one target column: `mse`, `l1` and `huber` need exactly one output, and every "
        "loss needs a vector of outputs, not a map or a sequence.",
        "dense 2\nloss = mse",
        "dense 1\nloss = mse",
    ),
    Explanation(
        "KYN209",
        "groups that do not divide the channels",
        "`groups` must divide both the input and the output channels.",
        "input 3 8 8\nconv2d 8 kernel=3 groups=2",
        "input 4 8 8\nconv2d 8 kernel=3 groups=2",
    ),
    Explanation(
        "KYN210",
        "export shape that is not the model's",
        "`input_shape` is the batch size followed by the sizes of `input`. Left out, it is inferred.",
        "input 10\ninput_shape = [1, 12]",
        "input 10\ninput_shape = [1, 10]",
    ),
    Explanation(
        "KYN211",
        "data with another number of features",
        "The features of the data set (numeric columns, plus one per category of a text column, "
        "without the target) must be as many as the values of `input`.",
    ),
    Explanation(
        "KYN212",
        "data with another number of classes",
        "The distinct values of the target column must be as many as the outputs of the model.",
    ),
    # --- KYN3xx: the lock ------------------------------------------------------------------------------
    Explanation(
        "KYN301",
        "a source changed since it was locked",
        "`tw lock` recorded the sha256 of every source; with `--locked`, a source that is another "
        "one stops the work. Run `tw lock` again to accept the change.",
    ),
    Explanation(
        "KYN302",
        "the data changed since it was locked",
        "`tw lock` recorded the sha256 of every data file; with `--locked`, other data stops the work.",
    ),
    Explanation(
        "KYN303",
        "no usable lock file",
        "`--locked` needs the lock file that `tw lock FILE` writes beside the program.",
    ),
    # --- KYN4xx: warnings ------------------------------------------------------------------------------
    Explanation(
        "KYN401",
        "`cross_entropy` after softmax",
        "`cross_entropy` applies log_softmax itself. After `softmax` the gradients become small and "
        "training is slow; after `log_softmax` the second one changes nothing. The program runs as "
        "written.",
        "dense 10 softmax\nloss = cross_entropy",
        "dense 10\nloss = cross_entropy",
    ),
    Explanation(
        "KYN402",
        "parameter that is not used",
        "Nothing refers to it as `$name`.",
    ),
    Explanation(
        "KYN403",
        "early stopping on a rising loss",
        "`mode=max` with the loss stops as soon as the loss falls for long enough. Watch a metric instead.",
        "early_stop = early_stop(patience=5, mode=max)",
        "early_stop = early_stop(patience=5, mode=max, monitor=accuracy)",
    ),
)

CODES: Final[Mapping[str, Explanation]] = {page.code: page for page in _PAGES}
