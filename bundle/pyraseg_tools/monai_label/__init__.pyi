# SPDX-License-Identifier: Apache-2.0
from .access import TOKEN as TOKEN
from .access import Access as Access
from .app_folder import put_bundles as put_bundles
from .retraining import retrain as retrain
