# SPDX-License-Identifier: Apache-2.0
from .cpu_kernels import FastConvolutions as FastConvolutions
from .cpu_kernels import has_bfloat16 as has_bfloat16
from .deeplab import DeepLabV3Plus as DeepLabV3Plus
from .encoders import expected_normalization as expected_normalization
from .folding import fold_batch_norm as fold_batch_norm
from .heads import PyramidBottleneck as PyramidBottleneck
from .losses import DiceCELoss as DiceCELoss
from .losses import DiceFocalLoss as DiceFocalLoss
from .losses import PartialTarget as PartialTarget
from .pspnet import PSPNet as PSPNet
from .segmentation import PartwiseNetwork as PartwiseNetwork
from .torchvision_ops import import_with_torchvision as import_with_torchvision
from .weights import load_weights as load_weights
from .weights import read_packaged_weights as read_packaged_weights
from .weights import require_finite as require_finite
