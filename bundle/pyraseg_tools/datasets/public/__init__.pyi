# SPDX-License-Identifier: Apache-2.0
from .recipes import RECIPES as RECIPES
from .recipes import prepare as prepare
