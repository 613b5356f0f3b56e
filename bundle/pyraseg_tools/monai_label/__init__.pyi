# SPDX-License-Identifier: Apache-2.0
from .access import TOKEN as TOKEN
from .access import Access as Access
from .access import holds_token as holds_token
from .access import is_from_elsewhere as is_from_elsewhere
from .app_folder import put_bundles as put_bundles
from .retraining import retrain as retrain
