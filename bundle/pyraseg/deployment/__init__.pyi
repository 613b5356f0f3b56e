# SPDX-License-Identifier: Apache-2.0
from .exporting import Parts as Parts
from .exporting import describe as describe
from .exporting import export as export
from .exporting import path_model as path_model
from .exporting import recipe_properties as recipe_properties
from .gate import judge as judge
from .onnx_network import OnnxNetwork as OnnxNetwork
from .onnx_network import load_engine as load_engine
from .quantization import Quantized as Quantized
from .quantization import Quantizer as Quantizer
from .quantization import quantize as quantize
from .quantization import require_content as require_content
from .recipe import Decision as Decision
from .recipe import read_recipe as read_recipe
from .single_file import requirements as requirements
from .single_file import write_zipapp as write_zipapp
from .triton import write_repository as write_repository
