# SPDX-License-Identifier: Apache-2.0
"""Bring a network's ONNX graph to int8: static, with the layers that cost accuracy left in float.

Ranges of the activations are measured on images of the task. Activations become unsigned, weights signed with a scale
for each channel, which processors with VNNI multiply fastest. (`quantize_dynamic`, of PyTorch or of ONNX Runtime, does
not touch convolutions at all.)
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from scipy.special import expit

from bundle.pyraseg.core import PyrasegError, region_values
from bundle.pyraseg.runtime import open_session

#: Operators with weights: each, with the activation behind it, is a layer that may stay in float.
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
#: Operators that are taken into the layer in front of them.
ACTIVATIONS = ("Clip", "Relu", "HardSwish", "HardSigmoid", "Sigmoid")
#: Share of pixels on training images that must keep their class, above what is asked on validation.
ENOUGH = 0.997


@dataclass(frozen=True)
class Quantized:
    """Hold a network in int8.

    Attributes:
        model: the graph.
        agreement: share of the pixels of training images whose class it does not change.
        in_float: names of the layers that were left in float.
        costs: what each layer costs, the worst first: the share of pixels whose class changes where it alone is int8.
            Empty where nobody measured it.
    """

    model: onnx.ModelProto
    agreement: float
    in_float: tuple[str, ...]
    costs: dict[str, float]


class Quantizer:
    """Quantize one network again and again with other layers in float; ranges are measured once.

    Args:
        network_file: float network as `pyraseg export` writes it.
        images: what the network is shown on the task's training data, each (1, C, W, H) float32.
        folder: for what is made on the way.
    """

    def __init__(self, network_file: Path, images: Sequence[np.ndarray], folder: Path) -> None:
        self.images = list(images)
        self._prepared, self._ranges, self._target = (
            folder / name for name in ("prepared.onnx", "ranges.json", "int8.onnx")
        )
        with _quiet():
            quant_pre_process(network_file, self._prepared, skip_symbolic_shape=True)
        prepared = onnx.load(self._prepared)
        _unshare(prepared.graph)
        onnx.save(prepared, self._prepared)
        graph = prepared.graph
        constants = {item.name for item in graph.initializer}
        self.input = graph.input[0].name
        self._nodes = {}
        for node in graph.node:
            weights = [name for name in node.input if name in constants]
            if node.op_type in LAYERS and weights:
                layer = weights[0].removesuffix(".weight")
                self._nodes[layer] = [node.name, *_activation(graph, node.output[0])]

    @property
    def layers(self) -> list[str]:
        """Return the names of the layers, those of their weights, from the image on."""
        return list(self._nodes)

    def __call__(self, *, in_float: Sequence[str] = (), only: str | None = None) -> onnx.ModelProto:
        """Return the network in int8, but for some layers; or in float, but for one."""
        with _quiet():
            quantize_static(
                self._prepared,
                self._target,
                _Reader(self.input, self.images),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=[node for layer in in_float for node in self._nodes[layer]],
                nodes_to_quantize=None if only is None else self._nodes[only],
                calibration_cache_path=self._ranges,
            )
        return onnx.load(self._target)


def quantize(
    network_file: Path,
    images: Sequence[np.ndarray],
    shown: Sequence[np.ndarray],
    *,
    enough: float = ENOUGH,
    measure: bool = False,
    progress: Callable[[Sequence[str]], Iterator[str]] = iter,
) -> Quantized:
    """Return a network in int8, with as many of the costliest layers in float as `enough` needs, half of them at most.

    Args:
        network_file: float network as `pyraseg export` writes it.
        images: training images that ranges are measured on, each (1, C, W, H) float32.
        shown: training images that layers are judged on.
        enough: share of the pixels of `shown` that must keep their class.
        measure: measure what each layer costs even where all of them may be int8.
        progress: goes through the layers while they are measured, with a bar for example.
    """
    network = onnx.load(network_file)
    regions = any(item.key == "regions" for item in network.metadata_props)  # as `pyraseg export` writes
    expected = classes(network, shown, regions=regions)
    with tempfile.TemporaryDirectory(prefix="pyraseg_int8_") as folder:
        quantizer = Quantizer(network_file, images, Path(folder))
        model = quantizer()
        agreement = _agreement(model, shown, expected, regions=regions)
        if agreement >= enough and not measure:
            return Quantized(model, agreement, (), {})
        alone = {
            layer: _agreement(quantizer(only=layer), shown, expected, regions=regions)
            for layer in progress(quantizer.layers)
        }
        costs = {layer: 1 - alone[layer] for layer in sorted(alone, key=alone.__getitem__)}
        in_float: list[str] = []
        while agreement < enough and len(in_float) < len(costs) // 2:
            in_float = list(costs)[: max(1, 2 * len(in_float))]
            model = quantizer(in_float=in_float)
            agreement = _agreement(model, shown, expected, regions=regions)
    return Quantized(model, agreement, tuple(in_float), costs)


def classes(model: onnx.ModelProto, images: Sequence[np.ndarray], *, regions: bool = False) -> list[np.ndarray]:
    """Return the classes that a network sees in each image, (1, W, H), or the label values of its regions."""
    run = open_session(model.SerializeToString(), threads=1, remedy="Quantize it anew.")
    (name,) = (item.name for item in run.get_inputs())
    logits = (run.run(None, {name: image})[0] for image in images)
    if not regions:
        return [found.argmax(1) for found in logits]
    return [region_values(expit(found).swapaxes(0, 1), np.zeros(found[:, 0].shape, np.uint8)) for found in logits]


def require_content(images: Sequence[np.ndarray]) -> None:
    """Refuse images that no range can be measured on.

    Raises:
        PyrasegError: there are none, or all are constant.
    """
    if not images or all(np.ptp(image) == 0 for image in images):
        raise PyrasegError(
            f"Ranges cannot be measured on {len(images)} images without any content. Give training images of the task."
        )


def _agreement(
    model: onnx.ModelProto, images: Sequence[np.ndarray], expected: Sequence[np.ndarray], *, regions: bool
) -> float:
    pairs = zip(classes(model, images, regions=regions), expected, strict=True)
    equal = [found == wanted for found, wanted in pairs]
    return sum(int(each.sum()) for each in equal) / sum(each.size for each in equal)


def _unshare(graph: onnx.GraphProto) -> None:
    """Give each input that reads weights a copy of its own.

    Without VNNI, ONNX Runtime 1.31 does not load weights in int8 that are read twice. `quant_pre_process` makes one
    tensor of equal ones: those of layers that share them, or scale and variance of batch norm as it was initialized.
    """
    shared = {item.name: item for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT and item.dims}
    read = set()
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in read:
                own = onnx.TensorProto()
                own.CopyFrom(shared[name])
                own.name = f"{name.removesuffix('.weight')} ({node.name}, {place}).weight"
                graph.initializer.append(own)
                node.input[place] = own.name
            elif name in shared:
                read.add(name)


def _activation(graph: onnx.GraphProto, output: str) -> list[str]:
    """Return the name of the activation that is all that reads a value, if there is one."""
    readers = [node for node in graph.node if output in node.input]
    return [node.name for node in readers if len(readers) == 1 and node.op_type in ACTIVATIONS]


class _Reader(CalibrationDataReader):
    """Hand images to the quantizer, one after the other."""

    def __init__(self, name: str, images: Sequence[np.ndarray]) -> None:
        self.name = name
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {self.name: image}


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep what ONNX Runtime prints and logs about every step to itself."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
