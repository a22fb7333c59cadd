"""Export a reference model as a TensorFlow SavedModel, for TensorFlow Serving."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from infscale.models.export import check_parity, run
from infscale.models.reference import Model, inputs


def write(model: Model, folder: Path) -> str:
    """Write version 1 of the model with two signatures, and return the base path.

    ``serving_default`` takes the rows as ``x`` and gives ``y``; ``from_bytes`` takes the bytes of each row as a string.
    """
    weights = {key: tf.constant(value) for key, value in model.weights.items()}

    def pooled(x: Any, kernel: Any, bias: Any) -> Any:
        return tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias), 2, 2, "VALID")

    def mlp(x: Any) -> Any:
        hidden = tf.nn.relu(tf.matmul(x, weights["dense1"]) + weights["bias1"])
        return tf.nn.softmax(tf.matmul(hidden, weights["dense2"]) + weights["bias2"])

    def cnn(x: Any) -> Any:
        y = pooled(pooled(x[..., None], weights["conv1"], weights["bias1"]), weights["conv2"], weights["bias2"])
        return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 400]), weights["dense3"]) + weights["bias3"])

    def image(x: Any) -> Any:
        blocks = tf.reduce_mean(tf.reshape(tf.cast(x, tf.float32), [-1, 7, 32, 7, 32, 3]), axis=[2, 4]) / 255
        return tf.nn.softmax(tf.matmul(tf.reshape(blocks, [-1, 147]), weights["dense"]) + weights["bias"])

    def decoded(file: Any) -> Any:
        return tf.ensure_shape(tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE"), [224, 224, 3])

    def photo(x: Any) -> Any:
        return image(tf.map_fn(decoded, x, fn_output_signature=tf.uint8))

    forward = {"noop": tf.identity, "mlp": mlp, "cnn": cnn, "image": image, "photo": photo}[model.name]
    dtype = tf.string if model.dtype == "bytes" else tf.as_dtype(model.dtype)
    function = tf.function(
        lambda x: {"y": forward(x)},
        input_signature=[tf.TensorSpec([None, *model.input_shape], dtype, name="x")],
    )

    def unpacked(x: Any) -> Any:
        return x if model.dtype == "bytes" else tf.reshape(tf.io.decode_raw(x, dtype), [-1, *model.input_shape])

    from_bytes = tf.function(
        lambda x: {"y": forward(unpacked(x))}, input_signature=[tf.TensorSpec([None], tf.string, name="x")]
    )
    module = tf.Module()
    signatures = {"serving_default": function, "from_bytes": from_bytes}
    tf.saved_model.save(module, str(folder / model.name / "1"), signatures=signatures)
    rows = inputs(model.name, 8)
    check_parity(function(tf.constant(rows))["y"].numpy(), model, rows, "SavedModel")
    return model.name


if __name__ == "__main__":
    run(write)
