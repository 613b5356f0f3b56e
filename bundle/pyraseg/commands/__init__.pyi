# SPDX-License-Identifier: Apache-2.0
from .clicks import click_model as click_model
from .console import COMMANDS as COMMANDS
from .console import command_parser as command_parser
from .console import main as main
from .contest import command_line as command_line
from .options import add_configs as add_configs
from .options import split_options as split_options
from .pick_form import on_openvino as on_openvino
from .places import config_files as config_files
from .places import home as home
from .quantize import training_images as training_images
from .run import run_config as run_config
