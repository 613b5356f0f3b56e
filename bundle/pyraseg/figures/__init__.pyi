# SPDX-License-Identifier: Apache-2.0
from .captures import draw_captures as draw_captures
from .captures import slices_to_capture as slices_to_capture
from .charts import Box as Box
from .charts import Line as Line
from .charts import box_plot as box_plot
from .charts import line_chart as line_chart
from .drawing import color_of as color_of
from .drawing import compose as compose
from .drawing import write_overlay as write_overlay
from .overlay import at_window as at_window
from .overlay import display as display
from .overlay import draw as draw
from .overlay import outline_paths as outline_paths
from .overlay import telling_slices as telling_slices
