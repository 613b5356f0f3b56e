# SPDX-License-Identifier: Apache-2.0
from .__main__ import main as main
from .find import find_inputs as find_inputs
from .find import require_apart as require_apart
from .find import search_inputs as search_inputs
from .images import Labels as Labels
from .images import segment as segment
from .initializers import require_finite_graph as require_finite_graph
from .listing import Listing as Listing
from .listing import list_inputs as list_inputs
from .model import FORMAT as FORMAT
from .model import NO_CLASS as NO_CLASS
from .model import REGION_FORMAT as REGION_FORMAT
from .model import Model as Model
from .model import open_session as open_session
from .writers import png_writer as png_writer
from .writers import seg_writer as seg_writer
