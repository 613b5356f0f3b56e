# SPDX-License-Identifier: Apache-2.0
from .app_folder import put_bundles as put_bundles
from .retraining import retrain as retrain
