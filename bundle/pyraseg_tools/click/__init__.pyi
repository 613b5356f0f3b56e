# SPDX-License-Identifier: Apache-2.0
from .labeling import Labeling as Labeling
from .labeling import Task as Task
from .labeling import by_uncertainty as by_uncertainty
from .places import how_to_pair as how_to_pair
from .places import label_file as label_file
from .places import labels_of_folder as labels_of_folder
from .server import Server as Server
