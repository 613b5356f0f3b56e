# SPDX-License-Identifier: Apache-2.0
from .class_table import Canvas as Canvas
from .class_table import ClassTable as ClassTable
from .class_table import Region as Region
from .contours import trace_outlines as trace_outlines
from .reading import open_label as open_label
from .reading import read_dicom_label as read_dicom_label
from .references import DRAWN_ON as DRAWN_ON
from .references import ImageGrid as ImageGrid
from .references import ImageUids as ImageUids
from .references import images_of as images_of
from .references import read_references as read_references
from .references import references_of as references_of
from .rtstruct_reader import StructureSet as StructureSet
from .rtstruct_writer import write_structure_set as write_structure_set
from .seg_writer import SegmentClass as SegmentClass
from .seg_writer import segment_classes as segment_classes
from .seg_writer import write_segmentation as write_segmentation
