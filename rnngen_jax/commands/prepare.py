"""Import images into a TFDS data set of ArrayRecord files, once, without TensorFlow.

  rnngen prepare --input=folder:photos --name=photos
  rnngen prepare --input=idx:downloads/mnist --name=my_mnist --data_dir=data

Then train on it with --config.data.name=tfds:NAME, or tfds:PATH for another --data_dir.
An existing data set of that name is never overwritten.
"""

from rnngen_jax.commands.base import DATA_DIR, INPUT, NAME

FLAGS = (
    INPUT._replace(required=True, help="digits, idx:FOLDER, folder:FOLDER, npz:FILE or tfds:NAME"),
    NAME._replace(required=True, help="name of the new data set: small letters, digits and _"),
    DATA_DIR._replace(
        help="where data sets lie; by default TFDS_DATA_DIR or ~/tensorflow_datasets"
    ),
)


def run(input: str, name: str, data_dir: str | None) -> int:
    """Prepares.

    Args:
      input: a source, as in `config.data.name`.
      name: the new data set's name.
      data_dir: the folder of data sets, or `None`.

    Returns:
      0.

    Raises:
      UserError: the source cannot be read, or the name is taken or not allowed.
    """
    from rnngen_jax.data.base import DataConfig
    from rnngen_jax.data.prepare import prepare

    print(prepare(DataConfig(name=input), name, data_dir))
    return 0
