"""Weights on disk: written whole, loaded exactly or not at all."""

from .folder import Files as Files
from .folder import files_in as files_in
from .folder import header_at as header_at
from .folder import is_folder as is_folder
from .folder import read_files as read_files
from .folder import save as save
from .folder import spec_of as spec_of
from .loading import load_branches as load_branches
from .loading import load_into as load_into
from .loading import load_model as load_model
from .matching import LoadReport as LoadReport
from .skipping import no_collection as no_collection
from .skipping import skip_init as skip_init
from .tensors import attribute as attribute
from .tensors import first_values as first_values
from .tensors import unchanged as unchanged
